"""One deploy under load: a second node starts, the first gets SIGTERM, every party moves while it talks.

Time is cut into three stretches: *steady* (one node), *start* (the new node boots; on one server core this costs the old one) and
*drain* (SIGTERM to the exit of the old node). After it all clients must be talking on the new node.

- A **gap** is how long a party could not exchange anything: from its `restore_session` (or `app_ready`) on the new connection, after
  which the old one is spent, to the answer; if the old connection ended before, from that end.
- **Latency** is a message's way from the client to the echo, gap included: a message said during the gap waits for it.
- **CPU** of both nodes and of the store, from SIGTERM to the exit of the old node, is divided by the sessions.
- **Claims** are counted where they are answered: clients' resumes, and sessions that came along with a worker's.

The generator stands in for the load balancer too: once the new node is ready it dials that one.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import BenchError
from tests.bench.parties import ClientLink, ClientSession, Json, WorkerApp, WorkerLink, start_clients, start_workers
from tests.bench.relay import no_collector
from tests.bench.report import Row, percentile
from tests.bench.servers import TREE, Child, Cores, Node, empty_store
from tests.bench.sockets import Address, Loop

DRAIN_TIMEOUT_S = 120.0
"""More than the default of `drain.stop_timeout_s`: a drain that takes longer than that is a finding, and one that does not end is none."""
RETRY_S = 0.1
WARM_UP_S = 2.0


class Scene:
    """What all parties share: the loop, where to dial, what is due when, and what was seen."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.address: Address = ("", 0)
        self.due: list[tuple[float, DrainClient | DrainWorker]] = []
        self.stretch = "steady"
        self.latencies_s: dict[str, list[float]] = {"steady": [], "start": [], "drain": [], "after": []}
        self.client_gaps_s: list[float] = []
        self.worker_gaps_s: list[float] = []
        self.client_claims_at: list[float] = []
        self.worker_claims_at: list[tuple[float, int]] = []
        self.refused = 0
        self.busy = 0
        """How often a party was told that too many come at once."""

    def dial_due(self, now: float) -> None:
        """Dial for all parties whose moment has come."""
        ready = [party for when, party in self.due if when <= now]
        self.due = [(when, party) for when, party in self.due if when > now]
        for party in ready:
            party.dial(self.address)


class DrainClientLink(ClientLink):
    """Notes when the session was asked for: from then on the old connection is spent."""

    session: "DrainClient"

    def on_open(self) -> None:
        """Resume, or connect."""
        self.session.spent()
        super().on_open()

    def on_json(self, message: Json) -> None:
        """Count what a node says that has no room: it ends the connection then, and the client comes back."""
        if message.get("code") == "busy":
            self.session.scene.busy += 1
        else:
            super().on_json(message)


class DrainClient(ClientSession):
    """A client that talks at a fixed rate and moves when it is told."""

    link_class = DrainClientLink

    def __init__(self, scene: Scene, data: str) -> None:
        super().__init__(scene.loop, data)
        self.scene = scene
        self.next_at = 0.0
        self._said_at: deque[float] = deque()
        self._gap_from: float | None = None

    def talk(self, now: float) -> None:
        """Say one message."""
        self._said_at.append(now)
        self.say()

    def heard(self, seq: int) -> None:
        """Take an echo: they come in the order of what was said."""
        latency_s = time.perf_counter() - self._said_at.popleft()
        self.scene.latencies_s[self.scene.stretch].append(latency_s)

    def leave(self, goaway: Json) -> None:
        """Move once `not_before_ms` has passed."""
        self.scene.due.append((time.perf_counter() + goaway["not_before_ms"] / 1000, self))

    def spent(self) -> None:
        """Begin a gap, unless one has begun."""
        if self.token and self._gap_from is None:
            self._gap_from = time.perf_counter()

    def restored(self, link: ClientLink, message: Json) -> None:
        """End the gap."""
        super().restored(link, message)
        now = time.perf_counter()
        self.scene.client_claims_at.append(now)
        if self._gap_from is not None:
            self.scene.client_gaps_s.append(now - self._gap_from)
            self._gap_from = None

    def lost(self, link: ClientLink) -> None:
        """Come back after a refusal, or a goodbye before the move; a connection that was replaced is done with."""
        if link is self.dialled:
            self.dialled = None
            self.scene.refused += 1
        elif link is not self.link:
            return
        else:
            self.link = None
            self.spent()
            if self.dialled is not None:
                return
        self.scene.due.append((time.perf_counter() + RETRY_S, self))


class DrainWorkerLink(WorkerLink):
    """Notes when the sessions were asked for."""

    app: "DrainWorker"

    def on_open(self) -> None:
        """Resume, or register."""
        self.app.spent()
        super().on_open()

    def on_json(self, message: Json) -> None:
        """As of a client."""
        if message.get("code") == "busy":
            self.app.scene.busy += 1
        else:
            super().on_json(message)


class DrainWorker(WorkerApp):
    """A worker that echoes and moves when it is told."""

    link_class = DrainWorkerLink

    def __init__(self, scene: Scene, name: str, capacity: int, data: str) -> None:
        super().__init__(scene.loop, name, capacity, data)
        self.scene = scene
        self._gap_from: float | None = None

    def leave(self, goaway: Json) -> None:
        """Move once `not_before_ms` has passed."""
        self.scene.due.append((time.perf_counter() + goaway["not_before_ms"] / 1000, self))

    def spent(self) -> None:
        """Begin a gap, unless one has begun."""
        if self.token and self._gap_from is None:
            self._gap_from = time.perf_counter()

    def accepted(self, link: WorkerLink, message: Json) -> None:
        """End the gap."""
        resumed = bool(self.token)
        super().accepted(link, message)
        if resumed and self._gap_from is not None:
            now = time.perf_counter()
            self.scene.worker_claims_at.append((now, len(self.sessions)))
            self.scene.worker_gaps_s.append(now - self._gap_from)
            self._gap_from = None

    def lost(self, link: WorkerLink) -> None:
        """Come back after a refusal, or a goodbye before the move; a connection that was replaced is done with."""
        if link is self.dialled:
            self.dialled = None
            self.scene.refused += 1
        elif link is not self.link:
            return
        else:
            self.link = None
            self.spent()
            if self.dialled is not None:
                return
        self.scene.due.append((time.perf_counter() + RETRY_S, self))


class Talk:
    """Lets every client speak at its moments; they differ, so the load is even."""

    def __init__(self, scene: Scene, clients: list[DrainClient], rate_per_s: float) -> None:
        self._scene = scene
        self._interval_s = 1 / rate_per_s
        begin = time.perf_counter()
        for number, client in enumerate(clients):
            client.next_at = begin + self._interval_s * number / len(clients)
        self._queue = deque(clients)

    def turn(self) -> None:
        """Send what is due, dial what is due, serve what is ready."""
        now = time.perf_counter()
        queue = self._queue
        while queue[0].next_at <= now:
            client = queue[0]
            client.next_at += self._interval_s
            queue.rotate(-1)
            client.talk(now)
        if self._scene.due:
            self._scene.dial_due(now)
        self._scene.loop.turn(min(0.005, max(0.0, queue[0].next_at - time.perf_counter())))

    def run_for(self, seconds: float) -> None:
        """Go on for a while."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.turn()


def peak_per_s(claims: list[tuple[float, int]]) -> int:
    """Return the most claims within any one second."""
    best = total = 0
    window: deque[tuple[float, int]] = deque()
    for when, count in sorted(claims):
        window.append((when, count))
        total += count
        while window[0][0] <= when - 1.0:
            total -= window.popleft()[1]
        best = max(best, total)
    return best


class Figures(NamedTuple):
    """What one deploy showed."""

    moves: list[Row]
    latencies: list[Row]


class Deploy(NamedTuple):
    """What a deploy took from SIGTERM to the exit of the old node: seconds, and CPU seconds of both nodes and of the store."""

    drain_s: float
    nodes_s: float
    redis_s: float


def deploy(scene: Scene, talk: Talk, old: Node, start: Callable[[], Node], redis: Child | None) -> Deploy:
    """Start the new node, turn to it, end the old one."""
    scene.stretch = "start"
    # In a thread, since the question of readiness blocks and the parties go on talking.
    with ThreadPoolExecutor(1) as pool:
        new = start()
        ready = pool.submit(new.child.wait_until, new.ready)
        while not ready.done():
            talk.turn()
        ready.result()
    scene.address = new.address
    scene.stretch = "drain"

    def spent() -> tuple[float, float]:
        return old.child.cpu_s() + new.child.cpu_s(), redis.cpu_s() if redis else 0.0

    nodes_s, redis_s = spent()
    began = time.perf_counter()
    old.child.terminate()
    while old.child.exit_code() is None:
        talk.turn()
        if time.perf_counter() - began > DRAIN_TIMEOUT_S:
            raise old.child.failure("does not end")
    drain_s = time.perf_counter() - began
    nodes_end_s, redis_end_s = spent()
    scene.stretch = "after"
    return Deploy(drain_s, nodes_end_s - nodes_s, redis_end_s - redis_s)


def figures(name: str, scene: Scene, clients: list[DrainClient], seen: Deploy, old: Node) -> Figures:
    """Sum up."""
    client_claims = [(when, 1) for when in scene.client_claims_at]
    rows: list[Row] = []
    for party, gaps_s, claims in (
        ("clients", scene.client_gaps_s, client_claims),
        ("workers", scene.worker_gaps_s, scene.worker_claims_at),
    ):
        moved = sum(count for _, count in claims)
        rows.append(
            {
                "store": name,
                "party": party,
                "sessions moved": moved,
                "most often": max((client.resumes for client in clients), default=0) if party == "clients" else None,
                "gap p50 ms": percentile(gaps_s, 50) * 1000,
                "gap p99 ms": percentile(gaps_s, 99) * 1000,
                "gap max ms": max(gaps_s, default=0.0) * 1000,
                "claims/s": moved / seen.drain_s,
                "peak/s": peak_per_s(claims),
                "drain s": seen.drain_s,
                "cpu ms each": seen.nodes_s * 1000 / len(clients),
                "redis ms each": seen.redis_s * 1000 / len(clients),
                "refused": scene.refused,
                "busy": scene.busy,
                "exit code": old.child.exit_code(),
            }
        )
    steady = percentile(scene.latencies_s["steady"], 99)
    return Figures(
        rows,
        [
            {
                "store": name,
                "stretch": stretch,
                "round trips": len(latencies_s),
                "p50 ms": percentile(latencies_s, 50) * 1000,
                "p99 ms": percentile(latencies_s, 99) * 1000,
                "max ms": max(latencies_s, default=0.0) * 1000,
                "p99 x steady": percentile(latencies_s, 99) / steady if steady else None,
            }
            for stretch, latencies_s in scene.latencies_s.items()
        ],
    )


def scenario(
    name: str,
    cores: Cores,
    sessions: int,
    workers: int,
    rate_per_s: float,
    size: int,
    steady_s: float,
    *,
    tree: Path = TREE,
) -> Figures:
    """Deploy once over one store: the signald of `tree`, by itself."""
    if name not in ("signald-sqlite", "signald-redis"):
        raise BenchError(f"{name}: a deploy needs a store that outlives the process, sqlite or redis")
    scene = Scene(Loop())
    data = "x" * size
    nodes: list[Node] = []
    with tempfile.TemporaryDirectory(prefix="signald-bench-") as temporary:
        folder = Path(temporary)
        with empty_store(name, cores, folder) as (url, redis):

            def start() -> Node:
                nodes.append(Node.start(url, cores.server, folder, tree))
                return nodes[-1]

            try:
                old = start()
                old.child.wait_until(old.ready)
                scene.address = old.address
                apps = [DrainWorker(scene, f"bench-{n}", -(-sessions // workers), data) for n in range(workers)]
                start_workers(scene.loop, old.address, apps)
                clients = [DrainClient(scene, data) for _ in range(sessions)]
                start_clients(scene.loop, old.address, clients)

                with no_collector():
                    talk = Talk(scene, clients, rate_per_s)
                    talk.run_for(WARM_UP_S)
                    scene.latencies_s["steady"].clear()
                    talk.run_for(steady_s)
                    seen = deploy(scene, talk, old, start, redis)
                    talk.run_for(steady_s)
                silent = [client for client in clients if client.sent - client.received > rate_per_s + 1]
                if silent:
                    raise nodes[-1].child.failure(f"left {len(silent)} clients without echoes after the deploy")
                return figures(name, scene, clients, seen, old)
            finally:
                scene.loop.close()
                for node in nodes:
                    node.child.stop()
