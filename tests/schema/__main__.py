"""`python -m tests.schema --examples N [--callers client service] [--seed S]`: schemathesis on a real node, as each kind of caller."""

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from tests.schema.campaign import cases, faults, operations, run, unreached
from tests.schema.served import CALLERS, Caller, serving


async def campaign(callers: list[Caller], examples: int, seed: int) -> bool:
    """Run the campaign; tell whether nothing was found."""
    found = False
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as served:
            for caller in callers:
                before = await served.answered()
                outcome = await run(served, caller, examples, seed, Path(folder))
                print(
                    f"as {caller}: {cases(outcome):,} requests, {'FAILED' if outcome.failed else 'nothing found'}",
                    flush=True,
                )
                answered = await served.answered()
                for one in await operations(served):
                    print(f"    {answered[one] - before[one]:6,} {' '.join(one)}")
                print(outcome.said if outcome.failed else "", end="", flush=True)
                found = found or outcome.failed
            for operation in await unreached(served):
                print("no request was taken by:", operation)
                found = found or len(callers) == len(CALLERS)
            for line in faults(served):
                print("log:", line)
                found = True
    return not found


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
