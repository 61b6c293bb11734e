"""`python -m tests.systems.many`: what a play shows once, many times at once.

usage: python -m tests.systems.many answers [--readers 50] [--pieces 2000] [--every-ms 100] [--deploys 3] [--kills 0]
       python -m tests.systems.many jobs [--pages 10] [--deploys 5] [--kills 2]

Both take [--store sqlite|redis] [--nodes 1|2].

`answers`: each page reads a long answer, and every second page is reloaded in the middle of each move and after it.
`jobs`: each page has as many unfinished jobs as a session may have, which are 100 by default.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.real.harness import until
from tests.systems.play import Play
from tests.systems.plays.jobs import Jobs
from tests.systems.plays.stream import Stream
from tests.systems.story import Story

SLOWEST = 10
"""How many times the planned time it may all take on a busy machine."""
JOB_MS = 8000
"""How long a job takes, in four pieces. At one request in `REQUEST_MS` a page soon has all that it may have."""
REQUEST_MS = 60
STORY_S = 3600


class Reader(Stream):
    """A page that waits for the end of its answer, however long it takes."""

    within_s = 0.0

    async def during_move(self) -> None:
        """Reload the page, unless the answer is over."""
        if not self.pages[-1].saw("end"):
            await super().during_move()

    async def goes_on(self) -> None:
        """Wait for more of the answer, if there is more."""
        page = self.pages[-1]
        wanted = len(page.saw("piece")) + self.more
        await until(lambda: page.saw("end") or len(page.saw("piece")) >= wanted, self.within_s, page.account())
        await self.during_move()

    async def finish(self) -> None:
        """Wait for the end."""
        await self.pages[-1].has_seen("end", within_s=self.within_s)
        await self.pages[-1].end()


def readers(count: int, pieces: int, every_ms: int) -> list[Play]:
    """Return `count` pages with an answer each."""
    made: list[Play] = []
    for number in range(count):
        reader = Reader(reloads=bool(number % 2), PIECES=str(pieces), EVERY_MS=str(every_ms))
        reader.within_s = SLOWEST * pieces * every_ms / 1000
        reader.name = f"reader {number}"
        made.append(reader)
    return made


def submitters(count: int) -> list[Play]:
    """Return `count` pages that submit jobs."""
    made: list[Play] = []
    for number in range(count):
        jobs = Jobs(within_s=600, EVERY_MS=str(REQUEST_MS), PIECE_MS=str(JOB_MS // 4))
        jobs.name = f"submitter {number}"
        made.append(jobs)
    return made


def moves(deploys: int, kills: int) -> list[str]:
    """Return the moves of a story, the kills spread among the deploys."""
    plan = ["deploy"] * deploys
    for number in range(kills):
        plan.insert((number + 1) * len(plan) // (kills + 1), "kill")
    return plan


def run(plays: Sequence[Play], plan: Sequence[str], store: str, nodes: int) -> int:
    """Tell a story with all of them; return 1 when one broke."""
    directory = Path(tempfile.mkdtemp(prefix="signald-many-"))
    story = Story(plays, plan)
    trio.run(story.tell, store, nodes, directory, STORY_S)
    broken = 0
    for play in plays:
        try:
            story.judge(play.name)
        except Exception as error:
            broken += 1
            print(f"{play.name}: {type(error).__name__}: {error}")
    print(f"{len(plays)} programs, {' '.join(plan)}: {broken} broken; lines and logs are in {directory}")
    return 1 if broken else 0


def main() -> int:
    """Return 1 when one of the programs did not see what it must."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.systems.many", description="what a play shows once, many times"
    )
    parser.add_argument("what", choices=["answers", "jobs"])
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--nodes", type=int, choices=[1, 2], default=1)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--pieces", type=int, default=2000)
    parser.add_argument("--every-ms", type=int, default=100)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--deploys", type=int, default=None)
    parser.add_argument("--kills", type=int, default=None)
    options = parser.parse_args()
    if options.what == "answers":
        plays, usual = readers(options.readers, options.pieces, options.every_ms), (3, 0)
    else:
        plays, usual = submitters(options.pages), (5, 2)
    deploys = usual[0] if options.deploys is None else options.deploys
    kills = usual[1] if options.kills is None else options.kills
    return run(plays, moves(deploys, kills), options.store, options.nodes)


if __name__ == "__main__":
    sys.exit(main())
