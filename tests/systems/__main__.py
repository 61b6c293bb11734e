"""`python -m tests.systems`: tell one story, and say what broke.

usage: python -m tests.systems [--store sqlite|redis] [--nodes 1|2|3] [--only PLAY …] [--moves MOVE …] [--directory DIR]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from tests.systems.play import MOVES
from tests.systems.story import EVERY, PLAYS, Story


def main() -> int:
    """Return 1 when a play broke."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.systems", description="programs that know the contract alone"
    )
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument(
        "--nodes", type=int, choices=[1, 2, 3], default=1, help="2: clients and workers on different nodes"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[play.name for play in EVERY],
        help="these plays; by default all that share a story",
    )
    parser.add_argument(
        "--moves",
        nargs="+",
        choices=MOVES,
        default=MOVES,
        help="of the operator, one after the other; by default each once",
    )
    parser.add_argument("--directory", type=Path, help="where the logs of nodes and programs go; a new one by default")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="signald-systems-"))
    directory.mkdir(exist_ok=True)
    chosen = [play for play in EVERY if play.name in options.only] if options.only else PLAYS
    story = Story([play() for play in chosen], options.moves)
    try:
        trio.run(story.tell, options.store, options.nodes, directory)
    finally:
        print(story.account())
    broken = 0
    for play in story.plays:
        try:
            story.judge(play.name)
        except Exception as error:
            broken = 1
            print(f"{play.name}: {type(error).__name__}: {error}")
        else:
            print(f"{play.name}: ok")
    for play in story.plays:
        if figures := play.figures():
            print(f"{play.name}: {figures}")
    print(f"the logs and lines are in {directory}")
    return broken


if __name__ == "__main__":
    sys.exit(main())
