"""B1 and B2: server-sent events show a job piece by piece, and go on behind the last one that was seen, at any node."""

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import UNPLANNED

MORE = 10
"""Events after each move that show that they go on."""


class Events(Play):
    """One job over all moves."""

    name = "events"
    shown: Program

    async def start(self) -> None:
        """Start the page."""
        self.shown = await self.page("events.mjs")

    async def goes_on(self) -> None:
        """Wait for more events."""
        await self.shown.has_seen("event", len(self.shown.saw("event")) + MORE, within_s=30)

    async def finish(self) -> None:
        """Have the worker end the job."""
        await self.shown.tell()
        await self.shown.end()

    def judge(self) -> None:
        """Each piece was an event, once and in order; the last event has the job; a planned stop cut no event in two."""
        page = self.shown
        events = page.saw("event")
        texts = [f"{n} " for n in range(1, len(events))]
        assert [line["data"] for line in events] == [*texts, ""], page.account()
        assert [line["end"] for line in events] == [False] * len(texts) + [True]
        assert [line["id"] for line in events] == [str(line["seq"]) for line in events]
        over = page.saw("over")
        assert [(line["state"], line["result"]) for line in over] == [("succeeded", "".join(texts))]
        assert over[0]["id"] not in {line["id"] for line in events}
        assert page.saw("after")[0]["status"] == 204
        assert {line["type"].partition(";")[0] for line in page.saw("stream")} == {"text/event-stream"}
        # A request on a kept connection may meet the end of that connection, and is made again: it was not answered in part.
        cut = [line for line in page.saw("broken") if "method" not in line] + page.saw("torn")
        assert {line["during"] for line in cut} <= set(UNPLANNED), page.account()
