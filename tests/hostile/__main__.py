"""`python -m tests.hostile --minutes N [--seed S] [--part P]`: liars, scene after scene; the status is 1 when one of them did harm.

A failure says its part and its seed: `python -m tests.hostile --part P --seed S --scenes 1` plays it again.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

from tests.hostile import node, through

PARTS: dict[str, Callable[[int], None]] = {
    "client": partial(through.play, who="client"),
    "worker": partial(through.play, who="worker"),
    "node": node.play,
}


def hunt(names: list[str], seed: int, until_s: float, scenes: int) -> int:
    """Play scenes in turn until it is time; return how many failed."""
    played = dict.fromkeys(names, 0)
    failed = 0
    while time.monotonic() < until_s and sum(played.values()) < scenes:
        for name in names:
            number = seed + played[name]
            played[name] += 1
            try:
                PARTS[name](number)
            except Exception as error:
                failed += 1
                print(f"FAILED: --part {name} --seed {number} --scenes 1")
                print("".join(traceback.format_exception(error)[-12:]))
    print(", ".join(f"{count:,} scenes of a hostile {name}" for name, count in played.items()) + f", {failed} failed")
    return failed


def main() -> int:
    """Parse the arguments and hunt."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, in all")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this one (may be repeated)")
    parser.add_argument("--scenes", type=int, default=sys.maxsize, help="no more than so many")
    options = parser.parse_args()
    until_s = time.monotonic() + options.minutes * 60
    return 1 if hunt(options.part or list(PARTS), options.seed, until_s, options.scenes) else 0


if __name__ == "__main__":
    sys.exit(main())
