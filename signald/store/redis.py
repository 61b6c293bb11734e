"""The production store: Redis (or Valkey), alone, behind Sentinel, or as a Cluster.

Every operation is one Lua script over one hash slot (`packing.py` of each aggregate). `execute` sends its whole batch as one
pipeline. redis-py does what blocks (name resolution, TCP, TLS, login, loading scripts), in one thread that lives as long as the
store. The exchange of a batch then runs in the event loop on the same socket, parsed by hiredis, because two thread wake-ups cost more than
a small batch. An exchange that is cut short drops its connections, so no batch reads the reply of another. The backplane is
pub/sub on a connection of its own, read in the event loop as well. It delivers at most once, which is all a wake-up needs.

This file has the backplane and the store. redis_servers.py has the exchange of a batch, redis_lane.py the thread.

What Redis must be: 6.2 or newer, a primary, `maxmemory-policy noeviction`. The least an ACL user needs is `ACL` below.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager

import trio

from signald.errors import StoreUnavailable
from signald.store.base import WAKE_ALL, WAKE_REALTIME, Op, Result, Store, Wake
from signald.store.redis_connection import ErrorReply, RedisLink, Reply, pack, refusal
from signald.store.redis_keys import DEFAULT_PREFIX, REGISTRY_TAG, Keyspace
from signald.store.redis_lane import Lane, Repeater
from signald.store.redis_members import Members
from signald.store.redis_reseal import Keys, Resealing
from signald.store.redis_router import Router
from signald.store.redis_servers import AckLevel, Servers
from signald.store.redis_url import Target, parse_url
from signald.store.registry.packing import Check
from signald.store.resealing import Page
from signald.store.seals import Seals

log = logging.getLogger(__name__)

ACL = (
    "resetkeys ~signald:* resetchannels &signald:* -@all +evalsha +script|load "
    "+hget +hmget +hset +hsetnx +hdel +hkeys +hgetall +hexists +hincrby +exists +del +pexpire +pttl "
    "+xadd +xdel +xtrim +xrange +rpush +ltrim +lpop +lrange +zadd +zrem +zrange +zrangebyscore +zrangebylex +zlexcount +zscore "
    "+publish +subscribe +ping +info +time +select +wait +waitaof +cluster|slots"
)
"""What signald's user must be allowed: `ACL SETUSER signald on ><password> ` and this, with another `store.key_prefix` in the
place of both `signald:`. `+config|get` only for `ack` disk before
Redis 7.2; leave out what an older server does not know."""

ACL_RESEAL = "+lset +scan +hscan"
"""What `signald ctl reseal` needs beside it, while it runs: a login that may SCAN sees the keys of other programs."""

EXCHANGES_MAX = 4
CLOCK_SLACK_MS = 1000
LISTEN_PING_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
CLOSE_GRACE_S = 1.0
WAKE_LOT_MAX = 512

REFRESH_S = 15.0
"""How often Sentinel or the Cluster is asked for its servers when nothing has failed: more often than a rollout goes from one server
to the next."""


# --- the backplane ------------------------------------------------------------------------------------------------


class _Listener:
    """Subscribes to this node's channel, again and again, and hears wake-ups in the event loop, many at a time.

    Nothing is kept here: a wake-up that is not taken stays in the connection, and a server that has to keep too much of it ends the
    connection, which is answered for by `*` as every new subscription is.
    """

    def __init__(self, members: Members, channel: str, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._channel = channel
        self._router = Router(members, connect_timeout_s, command_timeout_s)
        self._command_timeout_s = command_timeout_s
        self._ended_within_s = connect_timeout_s + command_timeout_s + CLOSE_GRACE_S
        self._lane = Lane("signald-wakes")
        self._link: RedisLink | None = None
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

    def renew(self) -> None:
        """Subscribe again, with what the URL says now."""
        self._router.cut_links()

    async def close(self) -> None:
        """End the thread and the connection, also when the server hangs."""
        self._router.cut()
        await self._lane.close(self._ended_within_s)
        self._router.forget()

    def _subscribe(self) -> RedisLink:
        link = self._router.link(REGISTRY_TAG)
        link.ask("SUBSCRIBE", self._channel)
        return link

    async def _hear(self, link: RedisLink) -> list[Wake]:
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


class RedisStore:
    """See the module; made by `open_redis`."""

    def __init__(
        self,
        target: Target,
        node: str,
        prefix: str,
        ack: AckLevel,
        connect_timeout_s: float,
        command_timeout_s: float,
        seals: Seals,
    ) -> None:
        self.node = node
        self.seals = seals
        self._members = Members(target)
        self._space = Keyspace(prefix, target.db, seals)
        self._timeouts = (connect_timeout_s, command_timeout_s)
        self._servers = Servers(self._members, self._space, ack, connect_timeout_s, command_timeout_s)
        self._scout = Router(self._members, connect_timeout_s, command_timeout_s)
        self._refreshing: Repeater | None = None
        self._lane = Lane("signald-store")
        self._turn = _Turn()
        """The loop and the thread use the same connections, one after the other."""
        self._listeners: set[_Listener] = set()
        self._told_ms = 0

    def __repr__(self) -> str:
        target = self._members.target
        return f"<RedisStore {target.kind} {', '.join(map(str, target.addresses))}>"

    @property
    def lives(self) -> int:
        """As `Store.lives`: by the `run_id` of each primary, which INFO tells."""
        return self._servers.lives

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
        listener = _Listener(self._members, self._space.channel(self.node), *self._timeouts)
        self._listeners.add(listener)
        try:
            while True:
                yield await listener.take()
        finally:
            self._listeners.discard(listener)
            await listener.close()

    async def reseal(self) -> AsyncGenerator[Page, None]:
        """As `Resealable.reseal`. Raises StoreMisused where the login may not SCAN."""
        keys, lives = Keys(self._members, self._space, *self._timeouts), self.lives
        try:
            async with aclosing(Resealing(self._space, keys, self.execute).pages()) as pages:
                async for page in pages:
                    if self.lives != lives:
                        raise StoreUnavailable("another server answers than the one whose keys were named")
                    yield page
        finally:
            await keys.close()

    async def check(self) -> None:
        """As `Store.check`: every primary is connected, and the registry's can be written."""
        async with self._turn:
            await self._lane.run(self._servers.prepare)
        await self.execute([Check(self.now_ms())])

    async def start(self) -> None:
        """Connect. Raises StoreMisused, StoreUnavailable."""
        await self.check()
        self._servers.started = True
        if self._members.target.kind != "single":
            self._refreshing = Repeater("signald-members", self._scout.refresh, REFRESH_S)

    def renew(self, url: str) -> None:
        """Use the login, addresses and TLS options of `url` from now on; what is under way is sent again.

        Raises StoreMisused, and changes nothing, when it is no URL or that of another store.
        """
        self._members.renew(parse_url(url))
        for listener in tuple(self._listeners):
            listener.renew()

    async def close(self) -> None:
        """End the threads and every connection, also when Redis hangs."""
        self._servers.cut()
        self._scout.cut()
        if self._refreshing is not None:
            await self._refreshing.close(sum(self._timeouts) + CLOSE_GRACE_S)
        for listener in tuple(self._listeners):
            await listener.close()
        await self._lane.close(sum(self._timeouts) + CLOSE_GRACE_S)
        # An exchange in flight has seen its connection end, and releases its turn.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_GRACE_S):
            async with self._turn:
                pass
        self._servers.close()


@asynccontextmanager
async def open_redis(
    url: str,
    node: str,
    *,
    prefix: str = DEFAULT_PREFIX,
    ack: AckLevel = "process",
    connect_timeout_s: float = 1.0,
    command_timeout_s: float = 2.0,
    seals: Seals | None = None,
) -> AsyncIterator[Store]:
    """Open the store at `url` for `node`.

    Args:
        url: one of `redis_url.FORMS`; `?ssl_ca_certs=` and the other `redis_url.OPTIONS` may follow.
        node: the id under which this node is woken.
        prefix: what the names of all keys and channels begin with.
        ack: what the answer to a batch promises: Redis has it (`process`), a replica too (`replica`), its disk too (`disk`).
        connect_timeout_s: for TCP and TLS, each.
        command_timeout_s: how long the server may do nothing about a batch, neither take nor answer any of it.
        seals: how values are sealed; None: plain.

    Raises:
        StoreMisused: the URL, the credentials or the set-up of the server; the text says what to change.
        StoreUnavailable: no fit server can be reached.
    """
    store = RedisStore(parse_url(url), node, prefix, ack, connect_timeout_s, command_timeout_s, seals or Seals())
    try:
        await store.start()
        yield store
    finally:
        await store.close()
