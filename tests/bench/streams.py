"""Streams: pieces per second from a worker to its clients, and the shape of one answer. Both parties are the real SDK, in this process.

Throughput: a worker says one stream after the other in each of its sessions, as fast as its clients read.

    rolled up   as the SDK does it by itself: pieces gather for 40 ms or 4,096 characters
    single      without the roll-up: a message for each piece
    messages    the baseline: a plain message of the same text for each piece

The shape: an answer of many tokens, said at the rate of a language model. Its cost is counted by the node itself (its metrics): appends in
the store, acks of the client as frames, and acks that were steps of their own in the store. The same answer as plain messages stands
beside.
"""

import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import trio
from prometheus_client.parser import text_string_to_metric_families

from signald.sdk.streams_core import ROLL_UP_S
from signald.sdk.trio import Client, WorkerSession, open_client, open_worker
from tests.bench.errors import BenchError
from tests.bench.report import Row, median
from tests.bench.servers import Cores, Server, running

What = Literal["rolled up", "single", "messages"]
WHATS: tuple[What, ...] = ("messages", "single", "rolled up")
"""The baseline first: the others are shown as shares of it."""

TOKEN = "token "
PIECES = 1500
"""Pieces of one stream of the throughput: the client keeps the texts, and copies one whenever it grows."""

WINDOW = {"messages": 500, "single": 500, "rolled up": 50_000}
"""Pieces that a session's client may be behind: half of the messages that signald lets wait (1,000), beyond which it would push back and
pauses would be measured; rolled up, a third of their bytes (1 MiB)."""
WINDOW_S = 0.001
"""How often a worker looks whether its window has room again."""

STALLED_S = 30.0
"""When nothing has come for so long, it is an error."""

RATE = 150.0
"""Tokens per second of an answer."""

TOKENS_FOR_AN_APPEND = 5
APPENDS_FOR_AN_ACK = 4
"""The limits: an append takes at least so many tokens, and an ack at least so many appends."""

SETTLE_S = 1.0
"""After the end of an answer: the last ack has been stored by then."""


class Meter:
    """What the clients have."""

    def __init__(self) -> None:
        self.messages = 0
        self.characters = 0
        self.had: Counter[str] = Counter()
        """Characters, by session."""
        self.ended = trio.Event()
        """Set at the end of the first stream, or by the last message of an answer in plain messages."""

    def take(self, session: str, text: str) -> None:
        """Count a message."""
        self.messages += 1
        self.characters += len(text)
        self.had[session] += len(text)

    @property
    def pieces(self) -> float:
        """Pieces as the worker has written them, however they came."""
        return self.characters / len(TOKEN)


Say = Callable[[WorkerSession, What, Meter], Awaitable[None]]


class Counters(NamedTuple):
    """What a node has counted, and the CPU time that it and its store have used (seconds)."""

    messages: int
    appends: int
    ack_frames: int
    ack_operations: int
    node_s: float
    redis_s: float

    @classmethod
    def read(cls, server: Server) -> "Counters":
        """Ask the node for its metrics."""
        assert server.http is not None
        with urllib.request.urlopen(f"http://{server.http[0]}:{server.http[1]}/metrics", timeout=5.0) as answer:
            text = answer.read().decode()
        values = {
            (sample.name, *sample.labels.values()): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in ("signald_messages_total", "signald_store_operations_total", "signald_acks_total")
        }
        return cls(
            values["signald_messages_total", "accepted"],
            values["signald_store_operations_total", "append"],
            values["signald_acks_total", "client"],
            values["signald_store_operations_total", "ack"],
            *server.cpu_s(),
        )

    def since(self, before: "Counters") -> "Counters":
        """Return what was counted between."""
        return Counters(
            self.messages - before.messages,
            self.appends - before.appends,
            self.ack_frames - before.ack_frames,
            self.ack_operations - before.ack_operations,
            self.node_s - before.node_s,
            self.redis_s - before.redis_s,
        )


# --- the parties --------------------------------------------------------------------------------------------------


async def say_on(session: WorkerSession, what: What, meter: Meter) -> None:
    """Say one stream after the other, or messages, until cancelled."""
    said, window = 0, WINDOW[what]

    async def wait_for_room() -> None:
        nonlocal said
        said += 1
        while said - meter.had[session.session] // len(TOKEN) > window:  # noqa: ASYNC110 - an event would cost each message
            await trio.sleep(WINDOW_S)

    while what == "messages":
        await wait_for_room()
        await session.send(TOKEN)
    while True:
        async with session.stream(roll_up_s=0.0 if what == "single" else ROLL_UP_S) as out:
            for _ in range(PIECES):
                await wait_for_room()
                await out.write(TOKEN)


def answer_of(tokens: int, rate: float) -> Say:
    """Return what says an answer of `tokens` at `rate` per second once, as one stream or in plain messages."""

    async def say(session: WorkerSession, what: What, _meter: Meter) -> None:
        begin = trio.current_time()
        if what == "messages":
            for number in range(tokens):
                await trio.sleep_until(begin + number / rate)
                await session.send(TOKEN)
        else:
            async with session.stream() as out:
                for number in range(tokens):
                    await trio.sleep_until(begin + number / rate)
                    await out.write(TOKEN)
        await trio.sleep_forever()

    return say


async def listen(client: Client, meter: Meter, until: int) -> None:
    """Read and ack what comes. The meter's end is set when `until` characters have come, or when a stream has ended."""
    async for message in client:
        meter.take(client.session, message.data)
        if message.end or meter.characters >= until:
            meter.ended.set()


@asynccontextmanager
async def talking(
    server: Server, what: What, sessions: int, say: Say, until: int = 1 << 62
) -> AsyncIterator[tuple[Meter, trio.Event]]:
    """Connect a worker and its clients, all paired; yield what the clients count, and the event at which the worker begins."""
    url = f"ws://{server.address[0]}:{server.address[1]}"
    meter, begin, paired = Meter(), trio.Event(), trio.Semaphore(0)

    async def handler(session: WorkerSession) -> None:
        paired.release()
        await begin.wait()
        await say(session, what, meter)

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        async with open_worker(url, handler, instance_id="bench", capacity=sessions):
            task_status.started()
            await trio.sleep_forever()

    async def follow(task_status: trio.TaskStatus[None]) -> None:
        async with open_client(url) as client:
            task_status.started()
            await listen(client, meter, until)
            raise BenchError("a session has ended")

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            for _ in range(sessions):
                await nursery.start(follow)
            with trio.fail_after(30):
                for _ in range(sessions):
                    await paired.acquire()
            yield meter, begin
            nursery.cancel_scope.cancel(reason="measured")
    except* BenchError as errors:
        raise BenchError("; ".join(str(error) for error in errors.exceptions)) from errors


# --- throughput ---------------------------------------------------------------------------------------------------


async def _slices(server: Server, what: What, sessions: int, seconds: float, slices: int) -> Row:
    rates, messages, node_ms, redis_ms, shares = [], [], [], [], []
    async with talking(server, what, sessions, say_on) as (meter, begin):
        begin.set()
        for number in range(slices + 1):
            pieces, came, cpu_s, own_s = meter.pieces, meter.messages, server.cpu_s(), time.process_time()
            since = time.perf_counter()
            await trio.sleep(seconds)
            with trio.move_on_after(STALLED_S):
                while meter.pieces == pieces:  # noqa: ASYNC110 - on a machine that has no time for this, a slice is longer
                    await trio.sleep(WINDOW_S)
            spent = time.perf_counter() - since
            server.child.check()
            pieces = meter.pieces - pieces
            if not pieces:
                raise server.child.failure(f"carried nothing within {spent:.1f} s")
            if number:  # the first one warms up
                node_s, redis_s = (now - then for now, then in zip(server.cpu_s(), cpu_s, strict=True))
                rates.append(pieces / spent)
                messages.append((meter.messages - came) / spent)
                node_ms.append(node_s * 1e6 / pieces)
                redis_ms.append(redis_s * 1e6 / pieces)
                shares.append((node_s / spent, (time.process_time() - own_s) / spent, redis_s / spent))
    return {
        "what": what,
        "sessions": sessions,
        "pieces/s": median(rates),
        "messages/s": median(messages),
        "node ms/1k pieces": median(node_ms),
        "redis ms/1k pieces": median(redis_ms) if server.redis else None,
        "server cpu": median([share[0] for share in shares]),
        "generator cpu": median([share[1] for share in shares]),
        "redis cpu": median([share[2] for share in shares]) if server.redis else None,
    }


def throughput(name: str, cores: Cores, sessions: int, seconds: float, slices: int) -> list[Row]:
    """Measure all three on one of SIGNALD, directly after each other."""
    rows: list[Row] = []
    for what in WHATS:
        with running(name, cores) as server:
            row = trio.run(_slices, server, what, sessions, seconds, slices)
        base = (rows[0] if rows else row)["pieces/s"]
        rows.append({"server": name, **row, "x messages": float(row["pieces/s"] or 0) / float(base or 1)})
    return rows


# --- the shape ----------------------------------------------------------------------------------------------------


async def _answer(server: Server, what: What, tokens: int, rate: float) -> Counters:
    say, characters = answer_of(tokens, rate), tokens * len(TOKEN)
    until = characters if what == "messages" else 1 << 62
    async with talking(server, what, 1, say, until) as (meter, begin):
        before = Counters.read(server)
        begin.set()
        with trio.fail_after(30 + 2 * tokens / rate):
            await meter.ended.wait()
        await trio.sleep(SETTLE_S)
        if meter.characters != characters:
            raise BenchError(f"{meter.characters} of {characters} characters have come")
        return Counters.read(server).since(before)


def answer(name: str, cores: Cores, what: What, tokens: int, rate: float) -> Counters:
    """Have one answer said on one of SIGNALD; return what the node has counted for it."""
    with running(name, cores) as server:
        return trio.run(_answer, server, what, tokens, rate)


def answer_row(name: str, what: What, tokens: int, seen: Counters) -> Row:
    """Show what an answer has cost."""
    return {
        "server": name,
        "answer as": what,
        "tokens": tokens,
        "messages": seen.messages,
        "appends": seen.appends,
        "ack frames": seen.ack_frames,
        "ack operations": seen.ack_operations,
        "node ms": seen.node_s * 1000,
        "redis ms": seen.redis_s * 1000,
    }


def judge(tokens: int, seen: Counters) -> tuple[list[Row], bool]:
    """Return a row for each limit of an answer, and whether one is broken. An answer without any append or ack is none."""
    figures = (
        ("tokens for an append", tokens, seen.appends, TOKENS_FOR_AN_APPEND),
        ("appends for an ack frame", seen.appends, seen.ack_frames, APPENDS_FOR_AN_ACK),
        ("appends for an ack operation", seen.appends, seen.ack_operations, APPENDS_FOR_AN_ACK),
    )
    rows: list[Row] = []
    broken = False
    for limit, many, few, least in figures:
        holds = few > 0 and many >= least * few
        broken = broken or not holds
        rows.append(
            {
                "limit": limit,
                "at least": least,
                "measured": many / few if few else None,
                "verdict": "holds" if holds else "BROKEN",
            }
        )
    return rows, broken


def shape(name: str, cores: Cores, tokens: int, rate: float) -> tuple[list[Row], list[Row], bool]:
    """Measure an answer in both ways; return the rows of both, the rows of the limits, and whether one is broken."""
    rows = [answer_row(name, "messages", tokens, answer(name, cores, "messages", tokens, rate))]
    seen = answer(name, cores, "rolled up", tokens, rate)
    rows.append(answer_row(name, "rolled up", tokens, seen))
    return rows, *judge(tokens, seen)
