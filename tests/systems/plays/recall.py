"""B6: an operator recalls a user, in the middle of a deploy; nothing of before opens anything, and a later credential does."""

import trio

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import credential

SECOND_S = 1.1
"""A JWT tells when it was issued in whole seconds, so one of the same second counts as older than the recall."""


class Recall(Play):
    """One page that is shut out and comes back."""

    name = "recall"
    shown: Program

    async def start(self) -> None:
        """Start the page."""
        self.shown = await self.page("recall.mjs")

    async def during_move(self) -> None:
        """Recall the user in the first move, and issue a new credential."""
        if self.shown.saw("refused"):
            return
        await self.shown.has_seen("opened", within_s=30)
        await self.service.recall(self.name)
        await self.shown.has_seen("refused", 2, within_s=30)
        await trio.sleep(SECOND_S)
        await self.shown.tell(credential("client", self.name))

    async def finish(self) -> None:
        """Wait for the page to be back."""
        await self.shown.end(within_s=30)

    def judge(self) -> None:
        """The page was shut out twice, and is back in its session."""
        assert [line["code"] for line in self.shown.saw("refused")] == [4401, 4401], self.shown.account()
        assert self.shown.saw("back")[0]["session"] == self.shown.saw("opened")[0]["session"], self.shown.account()
