"""`python -m tests.systems.editors`: two editors of one Yjs document, one of them in a browser, through many deploys.

usage: python -m tests.systems.editors [--store sqlite|redis] [--nodes 1|2] [--emptied 0] [--deploys 10] [--kills 1]

With `--emptied` the store loses all that it has before the first deploy. What was written before must not come back by any later move.
"""

import argparse
import sys

from tests.systems.many import moves, run
from tests.systems.plays.editors import Editors
from tests.systems.story import Story

LOSSES = ("flush", "empty")
"""In turn: the store goes on without what it had, or is away for a while and comes back with nothing."""


def edited(emptied: int, deploys: int, kills: int) -> tuple[Editors, Story]:
    """Return the play and its story."""
    losses = [LOSSES[number % 2] for number in range(emptied)]
    play = Editors(emptied)
    return play, Story([play], [*losses, *moves(deploys, kills)], workers=0)


def figures(play: Editors) -> str:
    """Return what the editors saw, counted."""
    last = play.editors[-1].saw("shown")[-1]
    counts = {what: sum(len(one.saw(what)) for one in play.editors) for what in ("wrote", "erased", "opened", "reset")}
    counted = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{counted}; at the end {len(last['text'].splitlines())} lines in {last['position']} updates"


def main() -> int:
    """Return 1 when the documents are not what they must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.systems.editors", description="two editors, many deploys")
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--nodes", type=int, choices=[1, 2], default=1)
    parser.add_argument("--emptied", type=int, default=0, help="how often the store loses all that it has")
    parser.add_argument("--deploys", type=int, default=10)
    parser.add_argument("--kills", type=int, default=1, help="of nodes")
    options = parser.parse_args()
    play, story = edited(options.emptied, options.deploys, options.kills)
    print(" ".join(story.moves), flush=True)
    return run([play], story, options.store, options.nodes, lambda _: figures(play))


if __name__ == "__main__":
    sys.exit(main())
