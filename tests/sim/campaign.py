"""The long search: everything that takes longer than a commit may wait, for as long as it is given.

python -m tests.sim.campaign --minutes N [--report FILE] [--json] [--seed-from S] [--planted]

The simulation runs here, on both transports, and on a redis-server as well; the other long parts are programs of their own, started one
after the other, each for its share of the time. To add one, add a line to `PARTS`. The report says what was done, what failed and how
to see it again; the status is 1 when anything failed, or when a rare situation was not met often enough to trust the rest.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.sim.runner import ROOT, Job, Total, run
from tests.sim.scene import Kept, Transport
from tests.sim.sometimes import REQUIRED, blind

FOUND = Path(__file__).parent / "found"
LEAST_S = 5.0
TAIL_LINES = 15
FAILED_TAIL_LINES = 60
"""Of a part that has failed: what it says of each failure, and how to see it again."""


@attrs.frozen
class Part:
    """A part of the campaign that is a program of its own."""

    title: str
    module: str
    share: float
    """Of the time of the campaign. A part that has taken more than its share leaves the others less."""
    options: tuple[str, ...] = ()


ENDLESS = ("--kills", "20000", "--redis-restarts", "5000")
"""More than any campaign has time for."""
PARTS = (
    Part("Crash at every step", "tests.crash", 0.1, ("--jobs", "2")),
    Part("Fuzzing", "tests.fuzz", 0.1),
    Part("Liars", "tests.hostile", 0.05),
    Part("Real processes on SQLite", "tests.real.chaos", 0.1, ("--store", "sqlite", *ENDLESS)),
    Part("Real processes on Redis", "tests.real.chaos", 0.15, ("--store", "redis", *ENDLESS)),
)
PLANTED = Part("Planted bugs", "tests.planted", 0.0)
"""Not for every campaign: minutes while the kept seeds hold, else hours, however long that is to last."""
PLANTED_S = 12 * 3600.0


@attrs.frozen
class Simulated:
    """A part of the campaign that is played here."""

    title: str
    transport: Transport
    share: float
    store: Kept = "memory"


SIMULATION = (
    Simulated("frames", "frames", 0.2),
    Simulated("messages", "messages", 0.2),
    Simulated("messages on Redis", "messages", 0.1, "redis"),
)
"""The shares of the simulation."""


@attrs.frozen
class Done:
    """How a part ended."""

    part: Part
    status: int
    seconds: float
    tail: str
    more: tuple[str, ...] = ()
    """What it was told besides its options."""


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        prog="tests/campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True, help="how long it may take, about")
    parser.add_argument("--report", type=Path, help="write the report here; otherwise it is printed")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, for programs")
    parser.add_argument("--seed-from", type=int, default=100_000, help="the first seed; others find other things")
    parser.add_argument("--only-simulation", action="store_true", help="leave out the other parts")
    parser.add_argument(
        "--planted", action="store_true", help="hunt the planted bugs as well, at the end: it takes hours"
    )
    options = parser.parse_args()
    began = time.monotonic()
    until_s = began + options.minutes * 60
    totals = {"found": run([Job(plan=str(path)) for path in sorted(FOUND.glob("*.json"))])}
    done: list[Done] = []
    ahead = sum(part.share for part in SIMULATION) + (
        0.0 if options.only_simulation else sum(part.share for part in PARTS)
    )
    for simulated in SIMULATION:
        now = time.monotonic()
        deadline = now + slice_s(until_s - now, simulated.share, ahead)
        totals[simulated.title] = run(until(deadline, simulated.transport, options.seed_from, simulated.store))
        ahead -= simulated.share
    for part in () if options.only_simulation else PARTS:
        minutes = slice_s(until_s - time.monotonic(), part.share, ahead) / 60
        timed = ("--minutes", f"{minutes:.2f}", "--seed", str(options.seed_from))
        done.append(program(part, timed, 60 * (2 * minutes + 10)))
        ahead -= part.share
    if options.planted:
        done.append(program(PLANTED, (), PLANTED_S))
    result = summary(totals, done, time.monotonic() - began, options.seed_from)
    text = report(result)
    if options.report is not None:
        options.report.write_text(text)
    print(json.dumps(result, indent=1) if options.json else text)
    return 1 if result["failed"] else 0


def slice_s(left_s: float, share: float, ahead: float) -> float:
    """Of the seconds left, those for a part with this share, where all that is `ahead` has so much; a few in any case."""
    return max(LEAST_S, left_s * share / ahead)


def until(deadline: float, transport: Transport, first: int, store: Kept = "memory") -> Iterator[Job]:
    """Seed after seed until it is time."""
    seed = first
    while time.monotonic() < deadline:
        yield Job(seed, transport, store=store)
        seed += 1


def program(part: Part, more: tuple[str, ...], limit_s: float) -> Done:
    """Run a part, told `more` than its own options; it is stopped when it has not ended after `limit_s`."""
    command = [sys.executable, "-m", part.module, *part.options, *more]
    print(f"== {part.title}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False
        )
        status, output = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")  # bytes, although text was asked for
        status, output = -1, f"{output}\nstopped after {limit_s / 60:.0f} min"
    tail = "\n".join(output.strip().splitlines()[-(FAILED_TAIL_LINES if status else TAIL_LINES) :])
    return Done(part, status, time.monotonic() - began, tail, more)


def summary(totals: dict[str, Total], done: list[Done], seconds: float, first: int) -> dict[str, Any]:
    """Everything there is to say, as plain values."""
    simulated = {
        name: {
            **attrs.asdict(total, filter=lambda field, _: field.name not in ("failures", "reached")),
            "reached": dict(sorted(total.reached.items())),
            "failures": [str(failure) for failure in total.failures],
            "blind": blind(name, total.seeds, total.reached) if name in REQUIRED else [],
        }
        for name, total in totals.items()
    }
    programs = [
        {
            "title": one.part.title,
            "command": " ".join(["python -m", one.part.module, *one.part.options, *one.more]),
            "status": one.status,
            "minutes": one.seconds / 60,
            "tail": one.tail,
        }
        for one in done
    ]
    failed = any(one["failures"] or one["blind"] for one in simulated.values()) or any(one.status for one in done)
    return {
        "commit": commit(),
        "python": sys.version.split()[0],
        "minutes": seconds / 60,
        "seed_from": first,
        "simulated": simulated,
        "programs": programs,
        "failed": failed,
    }


def commit() -> str:
    """What was tested."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def said_of(result: dict[str, Any]) -> str:
    """What was tested, and for how long."""
    return (
        f"Commit {result['commit']}, Python {result['python']}, {result['minutes']:.0f} minutes, "
        f"seeds from {result['seed_from']}."
    )


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    simulated: dict[str, dict[str, Any]] = result["simulated"]
    lines = [
        f"# Campaign: {'FAILED' if result['failed'] else 'passed'}",
        "",
        said_of(result),
        "",
        "| simulation | seeds | deploys | kills | rollbacks | events | virtual hours | done twice | failures |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {one['seeds']} | {one['deploys']} | {one['kills']} | {one['rollbacks']} | {one['events']} "
            f"| {one['virtual_s'] / 3600:.1f} | {one['checked']} | {len(one['failures'])} |"
            for name, one in simulated.items()
        ),
        "",
    ]
    for title, key in (("Failures", "failures"), ("Blind", "blind")):
        said = [text for one in simulated.values() for text in one[key]]
        if said:
            lines += [f"## {title}", "", *(f"* {text}" for text in said), ""]
    if result["programs"]:
        lines += ["| part | minutes | |", "|---|---:|---|"]
        lines += [
            f"| {one['title']} | {one['minutes']:.1f} | {'passed' if one['status'] == 0 else 'FAILED'} |"
            for one in result["programs"]
        ]
        for one in result["programs"]:
            lines += ["", f"`{one['command']}` ended with {one['status']}:", "", "```", one["tail"], "```"]
        lines.append("")
    names = sorted({what for one in simulated.values() for what in one["reached"]})
    lines += ["## Rare situations", "", "In how many seeds each occurred.", ""]
    lines += [f"| situation | {' | '.join(REQUIRED)} |", "|---|" + "---:|" * len(REQUIRED)]
    lines += [
        f"| {what} | {' | '.join(str(simulated[name]['reached'].get(what, 0)) for name in REQUIRED)} |"
        for what in names
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
