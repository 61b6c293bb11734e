"""`python -m tests.fuzz --minutes N [--target T] [--seed S]`: fuzz for a while, then say what was tried and what failed.

A failure is written to a file and its way to be tried again is printed: `python -m tests.fuzz --target T --input FILE`.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS, run


def campaign(names: list[str], seconds: float, seed: int, folder: Path) -> int:
    """Fuzz `names` for `seconds` in all; return how many inputs failed."""
    share = sum(TARGETS[name].share for name in names)
    failed = 0
    for name in names:
        outcomes: Counter[str] = Counter()
        failures: list[str] = []
        _judge(name, seed, list(corpus.kept(name).values()), outcomes, failures, folder)
        until = time.monotonic() + seconds * TARGETS[name].share / share
        runs = 0
        while time.monotonic() < until:
            rng = random.Random(f"{name} {seed} {runs}")
            inputs = [TARGETS[name].make(rng) for _ in range(TARGETS[name].inputs)]
            _judge(name, seed * 1_000_000 + runs, inputs, outcomes, failures, folder, until)
            runs += 1
        failed += len(failures)
        print(
            f"{name:12} {sum(outcomes.values()):8,} inputs, {len(failures)} failed: {dict(outcomes.most_common())}",
            flush=True,
        )
        print("".join(failures), end="")
    return failed


def _judge(
    name: str,
    seed: int,
    inputs: list[bytes],
    outcomes: Counter[str],
    failures: list[str],
    folder: Path,
    until: float = float("inf"),
) -> None:
    while inputs:
        try:
            outcomes.update(run(name, seed, inputs, until))
        except Exception as error:
            index = getattr(error, "fuzz_index", len(inputs))
            outcomes["FAILED"] += 1
            # What was found after the last input may be any of them: all are kept, one behind the other.
            guilty = inputs[index : index + 1] or inputs
            paths = [str(corpus.save(folder, name, data)) for data in guilty]
            why = traceback.format_exception_only(error)
            failures.append(f"  {name} seed {seed}: {''.join(why).strip()}\n    {' '.join(paths[:3])}\n")
            inputs = inputs[index + 1 :]
        else:
            return


def main() -> int:
    """Parse the arguments and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, in all")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same inputs")
    parser.add_argument("--input", type=Path, action="append", help="try these files instead of drawing inputs")
    parser.add_argument("--failures", type=Path, help="folder for inputs that failed")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    if options.input:
        for path in options.input:
            print(path, *run(names[0], options.seed, [path.read_bytes()]))
        return 0
    folder = options.failures or Path(tempfile.mkdtemp(prefix="signald-fuzz-"))
    failed = campaign(names, options.minutes * 60, options.seed, folder)
    print(f"{failed} failed" + (f"; their inputs are in {folder}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
