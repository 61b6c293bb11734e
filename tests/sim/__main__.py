"""Run many seeds and tell what came of them: `python -m tests.sim --seeds 1-500 [--only SEED --trace]`."""

import argparse
import sys
import time
from collections import Counter

from tests.sim.plan import draw
from tests.sim.scene import play


def main() -> int:
    """Run; the status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="1-100", help="a range, for instance 1-500")
    parser.add_argument("--only", type=int, help="one seed")
    parser.add_argument("--trace", action="store_true", help="with --only: print every event")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    options = parser.parse_args()
    low, _, high = options.seeds.partition("-")
    seeds = [options.only] if options.only is not None else range(int(low), int(high or low) + 1)
    began = time.perf_counter()
    failed: dict[int, tuple[tuple[str, str], ...]] = {}
    rare: Counter[str] = Counter()
    events, virtual_s, count = 0, 0.0, 0
    for seed in seeds:
        outcome = play(seed, keep=options.trace)
        count += 1
        events += outcome.events
        virtual_s += outcome.virtual_s
        rare.update(outcome.rare.keys())
        if options.trace:
            print(draw(seed).story())
            print("\n".join(outcome.lines))
            print(f"digest {outcome.digest}")
        if outcome.violations:
            failed[seed] = outcome.violations
            checker, text = outcome.violations[0]
            print(f"seed {seed}: {checker}: {text}", flush=True)
            if options.stop:
                break
    took_s = time.perf_counter() - began
    print(f"{count} seeds, {events} events, {virtual_s / 3600:.1f} h of virtual time in {took_s:.0f} s")
    print(f"{count / took_s:.1f} seeds/s, {len(failed)} failed: {sorted(failed)}")
    for what, times in rare.most_common():
        print(f"  {times:6d} seeds reached: {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
