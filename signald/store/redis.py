"""The production store: Redis (or Valkey), alone, behind Sentinel, or as a Cluster.

Every operation is one Lua script over one hash slot (redis_scripts.py). `execute` sends its whole batch as one pipeline. What
blocks (name resolution, TCP, TLS, login, loading scripts) is redis-py's, in one thread that lives as long as the store; the
exchange of a batch then runs in the event loop on the same socket, parsed by hiredis: two thread wake-ups for each batch
cost more than the batch, when batches are small. An exchange that is cut short drops its connections, so no reply is ever
read by another batch. The backplane is pub/sub on a connection of its own, heard in the event loop as well. It is at most
once, like every pub/sub, which is all a wake-up needs.

What Redis must be: 6.2 or newer, a primary, `maxmemory-policy noeviction`. The least an ACL user needs is `ACL` below.
"""

import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple, TypeVar

import outcome
import trio

from signald.errors import StoreMisused, StoreUnavailable
from signald.store.base import WAKE_ALL, WAKE_REALTIME, KeepAlive, Op, Result, SessionOp, Store, Wake
from signald.store.damage import Unreadable
from signald.store.redis_connection import (
    VERSION_MIN,
    Address,
    ErrorReply,
    Link,
    Reply,
    Router,
    Target,
    pack,
    parse_url,
    refusal,
)
from signald.store.redis_scripts import (
    CODECS,
    REGISTRY_TAG,
    SCRIPTS,
    TOUCH_REPLIES,
    Check,
    channel,
    read,
    tag_of,
    touch,
    unreadable,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

AckLevel = Literal["process", "replica", "disk"]

ACL = (
    "resetkeys ~signald:* resetchannels &signald:* -@all +evalsha +script|load "
    "+hget +hmget +hset +hsetnx +hdel +hkeys +hgetall +hexists +hincrby +exists +del +pexpire +pttl "
    "+xadd +xdel +xtrim +xrange +rpush +ltrim +lpop +lrange +zadd +zrem +zrange +zrangebyscore +zrangebylex +zlexcount +zscore "
    "+publish +subscribe +ping +info +time +select +wait +waitaof +cluster|slots"
)
"""What signald's user must be allowed: `ACL SETUSER signald on ><password> ` and this. `+config|get` only for `ack` disk before
Redis 7.2; leave out what an older server does not know."""

WAITAOF_VERSION = (7, 2)
SEND_OPS = 64
"""Commands are sent in lots of this many, so that Redis works on the first while the next is packed."""

EXCHANGES_MAX = 4
CLOCK_EVERY_S = 10.0
CLOCK_SLACK_MS = 1000
SAFETY_MIN_MS = 3_600_000
TOUCH_LOT = 32
_TIME = pack("TIME")
LISTEN_PING_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
CLOSE_GRACE_S = 1.0
WAKE_LOT_MAX = 512


# --- threads ------------------------------------------------------------------------------------------------------


class _Thread:
    """A thread that trio can wait for. It ends when its `body` does; to bring that about is its owner's business."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._body = body
        self._name = name
        self._ended = trio.Event()

    def start(self) -> None:
        # A daemon thread: name resolution cannot be cut short, and must not hold up the end of the process.
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._body()
        except BaseException:
            log.exception("the thread %s failed", self._name)
        finally:
            self.soon(self._ended.set)

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Call in trio's thread; nothing happens when trio has ended."""
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(call, *args)

    async def join(self, within_s: float) -> None:
        """Wait for the end, even when cancelled, but not longer than `within_s`."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + within_s) as scope:
            await self._ended.wait()
        if scope.cancelled_caught:
            log.warning("the thread %s did not end within %.1f s", self._name, within_s)


class _Job:
    """One call in the thread of a `_Lane`, and the task that waits for it."""

    __slots__ = ("abandoned", "call", "task")

    def __init__(self, call: Callable[[], object], task: trio.lowlevel.Task) -> None:
        self.call = call
        self.task = task
        self.abandoned = False

    def abandon(self, _: object) -> trio.lowlevel.Abort:
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED


class _Lane:
    """One thread that makes calls one after the other.

    The queue is as long as the tasks waiting here are many: each has one job in it at most. A job whose task has gone is
    left out when its turn comes.
    """

    def __init__(self, name: str) -> None:
        self.busy = 0
        """How many calls were begun or queued and have not ended, be somebody waiting for them or not."""
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = _Thread(name, self._work)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            result = outcome.Value(None) if job.abandoned else outcome.capture(job.call)
            self._thread.soon(self._settle, job, result)

    def _settle(self, job: _Job, result: "outcome.Outcome[object]") -> None:
        self.busy -= 1
        if not job.abandoned:
            trio.lowlevel.reschedule(job.task, result)

    async def run(self, call: Callable[[], T]) -> T:
        """Make `call` and return what it does. When cancelled, the call may still happen, and nobody waits for it."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        job = _Job(call, trio.lowlevel.current_task())
        self.busy += 1
        self._queue.put(job)
        result: T = await trio.lowlevel.wait_task_rescheduled(job.abandon)
        return result

    async def close(self, within_s: float) -> None:
        """Make no more calls and let the thread end."""
        self._closed = True
        self._queue.put(None)
        await self._thread.join(within_s)


class _Turn:
    """A lock without a checkpoint when it is free, as it is for the committer's batches, which come one by one."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


# --- the servers --------------------------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What one batch asks of one server."""

    link: Link
    places: Sequence[int]
    """Which operations of the batch, in ascending order."""
    touches: Sequence[tuple[str, int]]


class _Servers:
    """The connections, and what goes over them.

    `prepare` blocks and runs in the lane's thread; `exchange` runs in the event loop, and never while the lane is busy.
    """

    def __init__(self, target: Target, ack: AckLevel, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._router = Router(target, connect_timeout_s, command_timeout_s)
        self._ack = ack
        self._wait = b""
        self._wait_ms = max(1, int(command_timeout_s * 1000 / 2))
        self._command_timeout_s = command_timeout_s
        self._clock_due = 0.0
        self._touches: dict[str, int] = {}
        """Sessions and their next safety TTL, first come first served: at most those this node keeps alive."""
        self.started = False
        self.clock_offset_ms = 0.0
        """The server's time minus that of `time.monotonic`."""

    def cut(self) -> None:
        """From any thread: fail whatever is under way."""
        self._router.cut()

    def close(self) -> None:
        """Drop every connection."""
        self._router.forget()

    def prepare(self) -> None:
        """Connect to every primary that is not yet, and see that it is fit and has the scripts.

        Raises:
            StoreUnavailable: one cannot be reached, or is not fit any more.
            StoreMisused: the credentials are refused, or one is not fit from the start.
        """
        try:
            for link in self._router.links():
                if not link.prepared:
                    self._prepare(link)
        except BaseException:
            self._router.forget()
            raise

    async def exchange(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out a batch, as far as it goes without what blocks.

        Returns the results of the first so many of `ops`; `prepare` is to be called before the rest is asked again. Whatever
        fails or is cut short drops all connections: no reply of one batch is ever read by another.
        """
        works = self._divide(ops)
        if works is None:
            return []
        late = True
        results: list[Result] = []
        try:
            with trio.CancelScope() as patience:
                results = await self._exchange(ops, works, patience)
                late = False
        except Unreadable as error:
            self._router.forget()
            raise StoreMisused(f"Redis holds what cannot be read: {error}") from None
        except BaseException:
            self._router.forget()
            raise
        if late:
            self._router.forget()
            raise StoreUnavailable(f"Redis has not answered for {self._command_timeout_s} s")
        return results

    async def _exchange(self, ops: Sequence[Op], works: list[_Work], patience: trio.CancelScope) -> list[Result]:
        before = time.monotonic()
        ask_time = before >= self._clock_due
        for work in works:
            rest = iter(work.places)
            while lot := list(islice(rest, SEND_OPS)):
                packed = b"".join([CODECS[type(ops[place])].pack(ops[place]) for place in lot])
                await work.link.send_soon(packed, patience)
            tail = [self._wait, _TIME if ask_time else b"", *[touch(session, left) for session, left in work.touches]]
            if any(tail):
                await work.link.send_soon(b"".join(tail), patience)
        done = len(ops)
        results: list[Any] = [None] * done
        for work in works:
            replies = await work.link.read_soon(len(work.places), patience)
            if self._wait:
                self._judge_ack((await work.link.read_soon(1, patience))[0])
            if ask_time:
                self._set_clock((await work.link.read_soon(1, patience))[0], before)
            for reply in await work.link.read_soon(len(work.touches) * TOUCH_REPLIES, patience):
                if isinstance(reply, ErrorReply):
                    raise refusal(reply, work.link.address)
            for place, reply in zip(work.places, replies, strict=True):
                op = ops[place]
                if isinstance(reply, ErrorReply):
                    if reply.tells_damage and isinstance(op, SessionOp):
                        results[place] = unreadable(op)
                        continue
                    if reply.code != "NOSCRIPT":
                        raise refusal(reply, work.link.address)
                    # The server has lost its scripts (restart, SCRIPT FLUSH). What was answered before stands; the rest is
                    # asked again, and being safe to repeat, answers as it would have.
                    work.link.prepared = False
                    done = min(done, place)
                    break
                results[place] = read(op, reply)
                if type(op) is KeepAlive:
                    self._touch_soon(op)
        return results[:done]

    def _divide(self, ops: Sequence[Op]) -> list[_Work] | None:
        """Return who is asked what; None when somebody is not prepared."""
        touches = self._some_touches()
        if not self._router.clustered:
            link = self._router.ready(REGISTRY_TAG)
            return None if link is None else [_Work(link, range(len(ops)), touches)]
        works: dict[Address | None, tuple[list[int], list[tuple[str, int]]]] = {}
        for place, op in enumerate(ops):
            works.setdefault(self._router.address(tag_of(op)), ([], []))[0].append(place)
        for session, left_ms in touches:
            works.setdefault(self._router.address(session), ([], []))[1].append((session, left_ms))
        found = []
        for address, (places, some) in works.items():
            link = address and self._router.ready_at(address)
            if not link:
                return None
            found.append(_Work(link, places, some))
        return found

    def _touch_soon(self, op: KeepAlive) -> None:
        left_ms = max(SAFETY_MIN_MS, 2 * int(op.until_ms - time.monotonic() * 1000 - self.clock_offset_ms))
        for session in op.sessions:
            # Who waits already keeps its place, so that everyone's turn comes however often this is said.
            self._touches[session] = left_ms

    def _some_touches(self) -> list[tuple[str, int]]:
        """Take some of the sessions that were kept alive and whose safety TTL is to be renewed.

        Thousands may be kept alive at once and have an hour for this: each batch takes a few along. If it fails, the next
        KeepAlive brings them again.
        """
        return [(session, self._touches.pop(session)) for session in list(islice(self._touches, TOUCH_LOT))]

    def _judge_ack(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            raise refusal(reply)
        if (reply[0] if isinstance(reply, list) else reply) < 1:
            raise StoreUnavailable(f"Redis: the batch is not confirmed as store.ack = {self._ack} asks")

    def _set_clock(self, reply: Reply, before: float) -> None:
        if isinstance(reply, ErrorReply):
            raise refusal(reply)
        seconds, micros = reply
        after = time.monotonic()
        self.clock_offset_ms = int(seconds) * 1000 + int(micros) / 1000 - (before + after) * 500
        self._clock_due = after + CLOCK_EVERY_S

    def _prepare(self, link: Link) -> None:
        text: str = link.ask("INFO").decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if info.get("loading", "0") != "0":
            raise StoreUnavailable("Redis is loading its data")
        if info.get("role") != "master":
            raise StoreUnavailable(f"Redis at {link.address} is a replica")
        fault = self._fault(link, info)
        if fault:
            # Found at start, nothing is lost by refusing. Later, with sessions alive, waiting for the operator is kinder.
            raise StoreUnavailable(fault) if self.started else StoreMisused(fault)
        if self._ack == "replica":
            self._wait = pack("WAIT", 1, self._wait_ms)
        elif self._ack == "disk" and _version(info) >= WAITAOF_VERSION:
            self._wait = pack("WAITAOF", 1, 0, self._wait_ms)
        for script in SCRIPTS:
            link.ask("SCRIPT", "LOAD", script.text)
        before = time.monotonic()
        self._set_clock(link.ask("TIME"), before)
        link.prepared = True

    def _fault(self, link: Link, info: dict[str, str]) -> str | None:
        """Say why a server is not fit, and what to change."""
        version = _version(info)
        if version < VERSION_MIN:
            return f"Redis {info.get('redis_version')} is too old: install 6.2 or newer"
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return (
                f"Redis would throw sessions away when its memory is full (maxmemory-policy is {policy}): "
                "set maxmemory-policy to noeviction"
            )
        if self._ack == "disk":
            if info.get("aof_enabled") != "1":
                return 'store.ack = "disk" needs an append-only file: set appendonly to yes in Redis'
            if version < WAITAOF_VERSION and link.ask("CONFIG", "GET", "appendfsync")[1] != b"always":
                return 'store.ack = "disk" needs Redis 7.2 or newer, or appendfsync always'
        return None


def _version(info: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])


# --- the backplane ------------------------------------------------------------------------------------------------


class _Listener:
    """Subscribes to this node's channel, again and again, and hears wake-ups in the event loop, many at a time.

    Nothing is kept here: what nobody takes stays in the connection, and a server that has to keep too much of it ends the
    connection, which is answered for by `*` as every new subscription is.
    """

    def __init__(self, target: Target, node: str, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._channel = channel(node)
        self._router = Router(target, connect_timeout_s, command_timeout_s)
        self._command_timeout_s = command_timeout_s
        self._ended_within_s = connect_timeout_s + command_timeout_s + CLOSE_GRACE_S
        self._lane = _Lane("signald-wakes")
        self._link: Link | None = None
        self._asked = False
        """A ping is out: a server that hangs says nothing, and so does a quiet one."""
        self._wait_s = RETRY_FIRST_S

    async def take(self) -> list[Wake]:
        """Wait for wake-ups and return those that have come, each `look at` once. Raises StoreMisused."""
        while True:
            try:
                if self._link is None:
                    self._link = await self._lane.run(self._subscribe)
                    self._asked, self._wait_s = False, RETRY_FIRST_S
                    return [WAKE_ALL]
                wakes = await self._hear(self._link)
                if wakes:
                    return list(_once(wakes))
            except StoreUnavailable as error:
                self._link = None
                self._router.forget()
                if self._wait_s == RETRY_FIRST_S:
                    log.warning("backplane away: %s", error)
                await trio.sleep(self._wait_s)
                self._wait_s = min(self._wait_s * 2, RETRY_MAX_S)

    async def close(self) -> None:
        """End the thread and the connection, also when the server hangs."""
        self._router.cut()
        await self._lane.close(self._ended_within_s)
        self._router.forget()

    def _subscribe(self) -> Link:
        link = self._router.link(REGISTRY_TAG)
        link.ask("SUBSCRIBE", self._channel)
        return link

    async def _hear(self, link: Link) -> list[Wake]:
        replies: list[Reply] | None = None
        with trio.move_on_after(LISTEN_PING_S):
            replies = await link.hear(WAKE_LOT_MAX)
        if replies is None:
            if self._asked:
                raise StoreUnavailable("Redis: the backplane does not answer")
            self._asked = True
            with trio.move_on_after(self._command_timeout_s) as patience:
                await link.send_soon(pack("PING"), patience)
            return []
        self._asked = False
        for reply in replies:
            if isinstance(reply, ErrorReply):
                raise refusal(reply, link.address)
        return [reply[2] for reply in replies if reply[0] == b"message"]


def _once(wakes: list[Wake]) -> Iterator[Wake]:
    """Each `look at` once; realtime messages all."""
    looks: set[Wake] = set()
    for wake in wakes:
        if wake[:1] == WAKE_REALTIME:
            yield wake
        elif wake not in looks:
            looks.add(wake)
            yield wake


# --- the store ----------------------------------------------------------------------------------------------------


class RedisStore:
    """See the module; made by `open_redis`."""

    def __init__(
        self, target: Target, node: str, ack: AckLevel, connect_timeout_s: float, command_timeout_s: float
    ) -> None:
        self.node = node
        self._target = target
        self._timeouts = (connect_timeout_s, command_timeout_s)
        self._servers = _Servers(target, ack, connect_timeout_s, command_timeout_s)
        self._lane = _Lane("signald-store")
        self._turn = _Turn()
        """The loop and the thread use the same connections, one after the other."""
        self._listeners: set[_Listener] = set()
        self._told_ms = 0

    def __repr__(self) -> str:
        return f"<RedisStore {self._target.kind} {', '.join(map(str, self._target.addresses))}>"

    def now_ms(self) -> int:
        """As `Store.now_ms`: the server's clock, as measured within the last batches."""
        now_ms = math.floor(time.monotonic() * 1000 + self._servers.clock_offset_ms)
        if 0 < self._told_ms - now_ms < CLOCK_SLACK_MS:
            # Measured anew the offset wavers; that is no reason for time to run backwards.
            return self._told_ms
        self._told_ms = now_ms
        return now_ms

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """As `Store.execute`. When cancelled, the batch may still happen: it is safe to repeat."""
        if not ops:
            await trio.lowlevel.checkpoint()
            return []
        async with self._turn:
            results: list[Result] = []
            for _ in range(EXCHANGES_MAX):
                # A call whose task was cancelled may still be at it in the thread; then the next one waits behind it there.
                if not self._lane.busy:
                    results += await self._servers.exchange(ops[len(results) :])
                if len(results) == len(ops):
                    return results
                await self._lane.run(self._servers.prepare)
        raise StoreUnavailable("Redis closes connections or forgets scripts as soon as it has them")

    async def wakes(self) -> AsyncGenerator[list[Wake], None]:
        """As `Store.wakes`. Raises StoreMisused if Redis refuses the subscription."""
        listener = _Listener(self._target, self.node, *self._timeouts)
        self._listeners.add(listener)
        try:
            while True:
                yield await listener.take()
        finally:
            self._listeners.discard(listener)
            await listener.close()

    async def check(self) -> None:
        """As `Store.check`: every primary is connected, and the registry's can be written."""
        async with self._turn:
            await self._lane.run(self._servers.prepare)
        await self.execute([Check(self.now_ms())])

    async def start(self) -> None:
        """Connect. Raises StoreMisused, StoreUnavailable."""
        await self.check()
        self._servers.started = True

    async def close(self) -> None:
        """End both threads and every connection, also when Redis hangs."""
        self._servers.cut()
        for listener in tuple(self._listeners):
            await listener.close()
        await self._lane.close(sum(self._timeouts) + CLOSE_GRACE_S)
        # Who was in the middle of an exchange has seen its connection end, and lets go of it.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_GRACE_S):
            async with self._turn:
                pass
        self._servers.close()


@asynccontextmanager
async def open_redis(
    url: str, node: str, *, ack: AckLevel = "process", connect_timeout_s: float = 1.0, command_timeout_s: float = 2.0
) -> AsyncIterator[Store]:
    """Open the store at `url` for `node`.

    Args:
        url: one of `redis_connection.FORMS`; `?ssl_ca_certs=` and the other `redis_connection.OPTIONS` may follow.
        node: the id under which this node is woken.
        ack: what the answer to a batch promises: Redis has it (`process`), a replica too (`replica`), its disk too (`disk`).
        connect_timeout_s: for TCP and TLS, each.
        command_timeout_s: how long the server may do nothing about a batch, neither take nor answer any of it.

    Raises:
        StoreMisused: the URL, the credentials or the set-up of the server; the text says what to change.
        StoreUnavailable: no fit server can be reached.
    """
    store = RedisStore(parse_url(url), node, ack, connect_timeout_s, command_timeout_s)
    try:
        await store.start()
        yield store
    finally:
        await store.close()
