"""One story on one store: every program at work while the operator deploys, rolls back and loses the only node.

All programs share it, because nodes are what takes time: each is judged by itself. What fails in one is kept for its judge.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from tests.real.harness import Settings
from tests.systems.crew import Crew
from tests.systems.play import MOVES, Play, every_play
from tests.systems.program import Cast
from tests.systems.service import Service, open_service

EVERY: Final = every_play()
PLAYS: Final = tuple(play for play in EVERY if not play.alone)
"""The plays of one story, side by side."""

STORY_S = 240.0
"""A bound for a hang; a story takes some twenty seconds on two quiet cores."""

SETTINGS: Final[Settings] = {
    # Pages ask for the whole chat of a story, which has more lines than a node keeps by default.
    "session": {"history_messages_max": 5000, "history_bytes_max": 1048576},
    # Others than those of the defaults: a page must see what the operator has set.
    "timeouts": {"ping_interval_s": 1.0},
    "limits": {"message_bytes_max": 32768},
    # So little that what a few uploads leave behind leaves no room for another one.
    "blobs": {"bytes_max": 2 * 1024 * 1024, "principal_bytes_max": 8 * 1024 * 1024},
}


class Story:
    """What came of each play."""

    def __init__(
        self,
        plays: Sequence[Play],
        moves: Sequence[str] = MOVES,
        *,
        workers: int = 1,
        settings: Settings | None = None,
    ) -> None:
        """`workers` serve the pages of all plays; `settings` are sections of each node's configuration beside `SETTINGS`."""
        self.plays = plays
        self.moves = moves
        self._workers = workers
        self._settings = {**SETTINGS, **(settings or {})}
        for play in plays:
            self._settings |= play.settings
        self.failures: dict[str, Exception] = {}
        self.took: list[tuple[str, dict[str, float]]] = []
        """Each step so far, and how many seconds it took each play; a move has the name `operator` for its play."""

    def judge(self, name: str) -> None:
        """Raise what broke in the play `name`, if anything did."""
        if name in self.failures:
            raise self.failures[name]
        next(play for play in self.plays if play.name == name).judge()

    async def tell(self, store: str, nodes: int, directory: Path, within_s: float = STORY_S) -> None:
        """Play all of it, on one node or two; a play that breaks is left out of the rest."""
        with trio.fail_after(within_s):
            async with open_service(store, nodes, directory, self._settings) as service, trio.open_nursery() as nursery:
                await self._tell(service, Cast(directory, nursery, lambda: service.doing))
                nursery.cancel_scope.cancel(reason="the story is over")

    async def _tell(self, service: Service, cast: Cast) -> None:
        crew = Crew(service, cast)
        for play in self.plays:
            play.service, play.cast, play.worker = service, cast, crew
        await self._all("before", lambda play: play.before())
        await crew.start(self._workers)
        await self._all("start", lambda play: play.start())
        moves = {
            "deploy": service.deploying,
            "rollback": service.rolling_back,
            "kill": service.killing,
            "kill-workers-node": service.killing_workers_node,
            "kill-worker": crew.losing,
            "empty": service.emptying,
            "flush": service.flushing,
        }
        for move in self.moves:
            await self._all(f"goes on before {move}", lambda play: play.goes_on())
            began = trio.current_time()
            async with moves[move]():
                await self._all(f"in the middle of {move}", lambda play: play.during_move())
            self.took.append((move, {"operator": trio.current_time() - began}))
        await self._all("goes on", lambda play: play.goes_on())
        await self._all("finish", lambda play: play.finish())

    async def _all(self, name: str, step: Callable[[Play], Awaitable[None]]) -> None:
        """Take a step of every play that has not failed, side by side."""
        took: dict[str, float] = {}
        self.took.append((name, took))
        async with trio.open_nursery() as nursery:
            for play in self.plays:
                if play.name not in self.failures:
                    nursery.start_soon(self._one, play, step, took)

    async def _one(self, play: Play, step: Callable[[Play], Awaitable[None]], took: dict[str, float]) -> None:
        began = trio.current_time()
        try:
            await step(play)
        except Exception as error:
            self.failures[play.name] = error
        took[play.name] = trio.current_time() - began

    def account(self) -> str:
        """Which steps took how long, and the plays for which each waited the longest."""
        lines = []
        for step, took in self.took:
            longest = sorted(took.items(), key=lambda one: -one[1])[:3]
            lines.append(f"{step}: {', '.join(f'{play} {seconds:.1f} s' for play, seconds in longest)}")
        return "\n".join(lines)
