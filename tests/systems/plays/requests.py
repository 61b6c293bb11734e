"""B1, in part: the HTTP half of the port answers over planned moves as if nothing happened, and no request is cut."""

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import UNPLANNED

MORE = 5
"""Answers after each move that show that they go on."""


class Requests(Play):
    """One program that asks for something that is not there."""

    name = "requests"
    shown: Program

    async def start(self) -> None:
        """Start the program."""
        self.shown = await self.page("requests.mjs")

    async def goes_on(self) -> None:
        """Wait for more answers."""
        await self.shown.has_seen("answered", len(self.shown.saw("answered")) + MORE, within_s=30)

    async def finish(self) -> None:
        """End it."""
        await self.shown.tell()
        await self.shown.end()

    def judge(self) -> None:
        """Every answer was the same; only the SIGKILL cut or refused any."""
        assert {(line["status"], line["document"]) for line in self.shown.saw("answered")} == {(404, True)}
        assert {line["during"] for line in self.shown.saw("broken")} <= set(UNPLANNED), self.shown.account()
