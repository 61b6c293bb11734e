"""Deploys in a row behind a real proxy, some rolled back midway; each receipt is held against a count at the applications.

    python -m tests.proxies.campaign --proxy haproxy --deploys 10 --rollbacks 2 --sessions 500 --store redis

The parties are the demo's: they dial the proxy and nothing else, and number every message at the applications. A deploy starts the
other colour, flips the proxy with the shipped script, and stops the old colour by SIGTERM. One that is rolled back
begins with an operator's drain, which is called off when half of the clients have moved; the proxy is flipped back, and
the new node is stopped instead. The receipts are read from the nodes' admin API after the node they tell of has gone.

Exits 0 when nothing was lost, doubled or reordered, no party came more often than the deploy asked for, every receipt says what the
applications saw, and the pace was the configured one.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field, frozen

from signald.config import DrainConfig, LogConfig
from signald.ctl.client import AdminClient
from signald.demo.cluster import Node
from signald.demo.judge import Deploy, Judge, spread
from signald.demo.main import collect_now_or_never, raise_descriptor_limit
from signald.demo.options import DemoOptions
from signald.demo.parties import Parties
from signald.logs import logging_to
from tests.proxies.proxy import KINDS, Colour, Colours, Kind, Proxy, open_proxy
from tests.real.harness import Nodes, Settings, exit_of, open_nodes, term, until
from tests.store.redis_servers import Server, servers

PACE_ABOVE, PACE_BELOW = 0.1, 0.2
"""How far the pace may be from the configured one. The nodes ask for 0.85 of it, see `config.moves`."""
SETTLE_S = 30.0
EXIT_S = DrainConfig().stop_timeout_s


@frozen
class Options:
    """What is asked for."""

    proxy: Kind
    deploys: int = 10
    rollbacks: int = 2
    sessions: int = 500
    workers: int = 50
    rate: float = 0.5
    pace: float = 100.0
    store: str = "redis"


@define
class Row:
    """One drain that ran to its end: what its receipt says, and what the applications saw."""

    deploy: int
    kind: str
    node: str
    sessions: int = 0
    """In the receipt."""
    moved: int = 0
    """By the receipt."""
    resumed: int = 0
    """Clients that resumed, at the applications."""
    lost: int = 0
    """By the receipt: sessions."""
    unanswered: int = 0
    """Questions from before the end that have no answer, at the applications."""
    duplicated: int = 0
    reordered: int = 0
    reconnects_max: int = 0
    early: int = 0
    """Clients told to go before their worker had moved: by the receipt, and at the connections together."""
    move_ms_p99: float = 0.0
    unserved_ms_p99: float = 0.0
    """By the receipt: from the claim to the first frame of the successor."""
    gap_ms_p99: float = 0.0
    """The longest round trip of each session, at the applications."""
    pace_per_s: float = 0.0
    """Sessions moved per second on average, at the connections of their clients."""
    peak_per_s: int = 0
    """In the busiest second, with either kind of party, at the connections, and ..."""
    receipt_peak_per_s: int = 0
    """... by the receipt."""
    seconds: float = 0.0
    problems: list[str] = field(factory=list)


class Campaign:
    """One run."""

    def __init__(self, options: Options, proxy: Proxy, nodes: Nodes, colours: Colours) -> None:
        self.options = options
        self.proxy = proxy
        self.nodes = nodes
        self.colours = colours
        self.judge = Judge()
        self.rows: list[Row] = []
        self.live: Colour = "blue"
        self.running: dict[Colour, Node] = {}
        self._started = 0
        self._before = (0, 0)

    @property
    def other(self) -> Colour:
        """The colour that is not in service."""
        return "green" if self.live == "blue" else "blue"

    async def run(self) -> None:
        """Deploy again and again under load."""
        options = self.options
        rolled_back = {(2 * n + 1) * options.deploys // (2 * options.rollbacks) for n in range(options.rollbacks)}
        await self._start(self.live)
        demo = DemoOptions(sessions=options.sessions, workers=options.workers, rate=options.rate)
        parties = Parties(demo, self.judge, self.proxy.url, self.proxy.url, group="campaign")
        async with trio.open_nursery() as nursery:
            await parties.start(nursery)
            await trio.sleep(2)
            for number in range(options.deploys):
                collect_now_or_never()
                if number in rolled_back:
                    await self._roll_back(number + 1)
                else:
                    await self._deploy(number + 1)
            parties.hush()
            await until(lambda: not self.judge.waiting, SETTLE_S, "every question has its answer")
            await parties.leave()
            nursery.cancel_scope.cancel(reason="every party has left")
        await self._end(self.live)

    # --- nodes --------------------------------------------------------------------------------------------------------

    async def _start(self, colour: Colour) -> Node:
        self._started += 1
        name = f"{colour}-{self._started}"
        self.running[colour] = node = await self.nodes.start(
            name, self.colours[colour], admin={"socket": str(self.nodes.directory / f"{name}.sock")}
        )
        return node

    async def _end(self, colour: Colour) -> Node:
        node = self.running.pop(colour)
        term(node)
        code = await exit_of(node, EXIT_S)
        assert code == 0, f"{node.name} ended with {code}: {node.log_tail()}"
        return node

    def _admin(self, node: Node) -> AdminClient:
        return AdminClient(path=self.nodes.directory / f"{node.name}.sock")

    # --- a deploy -----------------------------------------------------------------------------------------------------

    async def _deploy(self, number: int) -> None:
        await self._start(self.other)
        await self.proxy.flip_to(self.other)
        await self._hand_over(number, "deploy", self.live, self.options.sessions)

    async def _roll_back(self, number: int) -> None:
        old, new = self.running[self.live], await self._start(self.other)
        await self.proxy.flip_to(self.other)
        half = self.options.sessions // 2
        leg = self.judge.begin_deploy(kill=False, workers_move=True, now=trio.current_time())
        ask = partial(self._admin(old).post, "drain", {"reason": "deploy"})
        await trio.to_thread.run_sync(ask)
        await until(lambda: self._clients_in(leg) >= half, EXIT_S, "half of the clients have moved")
        await trio.to_thread.run_sync(partial(self._admin(old).post, "abort"))
        await self.proxy.flip_to(self.live)
        # A party that was told to go before the drain was called off still comes, to either colour.
        await trio.sleep(2)
        status = await trio.to_thread.run_sync(partial(self._admin(new).get, "sessions"))
        leg.ended_at, leg.exit_code = trio.current_time(), 0
        receipt: dict[str, Any] = await trio.to_thread.run_sync(partial(self._admin(old).get, f"receipts/{old.name}"))
        totals = receipt["totals"]
        row = Row(
            number, "called off", old.name, sessions=totals["sessions"], moved=totals["moved"], lost=totals["lost"]
        )
        row.resumed, row.seconds = self._clients_in(leg), round(leg.ended_at - leg.started_at, 1)
        on_the_way = sum(one["reason"] == "called off when it had been told" for one in receipt["sessions"].values())
        if not row.moved <= row.resumed <= row.moved + on_the_way or row.lost:
            row.problems.append(f"the receipt says {row.moved} moved and {on_the_way} were told to, {row.resumed} did")
        self._check(leg, row, early=totals["goaway_before_pair_ready"] + leg.told_too_early)
        self.rows.append(row)
        # All that have a party at the new node: it hands back the clients among them.
        assert status["total"] >= half
        self.live = self.other
        await self._hand_over(number, "rollback", self.live, None)

    async def _hand_over(self, number: int, kind: str, colour: Colour, expected: int | None) -> None:
        """Stop `colour`, which hands `expected` sessions over (None: as many as it has clients), and write the row."""
        deploy = self.judge.begin_deploy(kill=False, workers_move=True, now=trio.current_time())
        node = await self._end(colour)
        deploy.exit_code, deploy.drain_s = 0, trio.current_time() - deploy.started_at
        await trio.sleep(0.5)
        deploy.ended_at = trio.current_time()
        self.live = "green" if colour == "blue" else "blue"
        admin = self._admin(self.running[self.live])
        receipt: dict[str, Any] = await trio.to_thread.run_sync(admin.get, f"receipts/{node.name}")
        totals = receipt["totals"]
        row = Row(number, kind, node.name, sessions=totals["sessions"], moved=totals["moved"])
        row.lost = totals["lost"]
        row.resumed = self._clients_in(deploy)
        row.move_ms_p99 = totals["move_ms_p99"] or 0.0
        row.unserved_ms_p99 = totals["gap_ms_p99"] or 0.0
        row.receipt_peak_per_s = totals["pace_peak_per_s"]
        row.seconds = totals["seconds"]
        self._pace(deploy, row)
        self._check(deploy, row, early=totals["goaway_before_pair_ready"] + deploy.told_too_early)
        await self._check_answers(deploy, row)
        if row.resumed != row.moved:
            row.problems.append(f"the receipt says {row.moved} moved, {row.resumed} did")
        if row.lost:
            row.problems.append(f"the receipt says {row.lost} were lost")
        if expected is not None and row.resumed != expected:
            row.problems.append(f"{expected} sessions were to move")
        self.rows.append(row)

    def _clients_in(self, deploy: Deploy) -> int:
        return sum(name.startswith("client") for name in deploy.moved)

    def _pace(self, deploy: Deploy, row: Row) -> None:
        """Sessions moved per second as the parties saw it: with their clients, or with their workers if that was more."""
        claims = deploy.client_claims
        if len(claims) < 2:
            return
        took_s = claims[-1][0] - claims[0][0]
        row.pace_per_s = round((len(claims) - 1) / took_s, 1)
        row.peak_per_s = deploy.claims_peak
        pace = self.options.pace
        # Where there is enough to do for a pace to show: not where the machine made a few take long.
        enough = len(claims) > 2 * pace
        seen = {"the receipt": row.receipt_peak_per_s, "the parties": row.peak_per_s} if enough else {}
        for who, peak in seen.items():
            if not pace * (1 - PACE_BELOW) <= peak <= pace * (1 + PACE_ABOVE):
                row.problems.append(f"{peak} sessions moved in one second by {who}, {pace:g} are configured")

    def _check(self, deploy: Deploy, row: Row, *, early: int) -> None:
        row.reconnects_max = max(deploy.dials.values(), default=0)
        row.early = early
        row.gap_ms_p99 = spread(deploy.gaps_s.values())["p99"]
        if row.reconnects_max > 1:
            row.problems.append(f"a party dialled {row.reconnects_max} times")
        if early:
            row.problems.append(f"{early} clients were told before their workers had moved")

    async def _check_answers(self, deploy: Deploy, row: Row) -> None:
        """Everything asked before the end of the deploy is answered, once and in order."""
        ended_at = deploy.ended_at
        assert ended_at is not None

        def unanswered() -> int:
            return sum(at <= ended_at for ledger in self.judge.ledgers for at in ledger.asked_at.values())

        with trio.move_on_after(SETTLE_S):
            while unanswered():  # noqa: ASYNC110 - the judge only counts
                await trio.sleep(0.05)
        row.unanswered = unanswered()
        verdict = self.judge.verdict(trio.current_time())
        row.duplicated, row.reordered = verdict.duplicated - self._before[0], verdict.reordered - self._before[1]
        self._before = verdict.duplicated, verdict.reordered
        if row.unanswered or row.duplicated or row.reordered or verdict.sessions_lost:
            row.problems.append(
                f"{row.unanswered} unanswered, {row.duplicated} doubled, {row.reordered} reordered, "
                f"sessions lost: {verdict.why_lost}"
            )

    # --- the report ---------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """All that was seen."""
        verdict = self.judge.verdict(trio.current_time())
        problems = [f"deploy {row.deploy}: {problem}" for row in self.rows for problem in row.problems]
        paces = [row.pace_per_s for row in self.rows if row.kind == "deploy"]
        if verdict.lost or verdict.duplicated or verdict.reordered or verdict.sessions_lost:
            problems.append(f"at the end: {verdict.in_words()}")
        return {
            "options": asdict(self.options),
            "rows": [asdict(row) for row in self.rows],
            "messages": verdict.messages,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "reordered": verdict.reordered,
            "sessions_lost": verdict.sessions_lost,
            "same_worker": verdict.same_worker,
            "gap_ms": verdict.gap_ms,
            "steady_ms": verdict.steady_ms,
            "pace_per_s": {"least": min(paces, default=0.0), "most": max(paces, default=0.0)},
            "problems": problems,
        }


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    columns = {
        "deploy": "deploy", "kind": "kind", "node": "node", "sessions": "sessions", "moved": "moved", "resumed": "seen",
        "lost": "lost", "unanswered": "seen", "duplicated": "twice", "early": "early", "reconnects_max": "dials",
        "move_ms_p99": "move p99", "unserved_ms_p99": "gap p99", "gap_ms_p99": "seen",
        "receipt_peak_per_s": "peak/s", "peak_per_s": "seen", "pace_per_s": "mean/s", "seconds": "s",
    }  # fmt: skip
    table = [list(columns.values()), *([str(row[key]) for key in columns] for row in report["rows"])]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    print(", ".join(f"{key} {value}" for key, value in report.items() if key not in ("options", "rows", "problems")))
    for problem in report["problems"]:
        print("PROBLEM", problem)
    if not report["problems"]:
        print("Nobody noticed, and every receipt says what the applications saw.")


@asynccontextmanager
async def _store(kind: str, directory: Path) -> AsyncIterator[str]:
    if kind == "redis":
        server = Server(directory / "redis")
        async with servers(server):
            yield server.url
    else:
        yield f"sqlite:{directory / 'store.db'}" if kind == "sqlite" else kind


async def run(options: Options, directory: Path) -> dict[str, Any]:
    """Carry the campaign out and return the report."""
    raise_descriptor_limit(4 * (options.sessions + options.workers) + 512)
    settings: Settings = {
        "listen": {"trusted_proxies": ["127.0.0.1/32"]},
        "pace": {"sessions_per_s": options.pace},
        # Not the short budgets of the tests.
        "drain": {key: value for key, value in asdict(DrainConfig()).items() if isinstance(value, float)},
    }
    with (directory / "parties.log").open("w") as log, logging_to(log, LogConfig()):
        colours = Colours()
        async with (
            _store(options.store, directory) as url,
            open_proxy(options.proxy, directory, colours) as proxy,
            open_nodes(directory, url, settings) as nodes,
        ):
            campaign = Campaign(options, proxy, nodes, colours)
            await campaign.run()
            return campaign.report()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Options("haproxy")
    parser.add_argument("--proxy", choices=KINDS, required=True)
    parser.add_argument("--deploys", type=int, default=usual.deploys)
    parser.add_argument("--rollbacks", type=int, default=usual.rollbacks, help="how many of them are rolled back")
    parser.add_argument("--sessions", type=int, default=usual.sessions)
    parser.add_argument("--workers", type=int, default=usual.workers)
    parser.add_argument("--rate", type=float, default=usual.rate, help="messages/s of each client")
    parser.add_argument("--pace", type=float, default=usual.pace, help="pace.sessions_per_s of the nodes")
    parser.add_argument("--store", default=usual.store, help="redis or sqlite (one of its own), or a URL")
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    if not 0 <= given["rollbacks"] <= given["deploys"]:
        parser.error("--rollbacks is how many of the --deploys are rolled back")
    # Ended by a SIGTERM, too, nothing that was started is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="signald-proxies-"))
    report = trio.run(run, Options(**given), directory)
    print(json.dumps(report)) if as_json else show(report)
    if report["problems"]:
        print(f"the logs are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
