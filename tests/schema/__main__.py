"""`python -m tests.schema --examples N [--callers client service] [--seed S]`: schemathesis on a real node, as each kind of caller."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.schema.campaign import PASSES, cases, faults, operations, run
from tests.schema.served import CALLERS, Caller, Served, serving


async def campaign(callers: list[Caller], examples: int, seed: int) -> bool:
    """Run the campaign; tell whether nothing was found. Each caller has a node of its own, because it ends the sessions there."""
    found = False
    taken: Counter[tuple[str, str]] = Counter()
    told: set[tuple[str, str]] = set()
    for caller in callers:
        with tempfile.TemporaryDirectory() as folder:
            async with serving(Path(folder)) as served:
                told.update(await operations(served))
                set_up = await served.answered("2xx")
                for what, filters in PASSES:
                    found = await one_pass(served, caller, what, filters, examples, seed, Path(folder)) or found
                taken += await served.answered("2xx") - set_up
                for line in faults(served):
                    print("log:", line)
                    found = True
    for one in sorted(told - set(taken)):
        print("no request was taken by:", *one)
        found = found or len(callers) == len(CALLERS)
    return not found


async def one_pass(
    served: Served, caller: Caller, what: str, filters: Sequence[str], examples: int, seed: int, folder: Path
) -> bool:
    """Test as `caller`, and print how many requests each operation has had; tell whether something was found."""
    before, taken = await served.answered(), await served.answered("2xx")
    outcome = await run(served, caller, examples, seed, folder, filters=filters)
    print(f"as {caller}, {what}: {cases(outcome):,} requests, {'FAILED' if outcome.failed else 'nothing found'}")
    before, taken = await served.answered() - before, await served.answered("2xx") - taken
    for one in await operations(served):
        print(f"    {before[one]:6,} {taken[one]:6,} taken  {' '.join(one)}")
    print(outcome.said if outcome.failed else "", end="", flush=True)
    return outcome.failed


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.schema", description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="requests for each operation and caller, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", nargs="+", choices=CALLERS, default=list(CALLERS))
    asked = parser.parse_args()
    return 0 if trio.run(campaign, asked.callers, asked.examples, asked.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
