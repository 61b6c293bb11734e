"""B2, as far as messages go: texts and bytes are pushed to a page in order, and what it missed comes when it is back."""

from tests.systems.play import Play
from tests.systems.program import Program

MORE = 20
"""Pushes after each move that show that they go on."""


class Push(Play):
    """One page over all moves."""

    name = "push"
    page: Program

    async def start(self) -> None:
        """Start the page."""
        self.page = await self.cast.start("push.mjs", self.service.url)

    async def goes_on(self) -> None:
        """Wait for more pushes."""
        await self.page.has_seen("pushed", len(self.page.saw("pushed")) + MORE, within_s=30)

    async def finish(self) -> None:
        """Have the worker stop."""
        await self.page.tell()
        await self.page.end()

    def judge(self) -> None:
        """Every push came once, in order, texts and bytes in turn, each as it was sent."""
        pushed = self.page.saw("pushed")
        session = self.page.saw("opened")[0]["session"]
        last = next(line["last"] for line in self.worker.saw("pushed") if line["session"] == session)
        assert [line["n"] for line in pushed] == list(range(1, last + 1)), self.page.account()
        assert all(line["intact"] and line["kind"] == "push" for line in pushed)
        assert {line["binary"] == (line["n"] % 2 == 0) for line in pushed[:-1]} == {True}
        assert not self.page.saw("hole") + self.page.saw("gone") + self.page.saw("error"), self.page.account()
