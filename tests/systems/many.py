"""`python -m tests.systems.many`: what a play shows once, many times at once.

usage: python -m tests.systems.many answers [--readers 50] [--pieces 2000] [--every-ms 100] [--deploys 3] [--kills 0]
       python -m tests.systems.many jobs [--pages 10] [--in-flight 130] [--job-s 60] [--deploys 5] [--kills 2] [--lost-workers 0]
       python -m tests.systems.many rooms [--people 50] [--edits-per-s 20] [--deploys 3] [--kills 1]
       python -m tests.systems.many apps [--apps 200] [--mute 10] [--busy 10] [--on-drain terminate|reconnect]
       python -m tests.systems.many canvas [--people 12] [--deploys 3] [--kills 1]

All take [--store sqlite|redis] [--nodes 1|2|3].

`answers`: each page reads a long answer, and every second page is reloaded in the middle of each move and after it.
`apps`: a fleet of DeepStream apps, of which some never answer `terminate_app` and some ask for more time, and one deploy.
`canvas`: pages at one canvas that know no `goaway`, and a deploy that is taken back in mid-drain.
`rooms`: people at one canvas, spread over the nodes, with latecomers at each move.
`jobs`: each page has so many unfinished jobs before each move. A kill loses the clients' node, then the workers' node, in turn.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import trio

from signald.sdk.trio import Backoff
from tests.real.harness import Settings, until
from tests.systems.play import Play
from tests.systems.plays.canvas import GAP_S, Canvas
from tests.systems.plays.fleet import Fleet
from tests.systems.plays.jobs import Jobs
from tests.systems.plays.rooms import Rooms
from tests.systems.plays.stream import Stream
from tests.systems.program import Line
from tests.systems.story import Story

SLOWEST = 10
"""How many times the planned time it may all take on a busy machine."""
REQUEST_MS = 60
"""Between two requests of a page: with those that it repeats, no more than a node allows."""
STORY_S = 3600
LOSS_S = 2.0
"""For how long a node keeps the sessions of a worker that is lost. A worker that moves needs a small part of it."""


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
        await until(lambda: page.over or len(page.saw("piece")) >= wanted, self.within_s, page.account())
        await self.during_move()

    async def finish(self) -> None:
        """Wait for the end."""
        await self.pages[-1].has_seen("end", within_s=self.within_s)
        await self.pages[-1].end()


class Submitter(Jobs):
    """A page that has many unfinished jobs at each move, and whose worker may be lost."""

    def __init__(self, at_once: int, job_s: float) -> None:
        """`at_once` jobs are unfinished before each move; each takes a worker `job_s` seconds, in four pieces."""
        self._patience_s = SLOWEST * max(job_s, 5.0)
        super().__init__(self._patience_s, EVERY_MS=str(REQUEST_MS), PIECE_MS=str(int(job_s * 250)))
        self._at_once = at_once
        self.in_flight: list[int] = []
        """How many jobs were unfinished in the middle of each move, as far as the page had been told."""

    def _unfinished(self) -> int:
        return len(self.shown.saw("accepted")) - len(self.shown.saw("over"))

    async def goes_on(self) -> None:
        """Wait until enough is unfinished, and something more has come."""
        seen = len(self.shown.saw("piece"))
        await until(
            lambda: self.shown.over or (self._unfinished() >= self._at_once and len(self.shown.saw("piece")) > seen),
            self._patience_s,
            f"{self._at_once} jobs are unfinished: {self.shown.account()}",
        )

    async def during_move(self) -> None:
        """Count."""
        self.in_flight.append(self._unfinished())

    def _judge_pushed(self, fetched: Line, wanted: list[str]) -> None:
        """Pieces of a lost attempt are a beginning of the result; the last attempt is all of it, and nothing older comes behind it."""
        pushed = [line for line in self.shown.saw("piece") if line["job"] == fetched["job"]]
        attempts = [(attempt, list(lines)) for attempt, lines in groupby(pushed, lambda line: line["attempt"])]
        numbers = [attempt for attempt, _ in attempts]
        assert numbers == sorted(set(numbers)), pushed
        for attempt, lines in attempts:
            last = attempt == fetched["attempt"]
            assert [line["data"] for line in lines] == (wanted if last else wanted[: len(lines)]), pushed
            assert [line["end"] for line in lines] == [last and n == len(lines) for n in range(1, len(lines) + 1)], (
                pushed
            )
        assert numbers[-1] == fetched["attempt"], fetched

    def _judge_work(self, ids: list[str]) -> None:
        """Each attempt of a job was given to one worker, once."""
        given = Counter((line["job"], line["attempt"]) for line in self.worker.saw("job") if line["job"] in ids)
        assert set(given.values()) == {1}, [job for job, times in given.items() if times > 1]
        assert given.keys() >= {(line["job"], line["attempt"]) for line in self.shown.saw("fetched")}


def readers(count: int, pieces: int, every_ms: int) -> list[Play]:
    """Return `count` pages with an answer each."""
    made: list[Play] = []
    for number in range(count):
        reader = Reader(reloads=bool(number % 2), PIECES=str(pieces), EVERY_MS=str(every_ms))
        reader.within_s = SLOWEST * pieces * every_ms / 1000
        reader.name = f"reader {number}"
        made.append(reader)
    return made


def submitters(count: int, at_once: int, job_s: float) -> list[Play]:
    """Return `count` pages that submit jobs."""
    made: list[Play] = []
    for number in range(count):
        submitter = Submitter(at_once, job_s)
        submitter.name = f"submitter {number}"
        made.append(submitter)
    return made


def settings(at_once: int) -> Settings:
    """Return what nodes are told for `submitters` beside the rest."""
    # A page is never told to wait before it has as many as it needs, and a job survives as many losses as a story may have.
    return {
        "jobs": {"in_flight_max": at_once + max(at_once // 2, 5), "failures_max": 10},
        "worker": {"resume_timeout_s": LOSS_S, "failures_max": 100},
    }


def moves(deploys: int, kills: int, lost_workers: int = 0) -> list[str]:
    """Return the moves of a story, the losses spread among the deploys."""
    plan = ["deploy"] * deploys
    losses = [("kill", "kill-workers-node")[number % 2] for number in range(kills)] + ["kill-worker"] * lost_workers
    for number, loss in enumerate(losses):
        plan.insert((number + 1) * len(plan) // (len(losses) + 1), loss)
    return plan


def figures(plays: Sequence[Play]) -> str:
    """Return what the pages saw, counted."""
    if isinstance(plays[0], Rooms | Canvas | Fleet):
        return plays[0].figures()
    if isinstance(plays[0], Reader):
        pages = [page for play in plays if isinstance(play, Reader) for page in play.pages]
        ends = sum(len(page.saw("end")) for page in pages)
        pieces = sum(len(page.saw("piece")) for page in pages)
        return f"{ends} of {len(plays)} answers read to their end by {len(pages)} pages, {pieces} pieces pushed"
    asked = [play for play in plays if isinstance(play, Submitter)]
    accepted = sum(len(play.shown.saw("accepted")) for play in asked)
    ends = sum(len(play.shown.saw("over")) for play in asked)
    states = Counter((line["state"], line["attempt"]) for play in asked for line in play.shown.saw("fetched"))
    at_moves = [sum(counts) for counts in zip(*(play.in_flight for play in asked), strict=False)]
    by_attempt = ", ".join(
        f"{count} {state} in attempt {attempt}" for (state, attempt), count in sorted(states.items())
    )
    return f"{accepted} jobs accepted, {ends} ends pushed; {by_attempt}; unfinished at each move: {at_moves}"


def run(
    plays: Sequence[Play],
    story: Story,
    store: str,
    nodes: int,
    count: Callable[[Sequence[Play]], str] = figures,
) -> int:
    """Tell a story with all of them; return 1 when one broke. `count` says what they saw."""
    directory = Path(tempfile.mkdtemp(prefix="signald-many-"))
    began = time.monotonic()
    trio.run(story.tell, store, nodes, directory, STORY_S)
    print(story.account())
    took = time.monotonic() - began
    broken = 0
    for play in plays:
        try:
            story.judge(play.name)
        except Exception as error:
            broken += 1
            print(f"{play.name}: {type(error).__name__}: {error}")
    print(story.account() if broken else count(plays))
    print(f"{len(plays)} programs on {store}, {took:.0f} s: {broken} broken; lines and logs are in {directory}")
    return 1 if broken else 0


def main() -> int:
    """Return 1 when one of the programs did not see what it must."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.systems.many", description="what a play shows once, many times"
    )
    parser.add_argument("what", choices=["answers", "jobs", "rooms", "apps", "canvas"])
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--nodes", type=int, choices=[1, 2, 3], default=1)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--pieces", type=int, default=2000)
    parser.add_argument("--every-ms", type=int, default=100)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--in-flight", type=int, default=130, help="unfinished jobs of each page before each move")
    parser.add_argument("--job-s", type=float, default=60, help="seconds that a worker takes for a job")
    parser.add_argument("--people", type=int, help="12 for canvas, else 50")
    parser.add_argument("--edits-per-s", type=float, default=20, help="of all together")
    parser.add_argument("--apps", type=int, default=200)
    parser.add_argument("--mute", type=int, default=10, help="apps that never answer terminate_app")
    parser.add_argument("--busy", type=int, default=10, help="apps that ask for more time than others have")
    parser.add_argument("--on-drain", choices=["terminate", "reconnect"], default="terminate")
    parser.add_argument("--deploys", type=int, help="5 for jobs, 1 for apps, else 3")
    parser.add_argument("--kills", type=int, help="of nodes: none for answers and apps, 2 for jobs, 1 for rooms")
    parser.add_argument("--lost-workers", type=int, default=0, help="worker processes that are killed")
    options = parser.parse_args()
    usual = {"answers": (3, 0), "jobs": (5, 2), "rooms": (3, 1), "apps": (1, 0), "canvas": (3, 1)}
    usual_deploys, usual_kills = usual[options.what]
    deploys = options.deploys if options.deploys is not None else usual_deploys
    kills = options.kills if options.kills is not None else usual_kills
    plan = moves(deploys, kills, options.lost_workers)
    plan[len(plan) // 2 : 0] = ["rollback"] if options.what == "canvas" else []
    print(" ".join(plan), flush=True)
    if options.what == "canvas":
        canvas = [Canvas(options.people or 12, GAP_S)]
        return run(canvas, Story(canvas, plan, workers=0), options.store, options.nodes)
    if options.what == "rooms":
        rooms = [Rooms(options.people or 50, options.edits_per_s, kept=1000, backoff=Backoff())]
        return run(rooms, Story(rooms, plan), options.store, options.nodes)
    if options.what == "apps":
        fleet = [Fleet(options.apps, options.mute, options.busy, options.on_drain)]
        return run(fleet, Story(fleet, plan, workers=0), options.store, options.nodes)
    if options.what == "answers":
        plays = readers(options.readers, options.pieces, options.every_ms)
        return run(plays, Story(plays, plan), options.store, options.nodes)
    plays = submitters(options.pages, options.in_flight, options.job_s)
    story = Story(plays, plan, workers=2, settings=settings(options.in_flight))
    return run(plays, story, options.store, options.nodes)


if __name__ == "__main__":
    sys.exit(main())
