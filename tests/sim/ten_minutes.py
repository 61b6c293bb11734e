"""Ten simulated minutes of deploys beside a core server that is in one mood after the other.

    python -m tests.sim.ten_minutes [--minutes 10] [--seed N] [--policy without closed open] [--transport frames] [--trace]

A deploy each 12 s, and between two of them a SIGKILL each minute, by which a session has no connection until it has resumed. Clients
that stay, and clients that come for some seconds and go, so that the core server is asked for new parties all the time. Moods follow each
other with a moment of health between. All checkers of the simulation judge the run, `event-told` among them, and so does `round-trip`: no
message waits for its answer for longer than 1 s of simulated time, in which neither a machine nor a network is slow, so what is left is
what signald itself makes a session wait. It prints the longest round trips without a core server, and with one under both policies. The
status is 1 when a promise was broken.
"""

import argparse
import random
import sys
import time
from typing import Literal, get_args

import attrs

from signald.testing.seeded import Chance
from tests.sim.core_server import MOODS, Core, Spell, core_section
from tests.sim.net import Delay
from tests.sim.plan import ClientPlan, Plan, Step, WorkerPlan
from tests.sim.scene import Outcome, Scene, Transport, play_scene

Policy = Literal["without", "closed", "open"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

ROUND_TRIP_S = 1.0
"""Below all time-outs of a core server: a session that waits for one is found."""

DEPLOY_EVERY_S = 12.0
KILL_EVERY_S = 60.0
KILL_AT_S, RESTART_S = 8.5, 0.05
"""The first kill stands between two deploys. Its supervisor has another node at once: how long one takes to start is not the question."""
SPELL_S = (3.0, 9.0)
HEALTH_S = (0.2, 3.0)
"""Short: most deploys meet a core server that is not well."""

DELAY_S = 0.02
"""Bound of what each piece of bytes takes on its way: a deploy in no time at all would hold nothing up."""

STAY = 6
"""Clients that stay for the whole run."""
GUEST_EVERY_S = 6.0
GUEST_MESSAGES = 20
WORKERS = 2


@attrs.frozen
class Summary:
    """What came of a run."""

    policy: Policy
    outcome: Outcome
    longest_s: float
    round_trips: int
    told: int
    """Events, each counted once."""


def plan_of(seed: int, minutes: float, policy: Policy) -> Plan:
    """Return the plan of a run."""
    r = Chance(seed).random("ten minutes")
    lasts_s = minutes * 60
    core = None if policy == "without" else Core(_spells(r, lasts_s), rotates=True, policy=policy)
    sections: dict[str, dict[str, object]] = {
        "session": {"resume_ttl_s": 120.0},
        # All parties move with each deploy, and the pace is not what is looked at.
        "pace": {"sessions_per_s": 50.0},
    }
    if core is not None:
        sections["core"] = core_section(core)
    deploys = [Step(round(at, 3), "deploy_and_wait") for at in _times(r, 3.0, DEPLOY_EVERY_S, lasts_s - 8)]
    kills = [Step(round(at, 3), "kill", 0, RESTART_S) for at in _times(r, KILL_AT_S, KILL_EVERY_S, lasts_s - 8)]
    guests = [
        ClientPlan(f"guest{n}", round(at, 3), GUEST_MESSAGES, 0.5, receipts=False, says_bye=True)
        for n, at in enumerate(_times(r, 1.0, GUEST_EVERY_S, lasts_s - 2))
    ]
    staying = [
        ClientPlan(f"c{n}", 0.0, round(lasts_s * 4), 0.4, receipts=bool(n % 2), says_bye=False) for n in range(STAY)
    ]
    return Plan(
        seed=seed,
        planned_only=False,
        nodes=1,
        sections=sections,
        lag_s=0.0,
        clients=(*staying, *guests),
        workers=tuple(WorkerPlan(f"w{n}", 0.0, 100, 0.0, 0.2) for n in range(WORKERS)),
        net=(Delay(DELAY_S),),
        store=(),
        steps=tuple(sorted([*deploys, *kills], key=lambda step: step.at)),
        lasts_s=lasts_s,
        core=core,
        round_trip_s=ROUND_TRIP_S,
    )


def _times(r: random.Random, first_s: float, every_s: float, last_s: float) -> list[float]:
    """Return times in about the same distances."""
    times, at = [], first_s
    while at < last_s:
        times.append(at)
        at += every_s * r.uniform(0.9, 1.1)
    return times


def _spells(r: random.Random, lasts_s: float) -> tuple[Spell, ...]:
    """Return spells of all moods in turns; the first comes when the workers are there."""
    spells: list[Spell] = []
    at = 2.0
    while True:
        for mood in r.sample(MOODS, len(MOODS)):
            seconds = r.uniform(*SPELL_S)
            if at + seconds > lasts_s:
                return tuple(spells)
            spells.append(Spell(round(at, 3), round(seconds, 3), mood))
            at += seconds + r.uniform(*HEALTH_S)


def run(seed: int, minutes: float, policy: Policy, transport: Transport = "messages", *, keep: bool = False) -> Summary:
    """Play one run."""
    scene = Scene(plan_of(seed, minutes, policy), keep=keep, transport=transport)
    outcome = play_scene(scene)
    trips = scene.check.round_trips
    return Summary(policy, outcome, trips.longest_s, trips.count, scene.check.event_told.count)


def show(summary: Summary) -> None:
    """Print what came of a run."""
    outcome = summary.outcome
    print(
        f"{summary.policy}: longest round trip {summary.longest_s * 1000:.1f} ms of {summary.round_trips}, "
        f"{outcome.deploys} deploys in {outcome.virtual_s / 60:.1f} simulated minutes, {summary.told} events told"
    )
    for what, times in sorted(outcome.rare.items()):
        if what.startswith(("core server", "told", "event", "client let in")):
            print(f"  {times:6d} {what}")
    for checker, text in outcome.violations[:1]:
        print(f"  BROKEN {checker}: {text}")
    sys.stdout.flush()


def main() -> int:
    """Run; the status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.ten_minutes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, nargs="+", default=list(POLICIES))
    parser.add_argument("--transport", choices=get_args(Transport), default="messages")
    parser.add_argument("--trace", action="store_true", help="print every event")
    options = parser.parse_args()
    broken = 0
    for policy in options.policy:
        began = time.monotonic()
        summary = run(options.seed, options.minutes, policy, options.transport, keep=options.trace)
        if options.trace:
            print("\n".join(summary.outcome.lines))
        show(summary)
        print(f"  in {time.monotonic() - began:.0f} s")
        broken += bool(summary.outcome.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
