"""Set-ups per second: new sessions (TCP, WebSocket, `connect`, pairing with a worker that accepts) and resumes.

`in_flight` of them are under way at any time. The clients that resume have lost their connection before, without a close, as
after a network change; the server has noticed by then, so a resume here is TCP, WebSocket, `restore_session` and the claim.
trio-websocket shows what the connections alone cost; TCP's are accepted by the kernel, whatever the server does.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bench.parties import ClientSession, WorkerApp, start_clients, start_workers
from tests.bench.relay import PlainWebSocketLink, TcpLink
from tests.bench.report import Row, median
from tests.bench.servers import BASELINES, TREE, Cores, Server, running
from tests.bench.sockets import Loop

PER_WORKER = 100
NOTICE_S = 1.0


class Resumer(ClientSession):
    """A client that knows how often it has resumed and is meant to have."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.resumes_expected = 0

    @property
    def settled(self) -> bool:
        """Whether it has resumed as often as it should."""
        return self.resumes == self.resumes_expected


def resume_all(loop: Loop, server: Server, clients: Sequence[Resumer], in_flight: int) -> float:
    """Let all clients resume, at most `in_flight` at a time; return the seconds it took."""
    waiting = list(clients)
    opening: set[Resumer] = set()
    begin = time.perf_counter()

    def done() -> bool:
        opening.difference_update([client for client in opening if client.settled])
        while waiting and len(opening) < in_flight:
            client = waiting.pop()
            client.resumes_expected += 1
            client.dial(server.address)
            opening.add(client)
        return not opening

    loop.run_until(done, 60.0, "all clients resumed")
    return time.perf_counter() - begin


def connect_all(kind: str, loop: Loop, server: Server, count: int, in_flight: int) -> float:
    """Open connections to a baseline, cut them, and return the seconds until all were open."""
    waiting = count
    links: list[TcpLink | PlainWebSocketLink] = []
    opening: set[TcpLink | PlainWebSocketLink] = set()
    begin = time.perf_counter()

    def done() -> bool:
        nonlocal waiting
        opening.difference_update([link for link in opening if link.open])
        while waiting and len(opening) < in_flight:
            waiting -= 1
            link = TcpLink(loop, server.address) if kind == "tcp" else PlainWebSocketLink(loop, server.address)
            links.append(link)
            opening.add(link)
        return not opening

    loop.run_until(done, 60.0, "all connected")
    elapsed_s = time.perf_counter() - begin
    for link in links:
        link.cut()
    return elapsed_s


class Spent:
    """The seconds and the CPU seconds that several rounds of set-ups took."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.times_s: list[float] = []
        self.server_s = self.redis_s = 0.0

    def round(self, set_up: Callable[[], float]) -> None:
        """Play one round, which returns the seconds that count."""
        server_s, redis_s = self._server.cpu_s()
        self.times_s.append(set_up())
        server_end_s, redis_end_s = self._server.cpu_s()
        self.server_s += server_end_s - server_s
        self.redis_s += redis_end_s - redis_s


def row(name: str, what: str, count: int, in_flight: int, spent: Spent) -> Row:
    """Return the figures of one kind of set-up."""
    times_s = spent.times_s
    rates = [count / seconds for seconds in times_s]
    return {
        "server": name,
        "set-up": what,
        "in flight": in_flight,
        "per s": median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "cpu ms each": spent.server_s * 1000 / (count * len(times_s)),
        "redis ms each": spent.redis_s * 1000 / (count * len(times_s)),
        "server core": spent.server_s / sum(times_s),
    }


def scenario(name: str, cores: Cores, sessions: int, in_flight: int, rounds: int, *, tree: Path = TREE) -> list[Row]:
    """Measure one server: `rounds` times `sessions` of each kind."""
    loop = Loop()
    rows: list[Row] = []
    with running(name, cores, tree) as server:
        spent = Spent(server)
        try:
            if name in BASELINES:
                for _ in range(rounds):
                    spent.round(partial(connect_all, name, loop, server, sessions, in_flight))
                    loop.run_for(NOTICE_S)
                rows.append(row(name, "connection", sessions, in_flight, spent))
            else:
                workers = [
                    WorkerApp(loop, f"bench-{n}", PER_WORKER) for n in range(-(-sessions * rounds // PER_WORKER))
                ]
                start_workers(loop, server.address, workers)
                for _ in range(rounds):
                    clients = [Resumer(loop) for _ in range(sessions)]
                    spent.round(partial(start_clients, loop, server.address, clients, in_flight))
                rows.append(row(name, "new session", sessions, in_flight, spent))
                spent = Spent(server)
                for _ in range(rounds):
                    for client in clients:
                        client.cut()
                    loop.run_for(NOTICE_S)
                    spent.round(partial(resume_all, loop, server, clients, in_flight))
                rows.append(row(name, "resume", sessions, in_flight, spent))
        finally:
            loop.close()
    return rows
