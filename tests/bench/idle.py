"""Memory of sessions that say nothing: what the server's resident set grows by while they are connected.

The growth is measured after a first few sessions, so that what is loaded or allocated once is not counted. A session is a
client's connection and its share of a worker's; the baselines know no sessions, so theirs is the memory of a connection.
"""

from tests.bench.parties import ClientSession, WorkerApp, start_clients, start_workers
from tests.bench.relay import PlainWebSocketLink, TcpLink
from tests.bench.report import Row
from tests.bench.servers import BASELINES, Cores, Server, running
from tests.bench.sockets import Address, Loop

WARM_UP = 100
SETTLE_S = 2.0


def settled_rss(loop: Loop, server: Server) -> int:
    """Return the resident bytes after a while without traffic."""
    loop.run_for(SETTLE_S)
    server.child.check()
    return server.child.rss_bytes()


def connect_baseline(kind: str, loop: Loop, address: Address, count: int) -> None:
    """Open `count` connections, each half of a pair."""
    for _ in range(count):
        link = TcpLink(loop, address) if kind == "tcp" else PlainWebSocketLink(loop, address)
        loop.run_until(lambda link=link: link.open, 10.0, "connected")  # type: ignore[misc]


def scenario(name: str, cores: Cores, sessions: int, per_worker: int) -> Row:
    """Measure one server."""
    loop = Loop()
    with running(name, cores) as server:
        try:
            if name in BASELINES:
                connect_baseline(name, loop, server.address, WARM_UP)
                before = between = settled_rss(loop, server)
                connect_baseline(name, loop, server.address, sessions)
            else:
                # The first workers take the first clients, so that each group below is placed as it is meant to be.
                start_workers(loop, server.address, [WorkerApp(loop, "warm-up", WARM_UP)])
                start_clients(loop, server.address, [ClientSession(loop) for _ in range(WARM_UP)])
                before = settled_rss(loop, server)
                workers = [WorkerApp(loop, f"bench-{n}", per_worker) for n in range(-(-sessions // per_worker))]
                start_workers(loop, server.address, workers)
                between = settled_rss(loop, server)
                start_clients(loop, server.address, [ClientSession(loop) for _ in range(sessions)])
            after = settled_rss(loop, server)
        finally:
            loop.close()
    return {
        "server": name,
        "sessions": sessions,
        "per worker": None if name in BASELINES else per_worker,
        "start MiB": before / 2**20,
        "end MiB": after / 2**20,
        "KiB/session": (after - before) / sessions / 1024,
        "of it client KiB": (after - between) / sessions / 1024,
    }
