"""The production store: Redis (or Valkey), alone, behind Sentinel, or as a Cluster.

Every operation is one Lua script over one hash slot (redis_scripts.py). `execute` sends its whole batch as one pipeline. What
blocks (name resolution, TCP, TLS, login, loading scripts) is redis-py's, in one thread that lives as long as the store; the
exchange of a batch then runs in the event loop on the same socket, parsed by hiredis: two thread wake-ups for each batch
cost more than the batch, when batches are small. An exchange that is cut short drops its connections, so no reply is ever
read by another batch. The backplane is pub/sub in a second thread. It is at most once, like every pub/sub, which is all a
wake-up needs.

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
from typing import Any, Literal, TypeVar

import outcome
import trio

from signald.errors import StoreError, StoreMisused, StoreUnavailable
from signald.store.base import WAKE_ALL, WAKE_REALTIME, KeepAlive, Op, Result, Store, Wake
from signald.store.redis_connection import (
    VERSION_MIN,
    ErrorReply,
    Link,
    Reply,
    Router,
    Target,
    pack,
    parse_url,
    refusal,
)
from signald.store.redis_scripts import CODECS, REGISTRY_TAG, SCRIPTS, TOUCH_REPLIES, Check, channel, tag_of, touch

log = logging.getLogger(__name__)
T = TypeVar("T")

AckLevel = Literal["process", "replica", "disk"]

ACL = (
    "resetkeys ~signald:* resetchannels &signald:* -@all +evalsha +script|load "
    "+hget +hmget +hset +hsetnx +hdel +hkeys +hgetall +hexists +hincrby +exists +del +pexpire +pttl "
    "+xadd +xdel +xtrim +xrange +rpush +lpop +lrange +zadd +zrem +zrange +zrangebyscore +zrangebylex +zlexcount +zscore "
    "+publish +subscribe +ping +info +time +select +wait +waitaof +cluster|slots"
)
"""What signald's user must be allowed: `ACL SETUSER signald on ><password> ` and this. `+config|get` only for `ack` disk before
Redis 7.2; leave out what an older server does not know."""

SEND_OPS = 32
"""Commands are sent in lots of this many, so that Redis works on the first while the next is packed."""

LOAD_TRIES = 4
CLOCK_EVERY_S = 10.0
SAFETY_MIN_MS = 3_600_000
TOUCH_LOT = 16
_TIME = pack("TIME")
LISTEN_PING_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
CLOSE_GRACE_S = 1.0
WAKES_MAX = 10_000
WAKE_BYTES_MAX = 8 * 1024 * 1024
WAKE_LOT_MAX = 512


# --- threads ------------------------------------------------------------------------------------------------------


class _Thread:
    """A thread that trio can wait for. It ends when its `body` does, which `stop` is to bring about."""

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

    def settle(self, result: "outcome.Outcome[object]") -> None:
        if not self.abandoned:
            self.abandoned = True
            trio.lowlevel.reschedule(self.task, result)

    def abandon(self, _: object) -> trio.lowlevel.Abort:
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED


class _Lane:
    """One thread that makes calls one after the other. Cheaper than a thread pool: one queue put, one wake-up.

    The queue is as long as the tasks waiting here are many: each has one job in it at most. A job whose task has gone is
    left out when its turn comes.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = _Thread(name, self._work)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.abandoned:
                self._thread.soon(job.settle, outcome.capture(job.call))

    async def run(self, call: Callable[[], T]) -> T:
        """Make `call` and return what it does. When cancelled, the call may still happen, and nobody waits for it."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        job = _Job(call, trio.lowlevel.current_task())
        self._queue.put(job)
        result: T = await trio.lowlevel.wait_task_rescheduled(job.abandon)
        return result

    async def close(self, within_s: float) -> None:
        """Make no more calls and let the thread end."""
        self._closed = True
        self._queue.put(None)
        await self._thread.join(within_s)


# --- the exchange with the servers (in the lane's thread) ---------------------------------------------------------


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


class _Work:
    """What one batch asks of one server."""

    __slots__ = ("link", "ops", "places")

    def __init__(self, link: Link, ops: list[Op], places: list[int]) -> None:
        self.link = link
        self.ops = ops
        self.places = places
        """Where in the batch each answer belongs."""


class _Servers:
    """The blocking half of the store."""

    def __init__(self, target: Target, ack: AckLevel, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._router = Router(target, connect_timeout_s, command_timeout_s)
        self._ack = ack
        self._wait: bytes = b""
        self._wait_ms = max(1, int(command_timeout_s * 1000 / 2))
        self._command_timeout_s = command_timeout_s
        self._clustered = target.kind == "cluster"
        self._clock_due = 0.0
        self._touches: dict[str, int] = {}
        """Sessions and their next safety TTL: at most those this node keeps alive."""
        self._started = False
        self.clock_offset_ms = 0.0
        """The server's time minus that of `time.monotonic`."""

    def cut(self) -> None:
        """From any thread: fail whatever is under way."""
        self._router.cut()

    def close(self) -> None:
        """Drop every connection."""
        self._router.forget()

    def start(self) -> None:
        """Connect to every primary and see that it is fit. Raises StoreMisused if it is not."""
        self.check()
        self._started = True

    def check(self) -> None:
        """Prove that every primary answers, and that the registry's can be written."""
        try:
            for link in self._router.links():
                self._prepare(link)
                link.ask("PING")
        except StoreError:
            self._router.forget()
            raise
        self.execute([Check(int(time.time() * 1000))])

    def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out a batch. Any failure drops all connections: no reply of one batch is ever read by another."""
        try:
            return self._execute(ops)
        except BaseException:
            self._router.forget()
            raise

    def _execute(self, ops: Sequence[Op]) -> list[Result]:
        results: list[Any] = [None] * len(ops)
        works = self._divide(ops, self._prepared_link) or []
        for work in works:
            self._send(work.link, work.ops)
        for work in works:
            self._unpack(work, self._receive(work), results)
        return results

    def _unpack(self, work: _Work, replies: list[Reply], results: list[Any]) -> None:
        for place, op, reply in zip(work.places, work.ops, replies, strict=True):
            results[place] = CODECS[type(op)].unpack(op, reply)
            if type(op) is KeepAlive:
                self._touch_soon(op)

    def _touch_soon(self, op: KeepAlive) -> None:
        left_ms = max(SAFETY_MIN_MS, 2 * int(op.until_ms - time.monotonic() * 1000 - self.clock_offset_ms))
        self._touches.update(dict.fromkeys(op.sessions, left_ms))

    async def execute_soon(self, ops: Sequence[Op]) -> list[Result]:
        """As `execute`, in the event loop; but only as far as it goes without what blocks: connecting, loading scripts.

        Returns the results of the first so many of `ops`. The rest is to be asked again: it is safe to repeat.
        """
        works = self._divide(ops, self._router.ready_link)
        if works is None:
            return []
        results: list[Any] = [None] * len(ops)
        done, late = 0, False
        try:
            with trio.move_on_after(self._command_timeout_s) as patience:
                done = await self._exchange(works, results)
            late = patience.cancelled_caught
        except BaseException:
            self._router.forget()
            raise
        if late:
            self._router.forget()
            raise StoreUnavailable(f"Redis has not answered for {self._command_timeout_s} s")
        return results[:done]

    async def _exchange(self, works: list[_Work], results: list[Any]) -> int:
        """Ask every server; returns how many of the results, from the first, are there."""
        done = len(results)
        before = time.monotonic()
        ask_time = before >= self._clock_due
        touched = [self._touch_lot(work.link) for work in works]
        for work, (touches, _) in zip(works, touched, strict=True):
            parts = [CODECS[type(op)].pack(op) for op in work.ops]
            await work.link.send_soon(b"".join([*parts, self._wait, _TIME if ask_time else b"", *touches]))
        for work, (_, more) in zip(works, touched, strict=True):
            replies = await work.link.read_soon(len(work.ops))
            written = (await work.link.read_soon(1))[0] if self._wait else None
            if ask_time:
                self._set_clock((await work.link.read_soon(1))[0], before)
            for reply in await work.link.read_soon(more):
                if isinstance(reply, ErrorReply):
                    raise refusal(reply)
            missing = self._judge(replies)
            if missing is not None:
                done = min(done, work.places[missing])
                replies, work.ops, work.places = replies[:missing], work.ops[:missing], work.places[:missing]
            self._judge_ack(written)
            self._unpack(work, replies, results)
        return done

    def _touch_lot(self, link: Link) -> tuple[list[bytes], int]:
        """Commands that renew the safety TTLs of some sessions that were kept alive, and how many replies they have.

        Thousands may be kept alive at once and have an hour for this: each batch takes a few along. If it fails, the next
        KeepAlive brings them again.
        """
        lot: list[bytes] = []
        while self._touches and len(lot) < TOUCH_LOT:
            session, left_ms = self._touches.popitem()
            if self._router.ready_link(session) is link:
                lot.append(touch(session, left_ms))
        return lot, len(lot) * TOUCH_REPLIES

    def _divide(self, ops: Sequence[Op], link_of: Callable[[str], Link | None]) -> list[_Work] | None:
        """Who is to be asked what; None when a link is not to be had."""
        if not self._clustered:
            link = link_of(REGISTRY_TAG)
            return None if link is None else [_Work(link, list(ops), list(range(len(ops))))]
        works: dict[Link, _Work] = {}
        for place, op in enumerate(ops):
            link = link_of(tag_of(op))
            if link is None:
                return None
            work = works.get(link) or works.setdefault(link, _Work(link, [], []))
            work.ops.append(op)
            work.places.append(place)
        return list(works.values())

    def _prepared_link(self, tag: str) -> Link:
        return self._prepare(self._router.link(tag))

    def _send(self, link: Link, ops: Sequence[Op]) -> None:
        rest = iter(ops)
        while lot := list(islice(rest, SEND_OPS)):
            link.send(b"".join([CODECS[type(op)].pack(op) for op in lot]))
        if self._wait:
            link.send(self._wait)

    def _receive(self, work: _Work) -> list[Reply]:
        link, ops = work.link, work.ops
        replies: list[Reply] = []
        for _ in range(LOAD_TRIES):
            replies += link.read(len(ops) - len(replies))
            written = link.read(1)[0] if self._wait else None
            missing = self._judge(replies)
            if missing is None:
                self._judge_ack(written)
                self._keep_clock(link)
                return replies
            # The server has lost its scripts (restart, SCRIPT FLUSH). What was answered before stands; the rest is
            # asked again, and being safe to repeat, answers as it would have.
            self._load(link)
            del replies[missing:]
            self._send(link, ops[missing:])
        raise StoreUnavailable("Redis forgets its scripts as soon as they are loaded")

    def _judge(self, replies: list[Reply]) -> int | None:
        """Return where the first script was missing; raise for any other error."""
        missing = None
        for place, reply in enumerate(replies):
            if isinstance(reply, ErrorReply):
                if reply.code != "NOSCRIPT":
                    raise refusal(reply)
                missing = place if missing is None else missing
        return missing

    def _judge_ack(self, reply: Reply) -> None:
        if reply is None:
            return
        if isinstance(reply, ErrorReply):
            raise refusal(reply)
        if (reply[0] if isinstance(reply, list) else reply) < 1:
            raise StoreUnavailable(
                "Redis: no replica has confirmed the batch" if self._ack == "replica" else "not on disk yet"
            )

    def _load(self, link: Link) -> None:
        for script in SCRIPTS:
            link.ask("SCRIPT", "LOAD", script.text)

    def _keep_clock(self, link: Link) -> None:
        before = time.monotonic()
        if before >= self._clock_due:
            self._set_clock(link.ask("TIME"), before)

    def _set_clock(self, reply: Reply, before: float) -> None:
        if isinstance(reply, ErrorReply):
            raise refusal(reply)
        seconds, micros = reply
        after = time.monotonic()
        self.clock_offset_ms = int(seconds) * 1000 + int(micros) / 1000 - (before + after) * 500
        self._clock_due = after + CLOCK_EVERY_S

    def _prepare(self, link: Link) -> Link:
        """See once in each connection's life that its server is fit, and has the scripts."""
        if link.prepared:
            return link
        info = _info(link)
        if info.get("loading", "0") != "0":
            raise StoreUnavailable("Redis is loading its data")
        if info.get("role") != "master":
            raise StoreUnavailable(f"Redis at {link.address} is a replica")
        fault = self._fault(link, info)
        if fault:
            # Found at start, nothing is lost by refusing. Later, with sessions alive, waiting for the operator is kinder.
            raise StoreUnavailable(fault) if self._started else StoreMisused(fault)
        self._load(link)
        self._clock_due = 0.0
        self._keep_clock(link)
        link.prepared = True
        return link

    def _fault(self, link: Link, info: dict[str, str]) -> str | None:
        version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
        if version < VERSION_MIN:
            return f"Redis {info.get('redis_version')} is too old: install 6.2 or newer"
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return (
                f"Redis would throw sessions away when its memory is full (maxmemory-policy is {policy}): "
                "set maxmemory-policy to noeviction"
            )
        if self._ack == "replica":
            self._wait = pack("WAIT", 1, self._wait_ms)
        elif self._ack == "disk":
            if info.get("aof_enabled") != "1":
                return 'store.ack = "disk" needs an append-only file: set appendonly to yes in Redis'
            if version >= (7, 2):
                self._wait = pack("WAITAOF", 1, 0, self._wait_ms)
            elif link.ask("CONFIG", "GET", "appendfsync")[1] != b"always":
                return 'store.ack = "disk" needs Redis 7.2 or newer, or appendfsync always'
        return None


def _info(link: Link) -> dict[str, str]:
    text: str = link.ask("INFO").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


# --- the backplane ------------------------------------------------------------------------------------------------


class _Listener:
    """Subscribes to this node's channel in a thread of its own, again and again, and hands wake-ups over in batches.

    What nobody has taken yet is bounded in number and in bytes. At either bound all of it becomes one `*`.
    """

    def __init__(self, target: Target, node: str, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._channel = channel(node)
        self._router = Router(target, connect_timeout_s, command_timeout_s)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[Wake] = []
        self._bytes = 0
        self._news = trio.Event()
        self._fault: StoreMisused | None = None
        self._ended_within_s = connect_timeout_s + command_timeout_s + CLOSE_GRACE_S
        self._thread = _Thread("signald-wakes", self._listen)
        self._thread.start()

    async def take(self) -> list[Wake]:
        """Wait for wake-ups and return all there are, each `look at` once. Raises StoreMisused."""
        wakes: list[Wake] = []
        while not wakes:
            await self._news.wait()
            if self._fault:
                raise self._fault
            with self._lock:
                wakes, self._waiting, self._bytes = self._waiting, [], 0
                self._news = trio.Event()
        looks: set[Wake] = set()
        taken = []
        for wake in wakes:
            if wake[:1] != WAKE_REALTIME:
                if wake in looks:
                    continue
                looks.add(wake)
            taken.append(wake)
        return taken

    async def close(self) -> None:
        """End the thread and its connection."""
        self._closing.set()
        self._router.cut()
        await self._thread.join(self._ended_within_s)

    def _listen(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._closing.is_set():
            try:
                link = self._router.link(REGISTRY_TAG)
                link.ask("SUBSCRIBE", self._channel)
                wait_s = RETRY_FIRST_S
                self._put([WAKE_ALL])
                for wakes in self._read(link):
                    self._put(wakes)
            except StoreMisused as error:
                self._fault = error
                self._thread.soon(self._news_now)
                return
            except StoreUnavailable as error:
                if wait_s == RETRY_FIRST_S and not self._closing.is_set():
                    log.warning("backplane away: %s", error)
            finally:
                self._router.forget()
            self._closing.wait(wait_s)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _read(self, link: Link) -> Iterator[list[Wake]]:
        asked = False
        while True:
            # A server that hangs says nothing; so does a quiet one. A ping tells them apart.
            if not link.readable(LISTEN_PING_S):
                if asked:
                    raise StoreUnavailable("Redis: the backplane does not answer")
                link.send(pack("PING"))
                asked = True
                continue
            asked = False
            wakes: list[Wake] = []
            while len(wakes) < WAKE_LOT_MAX and (not wakes or link.readable(0)):
                (reply,) = link.read(1)
                if isinstance(reply, ErrorReply):
                    raise refusal(reply)
                if reply[0] != b"message":
                    break
                wakes.append(reply[2])
            if wakes:
                yield wakes

    def _put(self, wakes: list[Wake]) -> None:
        with self._lock:
            first = not self._waiting
            self._waiting += wakes
            self._bytes += sum(map(len, wakes))
            if len(self._waiting) > WAKES_MAX or self._bytes > WAKE_BYTES_MAX:
                self._waiting, self._bytes = [WAKE_ALL], 1
        if first:
            self._thread.soon(self._news_now)

    def _news_now(self) -> None:
        self._news.set()


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

    def __repr__(self) -> str:
        return f"<RedisStore {self._target.kind} {', '.join(map(str, self._target.addresses))}>"

    def now_ms(self) -> int:
        """As `Store.now_ms`: the server's clock, as measured within the last batches."""
        return math.floor(time.monotonic() * 1000 + self._servers.clock_offset_ms)

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """As `Store.execute`. When cancelled, the batch may still happen: it is safe to repeat."""
        if not ops:
            await trio.lowlevel.checkpoint()
            return []
        async with self._turn:
            results = await self._servers.execute_soon(ops)
            done = len(results)
            if done < len(ops):
                results += await self._lane.run(lambda: self._servers.execute(ops[done:]))
        return results

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
        """As `Store.check`."""
        async with self._turn:
            await self._lane.run(self._servers.check)

    async def start(self) -> None:
        """Connect. Raises StoreMisused, StoreUnavailable."""
        await self._lane.run(self._servers.start)

    async def close(self) -> None:
        """End both threads and every connection, also when Redis hangs."""
        self._servers.cut()
        for listener in tuple(self._listeners):
            await listener.close()
        await self._lane.close(sum(self._timeouts) + CLOSE_GRACE_S)
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
        command_timeout_s: how long the server may leave us without any answer.

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
