"""Kill at every step: all of the simulation's, or with `--real` some of real processes'.

python -m tests.crash [--every N] [--jobs N]                                            all; or every n-th await only
python -m tests.crash --minutes N [--seed S] [--jobs N]                                 as many, in a random order, as go into that
python -m tests.crash --scenario S --victim V --kind store|frame|await --step K --trace  one of them again, event by event
python -m tests.crash --real                                                            SIGKILL in real deploys
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

import trio

from tests.crash import real
from tests.crash.campaign import Point, Verdict, points, run_point, story
from tests.crash.scripts import SCENARIOS
from tests.crash.steps import KINDS


def main() -> int:
    """Run; the status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", choices=SCENARIOS, help="only this one")
    parser.add_argument("--victim", help="only this one: old, new, both, w0, w1, c0, c1, h0")
    parser.add_argument("--kind", choices=KINDS, help="only steps of this kind")
    parser.add_argument("--step", type=int, help="one step of the kind")
    parser.add_argument("--trace", action="store_true", help="with --step: print every event")
    parser.add_argument("--every", type=int, default=1, help="only every n-th await")
    parser.add_argument("--minutes", type=float, help="stop after that time; the steps come in a random order then")
    parser.add_argument("--seed", type=int, default=0, help="of that order")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--real", action="store_true", help="real processes, on Redis and on SQLite")
    options = parser.parse_args()
    if options.real:
        return _real()
    began = time.perf_counter()
    if options.step is not None:
        point = Point(options.scenario, options.victim, options.kind or "await", options.step)
        print(story(point, around=None if options.trace else 60))
        return 1 if run_point(point).violations else 0
    every = dict.fromkeys(KINDS, 1) | {"await": options.every}
    wanted = [
        point
        for name, script in SCENARIOS.items()
        for victim in script.victims
        if options.scenario in (None, name) and options.victim in (None, victim)
        for point in points(name, victim, every)
        if options.kind in (None, point.kind)
    ]
    until = float("inf")
    if options.minutes is not None:
        random.Random(options.seed).shuffle(wanted)
        until = began + options.minutes * 60
    ran: Counter[tuple[str, str, str]] = Counter()
    failed: Counter[tuple[str, str, str]] = Counter()
    with Pool(options.jobs) as pool:
        for verdict in pool.imap_unordered(run_point, wanted, chunksize=8):
            row = verdict.point.scenario, verdict.point.victim, verdict.point.kind
            ran[row] += 1
            if verdict.violations:
                failed[row] += 1
                _tell(verdict)
            if time.perf_counter() > until:
                break
    print(f"\n{'scenario':<14} {'victim':<6} {'kind':<6} {'steps':>6} {'failed':>6}")
    for (scenario, victim, kind), count in ran.items():
        broken = failed[scenario, victim, kind]
        print(f"{scenario:<14} {victim:<6} {kind:<6} {count:>6} {broken:>6}")
    print(f"{ran.total()} of {len(wanted)} crashes, {failed.total()} failed, {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


def _tell(verdict: Verdict) -> None:
    point = verdict.point
    checker, text = verdict.violations[0]
    print(f"FAILED {point}: {checker}: {text}", flush=True)


OPERATIONS = (1, 2, 4, 7, 12, 20)
"""With three victims and three moments each 54 deaths on Redis."""
AT_RANDOM = 20


def _real() -> int:
    for store, deaths in (("redis", real.on_redis(OPERATIONS)), ("sqlite", real.at_random(AT_RANDOM, seed=1))):
        directory = Path(tempfile.mkdtemp(prefix=f"crash-{store}-"))
        print(f"{store}: the logs are in {directory}")
        died = trio.run(real.play, store, deaths, directory, _tell_death)
        print(f"{store}: {len(deaths)} deploys, {died} deaths came in time, nothing lost, nothing twice", flush=True)
        shutil.rmtree(directory)
    return 0


def _tell_death(death: real.Death, in_time: bool) -> None:
    print(f"  {death} {'' if in_time else 'came too late'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
