"""Plant every bug, one at a time, and tell which the simulation noticed: `python -m tests.planted [--only NAME]`.

All are hunted with a few seeds first, which is enough for most, and those that are left with the rest.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import attrs

from tests.planted.bugs import BUGS, Bug
from tests.planted.plant import Hunt, hunt
from tests.planted.search import FIRST_SEEDS

SHARE_MIN = 0.95


def main() -> int:
    """Run; the status is 1 if too many were overlooked."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; may be said several times")
    parser.add_argument(
        "--seeds", type=int, default=1000, help="how many seeds may pass before a bug counts as overlooked"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many are hunted at the same time")
    parser.add_argument("--table", metavar="FILE", type=Path, help="write what came of each as a table, for the docs")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if not options.only or bug.name in options.only]
    if options.only and len(bugs) < len(set(options.only)):
        parser.error(f"no such bug: {sorted(set(options.only) - {bug.name for bug in bugs})}")
    hunts = hunt_all(bugs, options.seeds, options.jobs, quiet=options.json)
    if options.table:
        options.table.write_text(table(hunts))
    caught = sum(one.caught for one in hunts)
    if options.json:
        print(json.dumps([_fields(one) for one in hunts], indent=1))
    else:
        missed = [one.bug.name for one in hunts if not one.caught]
        print(f"{caught} of {len(hunts)} caught ({caught / len(hunts):.0%}), within {options.seeds} seeds each")
        if missed:
            print(f"not caught: {', '.join(missed)}")
    return 0 if caught >= SHARE_MIN * len(hunts) else 1


def hunt_all(bugs: list[Bug], seeds: int, jobs: int, *, quiet: bool) -> list[Hunt]:
    """Hunt each; print a line as soon as one is through. The results come in the order of `bugs`."""
    hunts: dict[str, Hunt] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for first, last in ((1, min(seeds, FIRST_SEEDS)), (FIRST_SEEDS + 1, seeds)):
            left = [bug for bug in bugs if bug.name not in hunts or not hunts[bug.name].caught]
            if first > last:
                break
            for done in as_completed([pool.submit(hunt, bug, last, first=first) for bug in left]):
                one = done.result()
                before = hunts[one.bug.name].seconds if one.bug.name in hunts else 0.0
                one = hunts[one.bug.name] = attrs.evolve(one, seconds=before + one.seconds)
                if not quiet and (one.caught or last == seeds):
                    print(line(one), flush=True)
    return [hunts[bug.name] for bug in bugs]


def table(hunts: list[Hunt]) -> str:
    """All of them in Markdown: the slip, who noticed it, at which seed, and how long that took."""
    rows = [
        f"| `{one.bug.name}` | {one.checker or '-'} | {one.seed if one.caught else '-'} | {one.transport} | {one.seconds:.0f} |"
        for one in hunts
    ]
    return "\n".join(["| slip | noticed by | seed | transport | seconds |", "|---|---|---:|---|---:|", *rows, ""])


def line(one: Hunt) -> str:
    """One bug in one line of the table."""
    if not one.caught:
        return f"{one.bug.name:40} NOT CAUGHT by {one.seed} seeds in {one.seconds:.0f} s; should break {one.bug.breaks}"
    text = " ".join(one.text.split())
    return (
        f"{one.bug.name:40} seed {one.seed:4} {one.transport:8} after {one.seconds:5.1f} s  {one.checker:14} "
        f"{text if len(text) < 120 else text[:117] + '...'}"
    )


def _fields(one: Hunt) -> dict[str, object]:
    return {
        "bug": one.bug.name,
        "file": one.bug.file,
        "breaks": one.bug.breaks,
        "caught": one.caught,
        "seed": one.seed,
        "seconds": round(one.seconds, 1),
        "transport": one.transport,
        "checker": one.checker,
        "text": one.text,
    }


if __name__ == "__main__":
    sys.exit(main())
