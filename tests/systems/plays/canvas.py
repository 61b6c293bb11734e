"""C1, C2, C3, C5: people at one canvas, with the page of the guide, which knows nothing of a drain.

Half of them enter at each node, where there are several. One comes late in each move.
"""

from tests.real.harness import until
from tests.systems import canvases
from tests.systems.canvases import Gaps
from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import UNPLANNED, credential

RIGHTS = {"canvas:*": ["join", "publish", "state"]}
NAME = "board-42"
MORE = 2
"""Own lines of a person that show that it goes on."""
WITHIN_S = 30.0
GAP_S = 5.0
"""Row C5: so long at most has a person no connection for one deploy."""


class Canvas(Play):
    """One canvas."""

    name = "canvas"

    def __init__(self, people: int = 6, gap_max_s: float | None = None, **variables: str) -> None:
        """`gap_max_s` judges the time without a connection in planned moves; None only tells it."""
        super().__init__()
        self.settings = {"profiles": {"canvas": True}}
        self.programs: list[Program] = []
        self._people = people
        self._gap_max_s = gap_max_s
        self._variables = variables

    @property
    def _confirmed(self) -> dict[str, int]:
        """How many own lines have come back, by person."""
        counted: dict[str, int] = {}
        for line in canvases.saw(self.programs, "restored"):
            counted.setdefault(line["name"], 0)
        for line in canvases.saw(self.programs, "confirmed"):
            counted[line["name"]] += 1
        return counted

    async def _enter(self, url: str, *names: str) -> None:
        shown = credential("client", self.name, rooms=RIGHTS)
        people = [f"{NAME}/{name}" for name in names]
        program = await self.cast.start("canvas.mjs", url, *people, credential=shown, **self._variables)
        self.programs.append(program)

    async def start(self) -> None:
        """Have all but the latecomers come in, at each node as many."""
        urls = self.service.urls
        names = [f"p{number}" for number in range(self._people)]
        for number, url in enumerate(urls):
            await self._enter(url, *names[number :: len(urls)])
        await self._until_more(0)

    async def during_move(self) -> None:
        """Let one come late; it finds the canvas of the others."""
        await self._enter(self.service.url, f"late{len(self.programs)}")

    async def goes_on(self) -> None:
        """Wait until more of each person has come back."""
        await self._until_more(MORE)

    async def _until_more(self, more: int) -> None:
        persons = sum(map(canvases.people_of, self.programs))
        await self._until(lambda: len(self._confirmed) == persons)
        before = self._confirmed
        await self._until(lambda: all(count >= before[name] + more for name, count in self._confirmed.items()))

    async def _until(self, holds: object) -> None:
        await until(holds, WITHIN_S, "the canvas goes on")

    async def finish(self) -> None:
        """Let all rest, and show what they have once all is stored."""
        await canvases.finish(self.programs, WITHIN_S)

    def judge(self) -> None:
        """Nothing is lost, and no person was without a connection for long."""
        canvases.judge(self.programs)
        if self._gap_max_s is not None:
            longest = Gaps.of(self.programs).during("deploy", "rollback").longest_s
            assert longest < self._gap_max_s, self.figures()

    def figures(self) -> str:
        """Return how long persons had no connection, by move."""
        gaps = Gaps.of(self.programs)
        finals = canvases.saw(self.programs, "final")
        edits, lines = (sum(final[what] for final in finals) for what in ("edits", "said"))
        moves = {"deploy": ("deploy",), "rollback": ("rollback",), "kill": UNPLANNED}
        told = "; ".join(f"{move}: {gaps.during(*doings)}" for move, doings in moves.items())
        return f"{len(finals)} people, {edits} edits, {lines} lines of chat; {told}"
