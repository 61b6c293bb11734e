"""A room of 10,000 records, and members that come late, one after the other, beside sessions that talk and a member that goes on drawing.

The picture of each join is judged, and two figures of the node beside what they were in the same run before the first join:

    picture     the records of the answer are those of the room at the position that it names, by a fold of what was drawn
    memory      the greatest resident size, files that it maps left out, above that of the steady state: 16 MiB at most
    relay       the p99 of the way of the sessions' messages while a member joins, from the read that brings one until it is stored and
                with its receiver: 1.5 times that of the steady state at most. The node measures it. A round trip, which is shown too,
                waits for the load generator as well, whose core has Redis on it where there are two

The steady state is the same sessions, the member that draws, and one that has joined a small room before. A joiner reads raw bytes, and
takes them apart when all is measured: a decoder beside the load generator would be measured too.
"""

import os
import random
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import msgspec
import trio

from signald.sdk.trio import Room, open_client
from tests.bench import loop_lag
from tests.bench.blobs import MIB, Phase, Talk, talking, watched
from tests.bench.errors import BenchError
from tests.bench.report import Row, median, percentile
from tests.bench.servers import Cores, Server, running
from tests.bench.sockets import Address, frame, frame_span, upgrade_request

RSS_LIMIT = 16 * MIB
RELAY_LIMIT = 1.5
"""Of the issue: the memory above the steady state, and the way of a message in multiples of the steady one."""

ROOM, SMALL = "canvas:large", "canvas:small"
AT_ONCE = 50
"""Records of one publication while the room is filled: some 30 KiB of at most 64."""
DRAW_EVERY_S = 0.05
"""A publication of the member that draws: the 20 a second of a canvas of fifty people."""
SETTLED_S = 2.0
"""What is written down at the end of a phase holds up the sessions: their next round trips are of neither phase."""
READ = 262_144
STALLED_S = 120.0

Records = dict[str, dict[str, Any]]


class Load(NamedTuple):
    """What is done."""

    records: int
    record_bytes: int
    sessions: int
    joins: int
    steady_s: float


@attrs.define
class Answer:
    """What one member got that joined, and how long that took."""

    frames: list[bytes] = attrs.field(factory=list)
    took_s: float = 0.0

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.frames))

    def read(self) -> tuple[int, Records]:
        """Return the position of the answer, and the records that it has."""
        pages = [msgspec.json.decode(one) for one in self.frames]
        places = {(page["position"], page["epoch"]) for page in pages}
        if len(places) != 1:
            raise BenchError(f"the pages of one answer stand at {places}")
        records: Records = {}
        for page in pages:
            twice = records.keys() & page.get("records", {}).keys()
            if twice:
                raise BenchError(f"records stand on several pages: {sorted(twice)[:5]}")
            records |= page.get("records", {})
        return pages[0]["position"], records


# --- the member that draws ----------------------------------------------------------------------------------------


class Drawer:
    """The only member that publishes: its n-th publication stands at the position n."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rng = random.Random(14)
        self._said: list[tuple[str, Records]] = []
        self.room: Room

    def _record(self, number: int) -> dict[str, Any]:
        filler = "x" * max(0, self._load.record_bytes - 40)
        return {"x": self._rng.randrange(1000), "y": number, "text": filler}

    async def fill(self) -> None:
        """Make all records."""
        for start in range(0, self._load.records, AT_ONCE):
            end = min(start + AT_ONCE, self._load.records)
            put = {f"shape:{number}": self._record(number) for number in range(start, end)}
            self._said.append(("put", put))
            await self.room.change(put=put)
        await self.room.flush()

    async def draw(self) -> None:
        """Move shapes, as a canvas does, until cancelled."""
        while True:
            await trio.sleep(DRAW_EVERY_S)
            patch = {f"shape:{self._rng.randrange(self._load.records)}": {"x": self._rng.randrange(1000)}}
            self._said.append(("patch", patch))
            await self.room.change(patch=patch)

    def records_at(self, position: int) -> Records:
        """Return the records as they are behind a publication."""
        records: Records = {}
        for kind, change in self._said[:position]:
            for name, properties in change.items():
                records[name] = {**records[name], **properties} if kind == "patch" else properties
        return records


# --- members that join --------------------------------------------------------------------------------------------


async def _frames(stream: trio.SocketStream) -> AsyncGenerator[bytes]:
    """Yield the payloads of a connection's frames, the answer to the upgrade left out."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        buffer += await stream.receive_some(READ)
    buffer = buffer.partition(b"\r\n\r\n")[2]
    while True:
        position = 0
        while (span := frame_span(buffer, position)) is not None:
            start, position = span
            yield buffer[start:position]
        data = await stream.receive_some(READ)
        if not data:
            raise BenchError("the node has closed before all was told")
        buffer = buffer[position:] + data


async def join(address: Address, room: str) -> Answer:
    """Come into `room` as a new client that wants its records, and leave when all is told."""
    answer = Answer()
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(upgrade_request("/v1/client", "signald.v1") + frame(b'{"type":"connect","pair":false}'))
        began = time.perf_counter()
        async with aclosing(_frames(stream)) as frames:
            async for payload in frames:
                if payload.startswith(b'{"type":"session_started"'):
                    began = time.perf_counter()
                    await stream.send_all(frame(b'{"type":"join","room":"%b","state":true}' % room.encode()))
                elif payload.startswith(b'{"type":"joined"'):
                    answer.frames.append(payload)
                    if b'"more":true' not in payload:
                        break
        answer.took_s = time.perf_counter() - began
        await stream.send_all(frame(b'{"type":"bye"}'))
    return answer


@asynccontextmanager
async def _drawing(server: Server, drawer: Drawer) -> AsyncIterator[None]:
    url = f"ws://{server.address[0]}:{server.address[1]}"
    async with open_client(url, pair=False) as client, client.room(ROOM) as drawer.room, client.room(SMALL) as small:
        await small.put("shape", {"x": 1})
        await small.flush()
        await drawer.fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drawer.draw)
            yield
            nursery.cancel_scope.cancel(reason="measured")


async def _run(server: Server, load: Load, drawer: Drawer, lag_file: Path) -> tuple[list[Phase], list[Answer]]:
    steady, joining = Phase("steady"), Phase("joins")
    answers: list[Answer] = []
    talk: Talk
    async with talking(server, load.sessions) as talk, _drawing(server, drawer):
        await join(server.address, SMALL)
        await trio.sleep(1.0)
        async with watched(server, talk, steady, lag_file):
            await trio.sleep(load.steady_s)
        await trio.sleep(SETTLED_S)
        with trio.fail_after(STALLED_S):
            async with watched(server, talk, joining, lag_file):
                for _ in range(load.joins):
                    answers.append(await join(server.address, ROOM))  # noqa: PERF401 - one after the other
    joining.took_s = [one.took_s for one in answers]
    return [steady, joining], answers


def measure(name: str, cores: Cores, load: Load) -> tuple[list[Phase], list[Answer], Drawer]:
    """Run one node, and return what was seen: steady, joins, and what each that joined got."""
    drawer = Drawer(load)
    with tempfile.TemporaryDirectory(prefix="signald-bench-joiner-") as folder:
        lag_file = Path(folder) / "lag"
        os.environ[loop_lag.VARIABLE] = str(lag_file)
        try:
            with running(name, cores, entry=loop_lag.ENTRY_POINT) as server:
                phases, answers = trio.run(_run, server, load, drawer, lag_file)
                return phases, answers, drawer
        finally:
            del os.environ[loop_lag.VARIABLE]


def rows_of(name: str, phases: Sequence[Phase], answers: Sequence[Answer]) -> list[Row]:
    """Return a row for each phase."""
    return [
        {
            "server": name,
            "phase": one.name,
            "each, s, median": median(one.took_s) if one.took_s else None,
            "MiB of an answer": median([answer.size for answer in answers]) / MIB if one.took_s else None,
            "memory MiB above steady": (one.memory - phases[0].memory) / MIB,
            "loop lag p99 ms": percentile(one.lags_s, 99) * 1000,
            "longest ms": max(one.lags_s, default=0.0) * 1000,
            "round trip p50 ms": percentile(one.round_trips_s, 50) * 1000,
            "p99": percentile(one.round_trips_s, 99) * 1000,
            "relay p50 ms": percentile(one.relayed_s, 50) * 1000,
            "relay p99": percentile(one.relayed_s, 99) * 1000,
            "round trips": len(one.round_trips_s),
            "node core": one.cpu_s / one.lasted_s,
        }
        for one in phases
    ]


def wrong(answers: Sequence[Answer], truth: Callable[[int], Records]) -> int:
    """Return how many answers are not the room at their position."""
    return sum(truth(position) != records for position, records in (one.read() for one in answers))


def judge(phases: Sequence[Phase], wrong_pictures: int) -> tuple[list[Row], bool]:
    """Return a row for each limit, and whether one is broken."""
    steady, joining = phases
    memory = joining.memory - steady.memory
    relay = percentile(joining.relayed_s, 99) / max(percentile(steady.relayed_s, 99), 1e-9)
    rows: list[Row] = []
    for limit, most, measured in (
        ("answers that are not one picture", 0.0, float(wrong_pictures)),
        ("memory above steady, MiB", RSS_LIMIT / MIB, memory / MIB),
        ("relay p99 / steady", RELAY_LIMIT, relay),
    ):
        verdict = "holds" if measured <= most else "BROKEN"
        rows.append({"limit": limit, "at most": most, "measured": measured, "verdict": verdict})
    return rows, any(row["verdict"] == "BROKEN" for row in rows)
