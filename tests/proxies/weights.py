"""Deploys in a row by weights behind HAProxy, as a balancer with two target groups does them, under people at canvases.

    python -m tests.proxies.weights --deploys 20 --rollbacks 2 --clients 100

A deploy starts the other colour, gives it 10, 50 and 100 of 100 new connections, and stops the old colour by SIGTERM. At each weight some
pages are reloaded, for only new connections go by weights. Every other rollback is made at 50 of 100, the others in the middle of an
operator's drain, when half of the people have moved. The people are those of `tests/systems/programs/canvas.mjs`: they know no `goaway`.

Exits 0 when no edit and no line was lost, doubled or reordered, each receipt says as many as the pages counted, each rollback was over
within a minute, and no page was without a connection for five seconds in a deploy.
"""

import argparse
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import trio
from attrs import asdict, define, field, frozen

from signald.config import DrainConfig
from signald.ctl.client import AdminClient
from signald.demo.cluster import Node
from signald.demo.main import raise_descriptor_limit
from tests.proxies.proxy import Colour, Colours, Proxy, open_proxy
from tests.real.harness import Nodes, Settings, exit_of, open_nodes, term, until
from tests.store.redis_servers import Server, servers
from tests.systems import canvases
from tests.systems.canvases import Gaps
from tests.systems.plays.canvas import GAP_S
from tests.systems.program import Cast, Program

WEIGHTS = (10, 50, 100)
ROLLBACK_S = 60.0
"""From the decision until the new colour has ended and each page is back."""
PLACES = 10
"""People at one canvas."""
RELOADED = 0.2
"""Part of the pages that is reloaded at each weight."""
BACK_S = 30.0
EXIT_S = DrainConfig().stop_timeout_s
OPERATOR = "operator"
"""What the lines of the programs are marked with between two drains."""


@frozen
class Options:
    """What is asked for."""

    deploys: int = 20
    rollbacks: int = 2
    clients: int = 100
    pace: float = 50.0
    edit_ms: int = 1000
    """Between two edits of a person; between two lines of the chat is four times that."""


@define
class Row:
    """One drain: what its receipt says, and what the pages saw."""

    deploy: int
    kind: str
    node: str
    sessions: int = 0
    """In the receipt."""
    closed: int = 0
    """Pages that were closed in it, each counted once."""
    codes: str = ""
    median_s: float = 0.0
    longest_s: float = 0.0
    """Without a connection."""
    seconds: float = 0.0
    came: str = ""
    """How many of the reloaded pages came to the new colour at each weight."""
    problems: list[str] = field(factory=list)


class Drill:
    """One run."""

    def __init__(self, options: Options, proxy: Proxy, nodes: Nodes, colours: Colours, cast: Cast) -> None:
        self.options = options
        self.rows: list[Row] = []
        self.rollbacks_s: list[float] = []
        self.programs: list[Program] = []
        self._proxy = proxy
        self._nodes = nodes
        self._colours = colours
        self._cast = cast
        self._live: Colour = "blue"
        self._running: dict[Colour, Node] = {}
        self._started = 0
        self.doing = OPERATOR

    @property
    def _other(self) -> Colour:
        return "green" if self._live == "blue" else "blue"

    async def run(self) -> None:
        """Deploy again and again."""
        options = self.options
        await self._start(self._live)
        await self._proxy.flip_to(self._live)
        await self._populate()
        rolled_back = [(2 * n + 1) * options.deploys // (2 * options.rollbacks) for n in range(options.rollbacks)]
        for number in range(options.deploys):
            came = await self._shift(number in rolled_back and rolled_back.index(number) % 2 == 1)
            if number not in rolled_back:
                await self._hand_over(number + 1, "deploy", self._live, came)
                self._live = self._other
            elif rolled_back.index(number) % 2:
                await self._back_at_fifty(number + 1, came)
            else:
                await self._back_in_mid_drain(number + 1, came)
        await canvases.finish(self.programs, BACK_S)
        await self._end(self._live)

    # --- people -------------------------------------------------------------------------------------------------------

    async def _populate(self) -> None:
        people = [f"c{number // PLACES}/p{number}" for number in range(self.options.clients)]
        pace = {"EDIT_MS": str(self.options.edit_ms), "CHAT_MS": str(4 * self.options.edit_ms), "SLOTS": "20"}
        half = -(-len(people) // 2)
        for some in (people[:half], people[half:]):
            self.programs.append(await self._cast.start("canvas.mjs", self._proxy.url, *some, **pace))
        await until(lambda: self._connected() == len(people), BACK_S, "all people are at their canvases")

    def _connected(self) -> int:
        """How many pages have a connection now, as they have told."""
        last: dict[str, str] = {}
        for program in self.programs:
            for line in program.lines:
                if line["saw"] in ("closed", "restored"):
                    last[line["name"]] = line["saw"]
        return sum(saw == "restored" for saw in last.values())

    async def _all_back(self) -> None:
        await until(lambda: self._connected() == self.options.clients, BACK_S, "each page is back")

    async def _reload(self) -> int:
        """Reload some pages, and return how many are back then."""
        seen = len(canvases.saw(self.programs, "restored"))
        count = max(1, round(self.options.clients * RELOADED / len(self.programs)))
        for program in self.programs:
            await program.tell(f"reload {count}")
        wanted = seen + count * len(self.programs)
        await until(lambda: len(canvases.saw(self.programs, "restored")) >= wanted, BACK_S, "what was reloaded is back")
        return count * len(self.programs)

    # --- nodes --------------------------------------------------------------------------------------------------------

    async def _start(self, colour: Colour) -> None:
        self._started += 1
        name = f"{colour}-{self._started}"
        admin = {"socket": str(self._nodes.directory / f"{name}.sock")}
        self._running[colour] = await self._nodes.start(name, self._colours[colour], admin=admin)

    async def _end(self, colour: Colour) -> Node:
        node = self._running.pop(colour)
        term(node)
        code = await exit_of(node, EXIT_S)
        assert code == 0, f"{node.name} ended with {code}: {node.log_tail()}"
        return node

    async def _ask(self, node: Node, ask: Callable[[AdminClient], Any]) -> Any:
        return await trio.to_thread.run_sync(ask, AdminClient(path=self._nodes.directory / f"{node.name}.sock"))

    # --- a deploy -----------------------------------------------------------------------------------------------------

    async def _shift(self, half: bool) -> list[str]:
        """Start the other colour, and give it more and more of what is new, to 50 of 100 or all; returns what came to it."""
        await self._start(self._other)
        came = []
        for weight in WEIGHTS[: 2 if half else 3]:
            await self._weigh(weight)
            before = await connections(self._running[self._other])
            reloaded = await self._reload()
            after = await connections(self._running[self._other])
            came.append(f"{after - before}/{reloaded} at {weight}")
        return came

    async def _weigh(self, weight: int) -> None:
        """Give the other colour so many of 100 new connections."""
        shares = (100 - weight, weight) if self._live == "blue" else (weight, 100 - weight)
        await self._proxy.weigh(*shares)

    async def _hand_over(self, number: int, kind: str, colour: Colour, came: Sequence[str] = ()) -> None:
        """Stop `colour`, and write the row."""
        row = self._begin(number, kind, self._running[colour], came)
        began = trio.current_time()
        node = await self._end(colour)
        await self._all_back()
        row.seconds = round(trio.current_time() - began, 1)
        (successor,) = self._running.values()
        await self._judge(row, node, successor)

    def _begin(self, number: int, kind: str, node: Node, came: Sequence[str]) -> Row:
        row = Row(number, kind, node.name, came=", ".join(came))
        self.rows.append(row)
        self.doing = f"drain {len(self.rows)}"
        return row

    async def _judge(self, row: Row, node: Node, asked: Node) -> None:
        """Hold the receipt of `node`, which the node `asked` reads, against what the pages have counted."""
        receipt = await self._ask(asked, lambda admin: admin.get(f"receipts/{node.name}"))
        gaps = Gaps.of(self.programs).during(self.doing)
        self.doing = OPERATOR
        row.sessions = receipt["totals"]["sessions"]
        row.closed = len({gap.name for gap in gaps.all})
        row.codes = " ".join(sorted({str(gap.code) for gap in gaps.all}))
        row.median_s, row.longest_s = round(gaps.median_s, 2), round(gaps.longest_s, 2)
        self._compare(row, receipt, gaps)

    def _compare(self, row: Row, receipt: dict[str, Any], gaps: Gaps) -> None:
        totals = receipt["totals"]
        outcomes: dict[str, int] = totals["dialects"].get("canvas", {})
        gone = sum(count for outcome, count in outcomes.items() if outcome != "stayed")
        if gone != row.closed:
            row.problems.append(f"the receipt says {outcomes}, {row.closed} pages were closed")
        if totals["lost"]:
            row.problems.append(f"the receipt says {totals['lost']} were lost")
        if len(gaps.all) != row.closed:
            row.problems.append(f"{len(gaps.all)} closes of {row.closed} pages")
        if row.longest_s >= GAP_S:
            row.problems.append(f"a page was without a connection for {row.longest_s} s")

    # --- rollbacks ----------------------------------------------------------------------------------------------------

    async def _back_at_fifty(self, number: int, came: Sequence[str]) -> None:
        """Give the new colour nothing more, and stop it: it hands back what it had got."""
        began = trio.current_time()
        await self._weigh(0)
        await self._hand_over(number, "rollback at 50", self._other, came)
        self._took(began)

    async def _back_in_mid_drain(self, number: int, came: Sequence[str]) -> None:
        """Call the drain off when half of the people have moved."""
        old = self._running[self._live]
        before = len(canvases.saw(self.programs, "closed"))
        row = self._begin(number, "called off", old, came)
        started = trio.current_time()
        staying = await connections(old)
        await self._ask(old, lambda admin: admin.post("drain", {"reason": "deploy"}))
        half = before + staying // 2
        await until(lambda: len(canvases.saw(self.programs, "closed")) >= half, EXIT_S, "half of the people have moved")
        began = trio.current_time()
        await self._ask(old, lambda admin: admin.post("abort"))
        await self._weigh(0)
        await self._all_back()
        row.seconds = round(trio.current_time() - started, 1)
        await self._judge(row, old, old)
        await self._hand_over(number, "rollback", self._other)
        self._took(began)

    def _took(self, began: float) -> None:
        took = trio.current_time() - began
        self.rollbacks_s.append(round(took, 1))
        if took > ROLLBACK_S:
            self.rows[-1].problems.append(f"the rollback took {took:.0f} s")

    # --- the report ---------------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Return all that was not as it must be."""
        found = [f"deploy {row.deploy}, {row.kind}: {problem}" for row in self.rows for problem in row.problems]
        try:
            canvases.judge(self.programs)
        except AssertionError as error:
            found.append(f"at the canvases: {error}")
        return found

    def show(self) -> None:
        """Print the report for people."""
        columns = ("deploy", "kind", "node", "sessions", "closed", "codes", "median_s", "longest_s", "seconds", "came")
        table = [list(columns), *([str(asdict(row)[key]) for key in columns] for row in self.rows)]
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        for cells in table:
            print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
        finals = canvases.saw(self.programs, "final")
        edits, lines = (sum(final[what] for final in finals) for what in ("edits", "said"))
        planned = Gaps([gap for gap in Gaps.of(self.programs).all if gap.during != OPERATOR])
        print(f"{len(finals)} people, {edits} edits, {lines} lines of chat; {planned}")
        print(f"rollbacks took {', '.join(f'{took} s' for took in self.rollbacks_s)}")
        for problem in self.problems():
            print("PROBLEM", problem)


async def connections(node: Node) -> int:
    """Return how many WebSockets a node has, by its metrics."""
    host, port = node.http
    async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=10) as http:
        text = (await http.get("/metrics")).text
    return sum(int(float(value)) for value in re.findall(r"^signald_connections\{[^}]*\} (\S+)$", text, re.MULTILINE))


async def run(options: Options, directory: Path) -> Drill:
    """Carry the drill out; whether it went well is for `problems` of what is returned."""
    raise_descriptor_limit(8 * options.clients + 512)
    defaults: dict[str, object] = {
        key: value for key, value in asdict(DrainConfig()).items() if isinstance(value, float)
    }
    settings: Settings = {
        "listen": {"trusted_proxies": ["127.0.0.1/32"]},
        "profiles": {"canvas": True},
        "pace": {"sessions_per_s": options.pace},
        # Not the short budgets of the tests.
        "drain": defaults,
        # A page that comes back looks for its last line in what is kept.
        "rooms": {"history_messages_max": 5000},
    }
    colours, redis = Colours(), Server(directory / "redis")
    async with (
        servers(redis),
        open_proxy("haproxy", directory, colours) as proxy,
        open_nodes(directory, redis.url, settings) as nodes,
        trio.open_nursery() as nursery,
    ):
        cast = Cast(directory, nursery, lambda: drill.doing)
        drill = Drill(options, proxy, nodes, colours, cast)
        await drill.run()
        nursery.cancel_scope.cancel(reason="all programs have ended")
    return drill


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Options()
    parser.add_argument("--deploys", type=int, default=usual.deploys)
    parser.add_argument("--rollbacks", type=int, default=usual.rollbacks, help="how many of them are rolled back")
    parser.add_argument("--clients", type=int, default=usual.clients)
    parser.add_argument("--pace", type=float, default=usual.pace, help="pace.sessions_per_s of the nodes")
    parser.add_argument("--edit-ms", type=int, default=usual.edit_ms, help="between two edits of a person")
    given = vars(parser.parse_args(arguments))
    if not 0 <= given["rollbacks"] <= given["deploys"]:
        parser.error("--rollbacks is how many of the --deploys are rolled back")
    # Ended by a SIGTERM, too, nothing that was started is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="signald-weights-"))
    drill = trio.run(run, Options(**given), directory)
    drill.show()
    if drill.problems():
        print(f"the logs and lines are in {directory}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
