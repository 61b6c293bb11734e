"""The workers of a story: programs that serve the pages of all plays, and may be lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.systems.program import Cast, Line, Program
from tests.systems.service import Service, credential


class Crew:
    """Workers of one kind, side by side."""

    def __init__(self, service: Service, cast: Cast) -> None:
        self.members: list[Program] = []
        """All that were started, also those that were lost."""
        self._service = service
        self._cast = cast

    async def start(self, count: int) -> None:
        """Start so many workers; return when they are at work."""
        for _ in range(count):
            await self._hire()

    async def _hire(self) -> None:
        name = f"worker {len(self.members) + 1}"
        worker = await self._cast.start(
            "ai_worker.py", self._service.workers_url, name, "100", credential=credential("worker", "ai")
        )
        self.members.append(worker)
        await worker.has_seen("opened", within_s=30)

    def saw(self, what: str) -> list[Line]:
        """Return the lines of one kind of all workers, in the order in which the workers were started."""
        return [line for member in self.members for line in member.saw(what)]

    def account(self) -> str:
        """The last that each of them said, for a failure's message."""
        return "\n".join(member.account() for member in self.members)

    @asynccontextmanager
    async def losing(self) -> AsyncIterator[None]:
        """Lose the worker that has served longest to SIGKILL. The block runs while it is gone; then another one is started."""
        await next(member for member in self.members if not member.killed).kill()
        yield
        await self._hire()
