"""Run many seeds and tell what came of them, or look at one.

python -m tests.sim --seeds 1-500 [--transport messages] [--store redis] [--jobs 2]
python -m tests.sim --only 17 [--trace]          one seed
python -m tests.sim --shrink 17 [--save FILE]    a smaller plan that breaks the same promise
python -m tests.sim --plan FILE [--trace]        a plan from a file
"""

import argparse
import sys
import time
from pathlib import Path

import attrs

from tests.sim.plan import Plan, draw
from tests.sim.runner import Failure, Job, run
from tests.sim.saved import Saved, load, save
from tests.sim.scene import Kept, Transport
from tests.sim.shrink import shrink
from tests.sim.small import draw_small


def main() -> int:
    """Run; the status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--transport", choices=("frames", "messages"), default="frames", help="bytes, or whole messages"
    )
    parser.add_argument(
        "--store",
        choices=("memory", "redis"),
        default="memory",
        help="the rules in Python, or the scripts on a redis-server, whose digests must be the same",
    )
    parser.add_argument("--seeds", default="1-100", help="a range, for instance 1-500")
    parser.add_argument("--only", type=int, metavar="SEED", help="one seed")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="a saved plan")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="make the plan of this seed smaller")
    parser.add_argument("--save", type=Path, metavar="FILE", help="with --shrink or --only: write the plan as JSON")
    parser.add_argument("--trace", action="store_true", help="with --only or --plan: print every event")
    parser.add_argument("--jobs", type=int, default=0, help="how many processes, 2 at the least; otherwise one a core")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    options = parser.parse_args()
    if options.shrink is not None:
        plan = shrink(plan_of(options.shrink, options.transport), options.transport)
        return one(Saved(plan, options.transport, ""), options.save, trace=True)
    if options.plan is not None:
        return one(load(options.plan), options.save, trace=options.trace, store=options.store)
    if options.only is not None:
        plan = plan_of(options.only, options.transport)
        return one(Saved(plan, options.transport, ""), options.save, trace=options.trace, store=options.store)
    low, _, high = options.seeds.partition("-")
    seeds = range(int(low), int(high or low) + 1)
    return many([Job(seed, options.transport, store=options.store) for seed in seeds], options.jobs, stop=options.stop)


def plan_of(seed: int, transport: Transport) -> Plan:
    """What `seed` means on this transport."""
    return draw(seed) if transport == "frames" else draw_small(seed)


def one(saved: Saved, path: Path | None, *, trace: bool, store: Kept = "memory") -> int:
    """Play one plan and tell everything."""
    outcome = saved.play(keep=trace, store=store)
    print(saved.plan.story())
    if trace:
        print("\n".join(outcome.lines))
    print(f"digest {outcome.digest}, {outcome.events} events, {outcome.virtual_s:.1f} s of virtual time")
    for checker, text in outcome.violations[:1]:
        print(f"BROKEN {checker}: {text}")
        saved = attrs.evolve(saved, shows=f"{checker}: {text.splitlines()[-1]}")
    if path is not None:
        save(saved, path)
    return 1 if outcome.violations else 0


def many(work: list[Job], jobs: int, *, stop: bool) -> int:
    """Play so many seeds in so many processes."""
    began = time.perf_counter()
    total = run(work, processes=jobs, tell=tell, stop=stop)
    took_s = time.perf_counter() - began
    print(
        f"{total.seeds} seeds, {total.checked} of them twice, {total.deploys} deploys, {total.events} events, "
        f"{total.virtual_s / 3600:.1f} h of virtual time in {took_s:.0f} s"
    )
    print(
        f"{total.seeds / took_s:.1f} seeds/s, {total.deploys / took_s:.1f} deploys/s, "
        f"{len(total.failures)} failed: {[failure.job.seed for failure in total.failures]}"
    )
    for what, times in total.reached.most_common():
        print(f"  {times:6d} seeds reached: {what}")
    return 1 if total.failures else 0


def tell(failure: Failure) -> None:
    """Say at once what has failed."""
    print(failure, flush=True)


if __name__ == "__main__":
    sys.exit(main())
