"""B7: the operator sets the ping interval and the largest message; a page is told both, and both hold. Compression is off."""

from tests.systems.play import Play
from tests.systems.program import Program


class Limits(Play):
    """A page that is silent, and then sends too much."""

    name = "limits"
    shown: Program

    async def start(self) -> None:
        """Start the page and wait for its end: it needs no move."""
        largest = self.service.settings["limits"]["message_bytes_max"]
        self.shown = await self.page("limits.mjs", str(largest))
        await self.shown.end(within_s=30)

    def judge(self) -> None:
        """The page saw what the settings say."""
        told, settings = self.shown.saw("told")[0], self.service.settings
        assert told["limits"]["message_bytes"] == settings["limits"]["message_bytes_max"]
        assert told["heartbeat_ms"] / 1000 == settings["timeouts"]["ping_interval_s"]
        assert self.shown.saw("pings")
        assert self.shown.saw("opened")[0]["extensions"] == ""
        assert [line["code"] for line in self.shown.saw("closed")] == [1009]
