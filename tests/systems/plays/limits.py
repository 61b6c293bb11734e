"""B7: the operator sets the ping interval and the largest message; a page is told both, and both hold. Compression is off."""

from tests.systems.play import Play
from tests.systems.program import Program


class Limits(Play):
    """A page that is silent, and then sends too much."""

    name = "limits"
    page: Program

    async def start(self) -> None:
        """Start the page and wait for its end: it needs no move."""
        largest = self.service.settings["limits"]["message_bytes_max"]
        self.page = await self.cast.start("limits.mjs", self.service.url, str(largest))
        await self.page.end(within_s=30)

    def judge(self) -> None:
        """The page saw what the settings say."""
        told, settings = self.page.saw("told")[0], self.service.settings
        assert told["limits"]["message_bytes"] == settings["limits"]["message_bytes_max"]
        assert told["heartbeat_ms"] / 1000 == settings["timeouts"]["ping_interval_s"]
        assert self.page.saw("pings")
        assert self.page.saw("opened")[0]["extensions"] == ""
        assert [line["code"] for line in self.page.saw("closed")] == [1009]
