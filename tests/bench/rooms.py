"""Messages per second that reach the members of a room: signald, a bare loop, and Socket.IO with its Redis adapter.

One publisher keeps `window` publications under way: the next one is said when the earliest has come at each member. All servers are up
at once and take turns of a slice, so that other work on the machine meets all of them. On two nodes each has half of the members, the
first member is at another node than the publisher, and both nodes share the server's core.

    signald             a publication is stored in Redis before it is told, has a position, and is kept for members that come later
    bare                a publication is made into a frame once and written to each socket; on two nodes it is said to both by the publisher
    socket.io           a publication is told at once, and handed to the other server by Redis; nothing is kept
    socket.io streams   a publication is put into a stream of Redis before it is told, and is kept for members that come back

At window 1 each publication is a write to each socket with all of them, and what is measured is how soon the next one may be said. At 128
servers are busy all the time. signald then joins what it has stored in one step.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from signald.demo.cluster import free_port
from tests.bench.errors import BenchError
from tests.bench.report import Row, median
from tests.bench.rooms_parties import BareRoom, Room, SignaldRoom, SocketIoRoom
from tests.bench.servers import HOST, Child, Cores, Node, running_redis
from tests.bench.sockets import Address, Loop

SIGNALD, BARE, SOCKET_IO, STREAMS = "signald", "bare", "socket.io", "socket.io streams"
SYSTEMS = (SIGNALD, BARE, SOCKET_IO, STREAMS)

MEMBERS_MAX = "[rooms]\nmembers_max = 2000"
"""The publisher is a member beside the thousand."""

OF_BARE = 0.7
"""What a node may cost beyond the writes: at 1,000 members at least so much of what the bare loop delivers."""

MANY = 1000

NODE_FOLDER = Path(__file__).parent / "socketio"


class System(NamedTuple):
    """One of SYSTEMS, running."""

    name: str
    servers: list[Child]
    store: Child | None
    room: Room

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU seconds of its servers, and of its Redis."""
        return sum([child.cpu_s() for child in self.servers]), self.store.cpu_s() if self.store else 0.0

    def check(self) -> None:
        """Raise BenchError if a process has ended."""
        for child in self.servers:
            child.check()


def make_node_modules() -> None:
    """Install what the Socket.IO server needs, unless what its lock file names is there."""
    stamp, lock = NODE_FOLDER / "node_modules" / "stamp", (NODE_FOLDER / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == lock:
        return
    try:
        subprocess.run(["npm", "ci", "--silent"], cwd=NODE_FOLDER, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"npm could not install what {NODE_FOLDER / 'package-lock.json'} names: {error}") from error
    stamp.write_text(lock)


@contextmanager
def _signald(cores: Cores, nodes: int, loop: Loop, folder: Path) -> Iterator[System]:
    with ExitStack() as stack:
        redis, url = stack.enter_context(running_redis(cores.redis, folder))
        servers: list[Child] = []
        addresses: list[Address] = []
        for _ in range(nodes):
            node = Node.start(url, cores.server, folder, limits=MEMBERS_MAX)
            stack.callback(node.child.stop)
            node.child.wait_until(node.ready)
            servers.append(node.child)
            addresses.append(node.address)
        yield System(SIGNALD, servers, redis, SignaldRoom(loop, addresses))


@contextmanager
def _programs(
    name: str, command: list[str], arguments: list[str], cores: Cores, nodes: int, folder: Path
) -> Iterator[tuple[list[Child], list[Address]]]:
    """Run a program on a port for each node."""
    with ExitStack() as stack:
        servers: list[Child] = []
        addresses: list[Address] = []
        for _ in range(nodes):
            port = free_port()
            child = Child(name, [*command, str(port), *arguments], cores.server, folder / f"{name}-{port}.log")
            stack.callback(child.stop)
            child.wait_until(child.has_written)
            servers.append(child)
            addresses.append((HOST, port))
        yield servers, addresses


@contextmanager
def _bare(cores: Cores, nodes: int, loop: Loop, folder: Path) -> Iterator[System]:
    command = [sys.executable, "-m", "tests.bench.rooms_bare"]
    with _programs(BARE, command, [], cores, nodes, folder) as (servers, addresses):
        yield System(BARE, servers, None, BareRoom(loop, addresses))


@contextmanager
def _socket_io(name: str, kind: str, cores: Cores, nodes: int, loop: Loop, folder: Path) -> Iterator[System]:
    make_node_modules()
    command = ["node", str(NODE_FOLDER / "server.mjs")]
    with ExitStack() as stack:
        redis, url = stack.enter_context(running_redis(cores.redis, folder))
        servers, addresses = stack.enter_context(_programs(name, command, [url, kind], cores, nodes, folder))
        yield System(name, servers, redis, SocketIoRoom(loop, addresses))


_STARTS: dict[str, Callable[[Cores, int, Loop, Path], AbstractContextManager[System]]] = {
    SIGNALD: _signald,
    BARE: _bare,
    SOCKET_IO: partial(_socket_io, SOCKET_IO, "pubsub"),
    STREAMS: partial(_socket_io, STREAMS, "streams"),
}


class Slice(NamedTuple):
    """What one turn has yielded."""

    per_s: float
    """Deliveries."""
    server_us: float
    """CPU time of the servers for each delivery."""
    redis_us: float
    server_share: float
    load_share: float


def take_slice(loop: Loop, system: System, window: int, seconds: float) -> Slice:
    """Have a system deliver for `seconds`, and then until all that was published has come."""
    crowd = system.room.crowd
    crowd.window = window
    server_s, redis_s = system.cpu_s()
    own_s, since = time.process_time(), time.perf_counter()
    crowd.start()
    spent = loop.run_for(seconds)
    crowd.running = False
    loop.run_until(lambda: crowd.quiet, 30.0, f"{system.name}: all {crowd.published} publications at each member")
    spent = time.perf_counter() - since
    system.check()
    server_end_s, redis_end_s = system.cpu_s()
    many = crowd.delivered
    return Slice(
        many / spent,
        (server_end_s - server_s) * 1e6 / many,
        (redis_end_s - redis_s) * 1e6 / many,
        (server_end_s - server_s) / spent,
        (time.process_time() - own_s) / spent,
    )


def scenario(
    cores: Cores,
    names: Sequence[str],
    nodes: int,
    sizes: Sequence[int],
    windows: Sequence[int],
    seconds: float,
    rounds: int,
) -> Iterator[Row]:
    """Yield the rows of each size of a room on so many nodes; the first round of each warms up."""
    loop = Loop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        systems = []
        for name in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signald-bench-")))
            systems.append(stack.enter_context(_STARTS[name](cores, nodes, loop, folder)))
        for system in systems:
            system.room.open()
        for members in sorted(sizes):
            for system in systems:
                system.room.grow(members)
            loop.run_for(min(seconds, 1.0))  # what members hear of each other comes at its own pace
            for window in windows:
                seen: dict[str, list[Slice]] = {name: [] for name in names}
                for number in range(rounds + 1):
                    # Each comes behind each other one in turn.
                    at = number % len(systems)
                    for system in (*systems[at:], *systems[:at]):
                        one = take_slice(loop, system, window, seconds)
                        if number:
                            seen[system.name].append(one)
                yield from _rows(nodes, members, window, seen)


def _rows(nodes: int, members: int, window: int, seen: dict[str, list[Slice]]) -> Iterator[Row]:
    for name, slices in seen.items():
        yield {
            "nodes": nodes,
            "members": members,
            "window": window,
            "server": name,
            "delivered/s": median([one.per_s for one in slices]),
            "x bare": _ratio(slices, seen.get(BARE)),
            "x socket.io": _ratio(slices, seen.get(SOCKET_IO)),
            "x streams": _ratio(slices, seen.get(STREAMS)),
            "server us each": median([one.server_us for one in slices]),
            "redis us each": median([one.redis_us for one in slices]),
            "server cpu": median([one.server_share for one in slices]),
            "generator cpu": median([one.load_share for one in slices]),
        }


def _ratio(slices: Sequence[Slice], others: Sequence[Slice] | None) -> float | None:
    """Return the median of the ratios of the rounds: both turns of a round met the same machine."""
    if others is None:
        return None
    return median([one.per_s / other.per_s for one, other in zip(slices, others, strict=True)])


def judge(rows: Sequence[Row]) -> tuple[list[Row], bool]:
    """Return a row for each limit of signald, and whether one is broken.

    At window 1 few members show how long one publication takes, not how many go through: Socket.IO tells it before anything has kept it,
    and is no limit there. The rows show it all the same.
    """
    limits: list[Row] = []
    broken = False
    for row in rows:
        if row["server"] != SIGNALD:
            continue
        for against, least in (
            ("x bare", OF_BARE if row["members"] == MANY else None),
            ("x socket.io", 1.0 if row["members"] == MANY or row["window"] != 1 else None),
        ):
            ratio = row[against]
            if least is None or not isinstance(ratio, float):
                continue
            holds = ratio >= least
            broken = broken or not holds
            limits.append(
                {
                    "nodes": row["nodes"],
                    "members": row["members"],
                    "window": row["window"],
                    "limit": against,
                    "at least": least,
                    "measured": ratio,
                    "verdict": "holds" if holds else "BROKEN",
                }
            )
    return limits, broken
