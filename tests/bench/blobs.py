"""Blobs: twenty uploads of 10 MiB at once through one node, then twenty downloads, beside sessions that talk.

Judged are two figures of the node, each against its own in the same run before a blob came:

    memory      the greatest resident size, files that it maps left out, above that of the steady state: 8 MiB at most
    loop lag    the p99 of how late the event loop is: twice that of the steady state at most

The steady state is the same sessions and their talk, after a first round of small uploads and downloads, by which threads, connections
and buffers are there. Bytes go over raw sockets, as fast as the node takes and gives them, and are checked at both ends.
"""

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import attrs
import trio

from signald.sdk.trio import Client, WorkerSession, open_client, open_worker
from tests.bench import loop_lag
from tests.bench.errors import BenchError
from tests.bench.report import Row, median, percentile
from tests.bench.servers import Cores, Server, running

MIB = 1 << 20
RSS_LIMIT = 8 * MIB
LAG_LIMIT = 2.0
"""Of the issue: the memory above the steady state, and the lag in multiples of the steady one."""

PAGE = os.sysconf("SC_PAGE_SIZE")
RSS_EVERY_S = 0.002
SMALL = 65_536
"""Bytes of an upload of the first round: beyond the buffers, and no load."""
TALK_EVERY_S = 0.05
"""Between two messages of a session: 20 sessions make 400 round trips a second so, a few hundredths of a core."""
STALLED_S = 120.0
POLL_S = 0.02
READ = 262_144

LIMITS = "requests_per_s = 1e9\nrequests_burst = 1000000000"


class Load(NamedTuple):
    """What is carried."""

    at_once: int
    size: int
    steady_s: float
    rounds: int


@attrs.define
class Phase:
    """What was seen in one kind of time."""

    name: str
    memory: int = 0
    """Greatest resident size (bytes)."""
    lags_s: list[float] = attrs.field(factory=list)
    round_trips_s: list[float] = attrs.field(factory=list)
    relayed_s: list[float] = attrs.field(factory=list)
    """Of each message, as the node has measured it: from the read that brought it until it was stored and handed to its receiver."""
    took_s: list[float] = attrs.field(factory=list)
    """Of each upload or download."""
    lasted_s: float = 0.0
    cpu_s: float = 0.0


@attrs.define
class Talk:
    """The sessions beside."""

    clients: list[Client] = attrs.field(factory=list)
    round_trips_s: list[float] = attrs.field(factory=list)
    answered: trio.Event = attrs.field(factory=trio.Event)
    """Set at the end of the next round trip, and then another one."""


def resident(pid: int) -> int:
    """Return the memory of a process, in bytes, files that it maps left out."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return (int(fields[1]) - int(fields[2])) * PAGE


@asynccontextmanager
async def watched(server: Server, talk: Talk, phase: Phase, lag_file: Path) -> AsyncIterator[None]:
    """Note what happens to the node in the block.

    The first round trip and the first sample behind the block tell of its end, and count: so a block has some of each, be it ever so short.
    """
    pid, over = server.child.pid, threading.Event()

    def watch() -> None:
        while not over.wait(RSS_EVERY_S):
            phase.memory = max(phase.memory, resident(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    talk.round_trips_s.clear()
    since, cpu_s = time.monotonic(), server.child.cpu_s()
    try:
        yield
    finally:
        over.set()
        watching.join()
    until = time.monotonic()
    phase.cpu_s += server.child.cpu_s() - cpu_s
    phase.lasted_s += until - since
    with trio.fail_after(STALLED_S):
        await talk.answered.wait()
        phase.round_trips_s += talk.round_trips_s
        while (lags_s := loop_lag.read(lag_file, since, until)) is None:  # noqa: ASYNC110 - the node writes the file
            await trio.sleep(POLL_S)
        phase.lags_s += lags_s
    phase.relayed_s += loop_lag.read_relayed(lag_file, since, until)


# --- the parties --------------------------------------------------------------------------------------------------


async def _echo(session: WorkerSession) -> None:
    async for message in session:
        await session.send(message.data)


@asynccontextmanager
async def talking(server: Server, sessions: int) -> AsyncIterator[Talk]:
    """Sessions that talk for the time of the block, each with an API token."""
    url = f"ws://{server.address[0]}:{server.address[1]}"
    talk = Talk()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        async with open_worker(url, _echo, instance_id="bench", capacity=sessions):
            task_status.started()
            await trio.sleep_forever()

    async def ask(number: int, task_status: trio.TaskStatus[None]) -> None:
        async with open_client(url, api=True) as client:
            talk.clients.append(client)
            task_status.started()
            await trio.sleep(TALK_EVERY_S * number / sessions)
            while True:
                asked_at = trio.current_time()
                await client.send("x" * 128)
                await anext(client)
                talk.round_trips_s.append(trio.current_time() - asked_at)
                talk.answered.set()
                talk.answered = trio.Event()
                await trio.sleep(TALK_EVERY_S)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        for number in range(sessions):
            await nursery.start(ask, number)
        yield talk
        nursery.cancel_scope.cancel(reason="measured")


# --- the bytes ----------------------------------------------------------------------------------------------------


async def _head(stream: trio.SocketStream) -> tuple[int, dict[str, str], bytes]:
    """Return status and headers of an answer, and what was read of its body."""
    read = b""
    while b"\r\n\r\n" not in read:
        data = await stream.receive_some(READ)
        if not data:
            raise BenchError(f"the node has closed within an answer: {read[:300]!r}")
        read += data
    head, _, body = read.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), headers, body


def _asked(client: Client, first: str, more: str = "") -> bytes:
    return f"{first} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {client.api_token}\r\nConnection: close\r\n{more}\r\n".encode()


async def upload(server: Server, client: Client, data: bytes) -> str:
    """Upload, and return where the blob is."""
    async with await trio.open_tcp_stream(*server.address) as stream:
        more = f"Content-Type: audio/ogg\r\nContent-Length: {len(data)}\r\n"
        await stream.send_all(_asked(client, "POST /v1/blobs", more))
        await stream.send_all(data)
        status, headers, body = await _head(stream)
    if status != 201:
        raise BenchError(f"an upload was answered with {status}: {body[:300]!r}")
    return headers["location"]


async def download(server: Server, client: Client, path: str, sha256: bytes) -> None:
    """Read a blob whole."""
    async with await trio.open_tcp_stream(*server.address) as stream:
        await stream.send_all(_asked(client, f"GET {path}"))
        status, headers, body = await _head(stream)
        if status != 200:
            raise BenchError(f"a download was answered with {status}: {body[:300]!r}")
        digest, left = hashlib.sha256(body), int(headers["content-length"]) - len(body)
        while left:
            data = await stream.receive_some(READ)
            if not data:
                raise BenchError(f"the node has closed with {left} bytes to come")
            digest.update(data)
            left -= len(data)
    if digest.digest() != sha256:
        raise BenchError("other bytes came back than were sent")


async def _both_ways(server: Server, talk: Talk, data: bytes, up: Phase, down: Phase, lag_file: Path | None) -> None:
    """Have each client upload and then read `data`, all at once. Without a file nothing is noted."""
    paths: dict[Client, str] = {}
    sha256 = hashlib.sha256(data).digest()

    async def send(client: Client) -> None:
        began = time.perf_counter()
        paths[client] = await upload(server, client, data)
        up.took_s.append(time.perf_counter() - began)

    async def read(client: Client) -> None:
        began = time.perf_counter()
        await download(server, client, paths[client], sha256)
        down.took_s.append(time.perf_counter() - began)

    for phase, one in ((up, send), (down, read)):
        with trio.fail_after(STALLED_S):
            if lag_file is None:
                await _all(talk, one)
            else:
                async with watched(server, talk, phase, lag_file):
                    await _all(talk, one)
                await trio.sleep(0.2)


async def _all(talk: Talk, one: Callable[[Client], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for client in talk.clients:
            nursery.start_soon(one, client)


async def _run(server: Server, load: Load, lag_file: Path) -> list[Phase]:
    steady, up, down = Phase("steady"), Phase("20 uploads"), Phase("20 downloads")
    up.name, down.name = f"{load.at_once} uploads", f"{load.at_once} downloads"
    data = os.urandom(load.size)
    async with talking(server, load.at_once) as talk:
        await trio.sleep(1.0)
        await _both_ways(server, talk, data[:SMALL], Phase(""), Phase(""), None)
        await trio.sleep(0.5)
        async with watched(server, talk, steady, lag_file):
            await trio.sleep(load.steady_s)
        for _ in range(load.rounds):
            await _both_ways(server, talk, data, up, down, lag_file)
    return [steady, up, down]


def measure(name: str, cores: Cores, load: Load) -> list[Phase]:
    """Run one node, and return what was seen: steady, uploads, downloads."""
    with tempfile.TemporaryDirectory(prefix="signald-bench-blobs-") as folder:
        lag_file = Path(folder) / "lag"
        os.environ[loop_lag.VARIABLE] = str(lag_file)
        try:
            limits = f'{LIMITS}\n[blobs]\nurl = "file:{folder}/blobs"'
            with running(name, cores, limits=limits, entry=loop_lag.ENTRY_POINT) as server:
                return trio.run(_run, server, load, lag_file)
        finally:
            del os.environ[loop_lag.VARIABLE]


def rows_of(name: str, phases: list[Phase], size: int) -> list[Row]:
    """Return a row for each phase."""
    return [
        {
            "server": name,
            "phase": one.name,
            "MiB/s": len(one.took_s) * size / MIB / one.lasted_s,
            "each, s, median": median(one.took_s) if one.took_s else None,
            "memory MiB above steady": (one.memory - phases[0].memory) / MIB,
            "loop lag p50 ms": percentile(one.lags_s, 50) * 1000,
            "p99 ms": percentile(one.lags_s, 99) * 1000,
            "longest ms": max(one.lags_s, default=0.0) * 1000,
            "round trip p50 ms": percentile(one.round_trips_s, 50) * 1000,
            "p99": percentile(one.round_trips_s, 99) * 1000,
            "node core": one.cpu_s / one.lasted_s,
        }
        for one in phases
    ]


def judge(phases: list[Phase]) -> tuple[list[Row], bool]:
    """Return a row for each limit, and whether one is broken."""
    steady, *loaded = phases
    memory = max(one.memory for one in loaded) - steady.memory
    lag = max(percentile(one.lags_s, 99) for one in loaded) / max(percentile(steady.lags_s, 99), 1e-9)
    rows: list[Row] = []
    for limit, most, measured in (
        ("memory above steady, MiB", RSS_LIMIT / MIB, memory / MIB),
        ("loop lag p99 / steady", LAG_LIMIT, lag),
    ):
        rows.append(
            {
                "limit": limit,
                "at most": most,
                "measured": measured,
                "verdict": "holds" if measured <= most else "BROKEN",
            }
        )
    return rows, any(row["verdict"] == "BROKEN" for row in rows)
