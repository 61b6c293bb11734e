"""B2, as far as messages go: texts and bytes are pushed to a page in order, and what it missed comes when it is back."""

from tests.systems.play import Play
from tests.systems.program import Program

MORE = 20
"""Pushes after each move that show that they go on."""


class Push(Play):
    """One page over all moves."""

    name = "push"
    shown: Program

    async def start(self) -> None:
        """Start the page."""
        self.shown = await self.page("push.mjs")

    async def goes_on(self) -> None:
        """Wait for more pushes."""
        await self.shown.has_seen("pushed", len(self.shown.saw("pushed")) + MORE, within_s=30)

    async def finish(self) -> None:
        """Have the worker stop."""
        await self.shown.tell()
        await self.shown.end()

    def judge(self) -> None:
        """Every push came once, in order, texts and bytes in turn, each as it was sent."""
        pushed = self.shown.saw("pushed")
        session = self.shown.saw("opened")[0]["session"]
        last = next(line["last"] for line in self.worker.saw("pushed") if line["session"] == session)
        assert [line["n"] for line in pushed] == list(range(1, last + 1)), self.shown.account()
        assert all(line["intact"] and line["kind"] == "push" for line in pushed)
        assert {line["binary"] == (line["n"] % 2 == 0) for line in pushed[:-1]} == {True}
        assert not self.shown.saw("hole") + self.shown.saw("gone") + self.shown.saw("error"), self.shown.account()
