"""B8: a monitoring system reads connections, bytes, latency and resumes from a node."""

from tests.systems.play import Play
from tests.systems.program import Program


class Metrics(Play):
    """One scrape at the end, of the node to which all programs have come back."""

    name = "metrics"
    scrape: Program

    async def start(self) -> None:
        """Wait for the others to be at work."""

    async def finish(self) -> None:
        """Scrape."""
        self.scrape = await self.cast.start("metrics.py", self.service.operators_url)
        await self.scrape.end()

    def judge(self) -> None:
        """The node has told of its connections, was resumed at, and has carried messages."""
        # By now some programs have ended: how many connections are open is a matter of the moment.
        assert self._value("signald_connections", role="client", dialect="signald.v1") >= 0
        assert self._value("signald_connections_opened_total", role="client", dialect="signald.v1") > 0
        assert self._value("signald_bytes_received_total") > 0
        assert self._value("signald_bytes_sent_total") > 0
        # A message that crosses nodes is counted as a hop, and timed by the store's round trips alone.
        assert self._value("signald_message_seconds_count") + self._value("signald_hops_total") > 0
        assert self._value("signald_store_batch_seconds_count") > 0
        assert self._value("signald_resume_total", outcome="resumed") > 0
        assert self._value("signald_reconnect_gap_seconds_count") > 0

    def _value(self, name: str, **labels: str) -> float:
        samples = self.scrape.saw("samples")[0]["samples"]
        found = [one["value"] for one in samples if one["name"] == name and labels.items() <= one["labels"].items()]
        assert found, f"there is no {name} {labels}"
        return float(sum(found))
