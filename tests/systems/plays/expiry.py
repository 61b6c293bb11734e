"""B6: a JWT that runs out ends its page, unless the page shows the next one in time."""

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import credential

LIFE_S = 8
"""Enough for a page to open on a busy machine, and less than a story takes."""


class Expiry(Play):
    """Two pages with short credentials, of which one renews its own."""

    name = "expiry"
    renewing: Program
    idle: Program

    async def start(self) -> None:
        """Start both."""
        self.renewing = await self._page("renew")
        self.idle = await self._page()

    async def _page(self, *arguments: str) -> Program:
        return await self.cast.start(
            "expiry.mjs",
            self.service.url,
            *arguments,
            credential=credential("client", self.name, LIFE_S),
            NEXT_CREDENTIAL=credential("client", self.name),
        )

    async def finish(self) -> None:
        """Wait for the end of both."""
        await self.renewing.end(within_s=30)
        await self.idle.end(within_s=30)

    def judge(self) -> None:
        """The page that renewed has stayed, in its session; the other one was closed for want of a valid credential."""
        assert self.renewing.saw("stays")[0]["open"], self.renewing.account()
        assert len({line["session"] for line in self.renewing.saw("opened")}) == 1
        assert [line["code"] for line in self.idle.saw("gone")] == [4401], self.idle.account()
        assert all(0 < line["grace_ms"] <= 2000 for line in self.idle.saw("expiring") + self.renewing.saw("expiring"))
