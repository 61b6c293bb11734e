"""A3 to A5 and A7: a page that stays open over all moves keeps its worker, is led by `goaway`, and connects anew once.

No `realtime` comes twice; in a move, one that went over the old connection may arrive behind those of the new one.

B8: each text carries a trace of the page to the worker, and the answer brings it back.
"""

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import UNPLANNED

MORE = 5
"""Signals and answers after each move that show that they go on."""


class Signals(Play):
    """One page over all moves."""

    name = "signals"
    shown: Program

    def __init__(self) -> None:
        super().__init__()
        self.dials: list[int] = []
        """How often the page had connected, before the first move and after each."""
        self.goaways: list[int] = []

    async def start(self) -> None:
        """Start the page."""
        self.shown = await self.page("signals.mjs")

    async def goes_on(self) -> None:
        """Wait for more signals and answers."""
        for kind in ("signal", "answered"):
            await self.shown.has_seen(kind, len(self.shown.saw(kind)) + MORE, within_s=30)
        self.dials.append(len(self.shown.saw("dialing")))
        self.goaways.append(len(self.shown.saw("goaway")))

    async def finish(self) -> None:
        """End the session."""
        await self.shown.tell()
        await self.shown.end()

    def judge(self) -> None:
        """The moves were led, each cost one connection, and neither the worker nor a text changed."""
        page = self.shown
        start, deployed, rolled_back, killed = self.dials
        assert (start, deployed) == (1, 2), page.account()
        assert self.goaways[:2] == [0, 1]
        # In a rollback the page may have arrived at the bad node, or may be sent away from it while it opens.
        assert 1 <= self.goaways[2] - self.goaways[1] <= rolled_back - deployed <= 3, page.account()
        assert killed > rolled_back
        # A line may be read when the move that it tells of is over.
        planned = [line for line in page.saw("closed") if line["during"] not in UNPLANNED]
        assert {line["code"] for line in planned if line["during"] != "rollback"} <= {4001}, page.account()
        assert 4001 in {line["code"] for line in planned} <= {4001, 1013}, page.account()
        workers = {line["id"] for line in page.saw("peer")} | {line["peer"]["id"] for line in page.saw("opened")}
        assert len(workers - {None}) == 1, page.account()
        assert {line["state"] for line in page.saw("peer")} <= {"paired", "away"}
        signals = [line["n"] for line in page.saw("signal")]
        assert len(signals) == len(set(signals)), page.account()
        answers = page.saw("answered")
        assert [line["to"] for line in answers] == list(range(1, len(answers) + 1))
        assert all(line["traced"] for line in answers)
        assert not page.saw("hole") + page.saw("gone") + page.saw("error"), page.account()
