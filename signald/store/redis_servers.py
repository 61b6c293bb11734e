"""The Redis servers of one store, all of them primaries: prepared for use, and asked batch by batch.

A server is prepared once for each connection: its version and configuration are checked, and it gets the scripts. A batch is divided among
the servers, sent to each as one pipeline, and its replies are read in the same order. The pipeline ends with the wait that
`store.ack` needs, the question for the time, and the renewal of some safety TTLs.
"""

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import trio

from signald.errors import StoreMisused, StoreUnavailable
from signald.store.base import Op, Result, RoomOp, SessionOp, ShelfOp
from signald.store.damage import Unreadable
from signald.store.redis_codecs import CODECS, read, scripts, tag_of, unreadable
from signald.store.redis_connection import ErrorReply, RedisLink, Reply, pack, refusal
from signald.store.redis_keys import PACKING, REGISTRY_TAG, Keyspace
from signald.store.redis_members import Members
from signald.store.redis_router import Router
from signald.store.redis_scheme import scheme_fault
from signald.store.redis_url import Address
from signald.store.registry.ops import KeepAlive
from signald.store.session.head import SAFETY_MIN_MS
from signald.store.session.packing import TOUCH_REPLIES, touch

AckLevel = Literal["process", "replica", "disk"]

VERSION_MIN = (6, 2)
WAITAOF_VERSION = (7, 2)
SEND_OPS = 64
"""Commands are sent in lots of this many, so that Redis works on the first while the next is packed."""

CLOCK_EVERY_S = 10.0
TOUCH_LOT = 32
_TIME = pack("TIME")


class _Work(NamedTuple):
    """What one batch asks of one server."""

    link: RedisLink
    places: Sequence[int]
    """Which operations of the batch, in ascending order."""
    touches: Sequence[tuple[str, int]]


class Servers:
    """The connections, and what goes over them.

    `prepare` blocks and runs in the lane's thread; `exchange` runs in the event loop, and never while the lane is busy.
    """

    def __init__(
        self, members: Members, space: Keyspace, ack: AckLevel, connect_timeout_s: float, command_timeout_s: float
    ) -> None:
        self._members = members
        self._space = space
        self._router = Router(members, connect_timeout_s, command_timeout_s)
        self._connect_timeout_s = connect_timeout_s
        self._ack = ack
        self._wait = b""
        self._wait_ms = max(1, int(command_timeout_s * 1000 / 2))
        self._command_timeout_s = command_timeout_s
        self._clock_due = 0.0
        self._touches: dict[str, int] = {}
        """Sessions and their next safety TTL, first come first served: at most those this node keeps alive."""
        self._lives_met: set[str] = set()
        """The lives (`run_id`) of the primaries that answered last."""
        self.lives = 1
        """See `Store.lives`. A primary that joins a cluster counts as well: it may be a replica that was promoted."""
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
            links = self._router.links()
            for link in links:
                if not link.prepared:
                    self._prepare(link)
            self._note_lives({link.life for link in links if link.life})
        except StoreUnavailable:
            self._router.forget()
            fault = None if self.started else scheme_fault(self._members.target, self._connect_timeout_s)
            if fault is not None:
                raise StoreMisused(fault) from None
            raise
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
        PACKING.set(self._space)  # in the context of this task; another store's task has its own
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
                    if reply.tells_damage and isinstance(op, SessionOp | ShelfOp | RoomOp):
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
        """Return what each server is asked; None when a server is not prepared."""
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
            # A session that waits already keeps its place, so each session has its turn however often it is kept alive.
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

    def _prepare(self, link: RedisLink) -> None:
        text: str = link.ask("INFO").decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if info.get("loading", "0") != "0":
            raise StoreUnavailable("Redis is loading its data")
        if fault := self._other_form(link, info):
            raise StoreMisused(fault)
        if info.get("role") != "master":
            raise StoreUnavailable(f"Redis at {link.address} is a replica")
        link.life = info.get("run_id", "")
        fault = self._fault(link, info)
        if fault:
            # Found at start, nothing is lost by refusing. Later, with sessions alive, waiting for the operator is kinder.
            raise StoreUnavailable(fault) if self.started else StoreMisused(fault)
        if self._ack == "replica":
            self._wait = pack("WAIT", 1, self._wait_ms)
        elif self._ack == "disk" and _version(info) >= WAITAOF_VERSION:
            self._wait = pack("WAITAOF", 1, 0, self._wait_ms)
        link.ask_all([pack("SCRIPT", "LOAD", script.text) for script in scripts(self._space)])
        before = time.monotonic()
        self._set_clock(link.ask("TIME"), before)
        link.prepared = True

    def _other_form(self, link: RedisLink, info: dict[str, str]) -> str | None:
        """Say which form of store.url a server needs, when it is not the one there is."""
        mode, kind = info.get("redis_mode"), self._members.target.kind
        if mode == "sentinel":
            return f"the server at {link.address} is a Sentinel: write redis+sentinel://HOST,.../SERVICE in store.url"
        if mode == "cluster" and kind == "single" and len({one[2][1] for one in link.ask("CLUSTER", "SLOTS")}) > 1:
            return f"Redis at {link.address} is one of a Cluster: write redis+cluster://HOST,... in store.url"
        return None

    def _note_lives(self, met: set[str]) -> None:
        """Count it when a life answers that did not before. Servers that do not tell (`run_id`) count as one."""
        if not met <= self._lives_met:
            self.lives += bool(self._lives_met)
        self._lives_met = met

    def _fault(self, link: RedisLink, info: dict[str, str]) -> str | None:
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
