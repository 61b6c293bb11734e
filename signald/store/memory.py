"""The store in memory: for tests, simulations and a first look at signald. It dies with its process.

Nodes of one process share a `MemoryWorld`. Time is the Trio clock's, so under a `MockClock` everything is repeatable:
there is no thread, no randomness, and no order that depends on a hash.
"""

import heapq
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from math import inf
from typing import Literal

import trio

from signald.core.head import Party
from signald.core.log import Entry
from signald.core.wants import path
from signald.errors import StoreMisused, StoreUnavailable
from signald.store.base import WAKE_ALL, Op, Result, Wake
from signald.store.memory_agenda import MemoryAgenda
from signald.store.memory_events import MemoryEvents
from signald.store.memory_jobs import MemoryJobs
from signald.store.memory_rooms import MemoryRooms
from signald.store.memory_shelves import MemoryShelves
from signald.store.registry.ops import NodeInfo, Revocation
from signald.store.registry.records import Place, TrailCount, Worker
from signald.store.rows import Wakes
from signald.store.rules import apply
from signald.store.session.records import Past, Record, Way
from signald.store.session.streams.records import Stream

WAKES_MAX = 1024
"""How many wake-ups a node may leave unread. Beyond it they are dropped, and `*` stands for all of them."""

Outage = Literal["", "down", "answers lost"]


class MemoryRows(MemoryJobs, MemoryAgenda, MemoryEvents, MemoryShelves, MemoryRooms):
    """How things are kept here: in dicts, and sorted lists where an order is asked for."""

    def __init__(self) -> None:
        MemoryJobs.__init__(self)
        MemoryEvents.__init__(self)
        self._sessions: dict[str, Record] = {}
        self._entries: dict[tuple[str, Way], deque[Entry]] = {}
        self._history: dict[str, dict[int, tuple[Party, bytes]]] = {}
        self._streams: dict[str, dict[tuple[str, str], Stream]] = {}
        self._pasts: dict[str, Past] = {}
        """Of ended sessions whose history is kept."""
        self._nodes: dict[str, NodeInfo] = {}
        self._workers: dict[str, Worker] = {}
        self._places: dict[str, Place] = {}
        self._line: list[tuple[int, str]] = []
        self._lines: dict[str, list[tuple[int, str]]] = {}
        """The waiting line again, by want: see `core.wants`."""
        self._wanted: Counter[str] = Counter()
        """Node → how many waiting sessions want what is reached over it."""
        self._places_of: dict[str, dict[str, Place]] = {}
        self._lives: dict[str, int] = {}
        self._holds: dict[str, tuple[tuple[str, ...], int]] = {}
        """Session → its holders, when the count is to be looked at."""
        self._held_by: dict[str, list[str]] = {}
        """Holder → its sessions, in order of their ids."""
        self._facts: dict[str, bytes] = {}
        self._revoked: dict[str, Revocation] = {}
        """In order of number."""
        self._receipts: dict[str, tuple[int, bytes]] = {}
        self._trails: dict[str, tuple[int, deque[bytes]]] = {}
        """Session → how long it is kept, its steps; in the order of the last step."""
        self._trail_counts: dict[str, TrailCount] = {}

    def session(self, session: str) -> Record | None:
        return self._sessions.get(session)

    def save_session(self, record: Record) -> None:
        self._sessions[record.session] = record

    def drop_session(self, session: str, past: Past | None = None) -> None:
        self._sessions.pop(session, None)
        self._entries.pop((session, "up"), None)
        self._entries.pop((session, "down"), None)
        self._streams.pop(session, None)
        if past is None:
            self._history.pop(session, None)
        else:
            self._pasts[session] = past

    def past(self, session: str) -> Past | None:
        return self._pasts.get(session)

    def drop_past(self, session: str) -> None:
        if self._pasts.pop(session, None) is not None:
            self._history.pop(session, None)

    def pasts_over(self, until_ms: int, limit: int) -> list[str]:
        over = ((past.until_ms, past.session) for past in self._pasts.values() if past.until_ms <= until_ms)
        return [session for _, session in heapq.nsmallest(limit, over)]

    def put_entries(self, session: str, way: Way, entries: Iterable[Entry]) -> None:
        # What is read from a store has no mark: every twin answers alike.
        plain = (Entry(each.seq, each.body, each.history) if each.mark else each for each in entries)
        self._entries.setdefault((session, way), deque()).extend(plain)

    def trim_entries(self, session: str, way: Way, last: int) -> None:
        log = self._entries.get((session, way))
        while log and log[0].seq <= last:
            log.popleft()

    def read_entries(self, session: str, way: Way, after: int, limit: int) -> list[Entry]:
        log = self._entries.get((session, way), ())
        return list(islice((entry for entry in log if entry.seq > after), limit))

    def put_history(self, session: str, number: int, party: Party, body: bytes) -> None:
        self._history.setdefault(session, {})[number] = (party, body)

    def drop_history(self, session: str, number: int) -> bytes:
        return self._history[session].pop(number)[1]

    def history(self, session: str) -> list[tuple[Party, bytes]]:
        return list(self._history.get(session, {}).values())

    def stream(self, session: str, way: Way, name: str) -> Stream | None:
        return self._streams.get(session, {}).get((way, name))

    def streams(self, session: str) -> list[Stream]:
        return sorted(self._streams.get(session, {}).values(), key=lambda one: one.number)

    def save_stream(self, session: str, stream: Stream) -> None:
        self._streams.setdefault(session, {})[stream.way, stream.name] = stream

    def drop_stream(self, session: str, stream: Stream) -> None:
        self._streams.get(session, {}).pop((stream.way, stream.name), None)

    def nodes(self) -> list[NodeInfo]:
        return [self._nodes[node] for node in sorted(self._nodes)]

    def save_node(self, node: NodeInfo) -> None:
        self._nodes[node.id] = node

    def drop_node(self, node: str) -> None:
        self._nodes.pop(node, None)

    def worker(self, worker: str) -> Worker | None:
        return self._workers.get(worker)

    def workers(self) -> list[Worker]:
        return [self._workers[worker] for worker in sorted(self._workers)]

    def save_worker(self, worker: Worker) -> None:
        self._workers[worker.id] = worker

    def drop_worker(self, worker: str) -> None:
        self._workers.pop(worker, None)

    def place(self, session: str) -> Place | None:
        return self._places.get(session)

    def save_place(self, place: Place) -> None:
        self.drop_place(place.session)
        self._places[place.session] = place
        if place.worker:
            self._places_of.setdefault(place.worker, {})[place.session] = place
        else:
            insort(self._line, (place.order_ms, place.session))
            nodes = path(place.want)
            self._wanted.update(nodes)
            insort(self._lines.setdefault(nodes[-1], []), (place.order_ms, place.session))

    def drop_place(self, session: str) -> None:
        place = self._places.pop(session, None)
        if place is None:
            return
        if place.worker:
            places = self._places_of[place.worker]
            del places[session]
            if not places:
                del self._places_of[place.worker]
        else:
            del self._line[bisect_left(self._line, (place.order_ms, session))]
            nodes = path(place.want)
            line = self._lines[nodes[-1]]
            del line[bisect_left(line, (place.order_ms, session))]
            if not line:
                del self._lines[nodes[-1]]
            for node in nodes:
                self._wanted[node] -= 1
                if not self._wanted[node]:
                    del self._wanted[node]

    def waiting(self, limit: int) -> list[Place]:
        return [self._places[session] for _, session in self._line[:limit]]

    def is_wanted(self, node: str) -> bool:
        return node in self._wanted

    def line(self, node: str, limit: int) -> list[Place]:
        return [self._places[session] for _, session in self._lines.get(node, ())[:limit]]

    def strays(self, _limit: int) -> list[str]:
        return []  # no other release shares this memory

    def enter(self, session: str) -> None:
        pass

    def sessions_of(self, worker: str) -> tuple[str, ...]:
        return tuple(sorted(self._places_of.get(worker, ()))) if worker else ()

    def assigned(self, worker: str) -> int:
        return len(self._places_of.get(worker, ()))

    def renew(self, session: str, until_ms: int) -> None:
        self._lives[session] = max(until_ms, self._lives.get(session, until_ms))

    def life(self, session: str) -> int | None:
        return self._lives.get(session)

    def lives(self) -> int:
        return len(self._lives)

    def hold(self, session: str, holder: str, due_ms: int) -> None:
        holders, _ = self._holds.get(session, ((), 0))
        if holder not in holders:
            holders = (*holders, holder)
            insort(self._held_by.setdefault(holder, []), session)
        self._holds[session] = holders, due_ms

    def postpone_hold(self, session: str, due_ms: int) -> None:
        self._holds[session] = self._holds[session][0], due_ms

    def drop_hold(self, session: str) -> None:
        for holder in self._holds.pop(session, ((), 0))[0]:
            sessions = self._held_by[holder]
            del sessions[bisect_left(sessions, session)]
            if not sessions:
                del self._held_by[holder]

    def is_held(self, session: str) -> bool:
        return session in self._holds

    def held_by(self, holder: str) -> int:
        return len(self._held_by.get(holder, ()))

    def sessions_held(self, holder: str, after: str, limit: int) -> list[str]:
        sessions = self._held_by.get(holder, [])
        first = bisect_right(sessions, after)
        return sessions[first : first + limit]

    def holds_due(self, now_ms: int, limit: int) -> list[str]:
        due = ((due_ms, session) for session, (_, due_ms) in self._holds.items() if due_ms <= now_ms)
        return [session for _, session in heapq.nsmallest(limit, due)]

    def drop_life(self, session: str) -> None:
        self._lives.pop(session, None)

    def overdue(self, now_ms: int, limit: int) -> list[str]:
        ended = ((until_ms, session) for session, until_ms in self._lives.items() if until_ms <= now_ms)
        return [session for _, session in heapq.nsmallest(limit, ended)]

    def fact(self, name: str) -> bytes | None:
        return self._facts.get(name)

    def save_fact(self, name: str, value: bytes) -> None:
        self._facts[name] = value

    def revocation(self, principal: str) -> Revocation | None:
        return self._revoked.get(principal)

    def save_revocation(self, revocation: Revocation) -> None:
        self._revoked.pop(revocation.principal, None)
        self._revoked[revocation.principal] = revocation

    def drop_revocation(self, principal: str) -> None:
        self._revoked.pop(principal, None)

    def revocations(self) -> int:
        return len(self._revoked)

    def last_revocation(self) -> int:
        return next(reversed(self._revoked.values())).number if self._revoked else 0

    def revocations_after(self, number: int, limit: int) -> list[Revocation]:
        return list(islice((one for one in self._revoked.values() if one.number > number), limit))

    def revocations_over(self, now_ms: int, limit: int) -> list[str]:
        over = ((one.until_ms, one.principal) for one in self._revoked.values() if one.until_ms <= now_ms)
        return [principal for _, principal in heapq.nsmallest(limit, over)]

    def receipt(self, node: str) -> bytes | None:
        kept = self._receipts.get(node)
        return None if kept is None else kept[1]

    def save_receipt(self, node: str, body: bytes, now_ms: int, keep: int) -> None:
        self._receipts[node] = (now_ms, body)
        while len(self._receipts) > keep:
            del self._receipts[min(self._receipts, key=lambda name: (self._receipts[name][0], name))]

    def receipts(self) -> list[tuple[str, int]]:
        listed = [(node, at_ms) for node, (at_ms, _) in self._receipts.items()]
        return sorted(listed, key=lambda one: (-one[1], one[0]))

    def add_steps(self, session: str, steps: Iterable[bytes], keep: int, now_ms: int, until_ms: int) -> None:
        while self._trails and next(iter(self._trails.values()))[0] <= now_ms:
            del self._trails[next(iter(self._trails))]
        _, kept = self._trails.pop(session, (0, deque[bytes]()))
        self._trails[session] = until_ms, deque([*kept, *steps], keep)

    def drop_steps(self, session: str) -> None:
        self._trails.pop(session, None)

    def steps(self, session: str) -> list[bytes]:
        return list(self._trails[session][1]) if session in self._trails else []

    def trail(self, session: str) -> TrailCount | None:
        return self._trail_counts.get(session)

    def save_trail(self, trail: TrailCount) -> None:
        self._trail_counts[trail.session] = trail

    def drop_trail(self, session: str) -> None:
        self._trail_counts.pop(session, None)

    def oldest_trails(self, limit: int) -> list[TrailCount]:
        return heapq.nsmallest(limit, self._trail_counts.values(), key=lambda one: (one.until_ms, one.session))

    def trails_bytes(self) -> int:
        return sum(one.bytes for one in self._trail_counts.values())

    def is_empty_of(self, session: str) -> bool:
        """Tell whether nothing of `session` is left but what outlives it, for tests of `no-ghost`."""
        return not (
            session in self._sessions
            or (session, "up") in self._entries
            or (session, "down") in self._entries
            or (session in self._history and session not in self._pasts)
            or session in self._streams
            or session in self._places
            or session in self._lives
            or session in self._holds
        )


class _Inbox:
    """The wake-ups of one node, bounded; what does not fit is answered for by `*`."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Wake](WAKES_MAX)
        self._missed = True

    def put(self, wake: Wake) -> None:
        try:
            self._send.send_nowait(wake)
        except trio.WouldBlock:
            self._missed = True

    def close(self) -> None:
        self._send.close()

    def __aiter__(self) -> AsyncIterator[list[Wake]]:
        return self

    async def __anext__(self) -> list[Wake]:
        """Return what has come. `*` goes first when anything may have been missed before."""
        batch: list[Wake] = []
        if self._missed:
            await trio.lowlevel.checkpoint()
        else:
            try:
                batch.append(await self._receive.receive())
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        while True:
            try:
                batch.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        if self._missed:
            self._missed = False
            batch.insert(0, WAKE_ALL)
        return batch


class MemoryWorld:
    """What several nodes of one process share.

    `started_ms` is the time at which the world's clock starts, the wall clock's unless it is given. A test may take the
    world `down`, let it carry operations out and lose their answers (`outage`), or lose everything (`lose_everything`).
    """

    def __init__(self, *, started_ms: int | None = None) -> None:
        self.rows = MemoryRows()
        self.outage: Outage = ""
        self.lives = 1
        """See `Store.lives`; a test that puts other rows in place of these adds one."""
        self._inboxes: dict[str, list[_Inbox]] = {}
        self._started_ms = started_ms
        self._started_at = -inf

    def now_ms(self) -> int:
        """Return the time by the Trio clock, as milliseconds since 1970. The first call starts the clock."""
        if self._started_at == -inf:
            self._started_at = trio.current_time()
            if self._started_ms is None:
                self._started_ms = time.time_ns() // 1_000_000
        assert self._started_ms is not None
        return self._started_ms + int((trio.current_time() - self._started_at) * 1000)

    def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out `ops` at once, and wake the nodes that they concern."""
        if self.outage == "down":
            raise StoreUnavailable("the store is down")
        wakes = Wakes()
        results = [apply(op, self.rows, wakes) for op in ops]
        for node, wake in wakes.sent:
            for inbox in self._inboxes.get(node, ()):
                inbox.put(wake)
        if self.outage == "answers lost":
            raise StoreUnavailable("the answer was lost")
        return results

    def lose_everything(self) -> None:
        """Come back empty, as a store without persistence does after a restart."""
        self.rows = MemoryRows()
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(WAKE_ALL)

    def join(self, node: str) -> _Inbox:
        """Open the inbox of `node`."""
        inbox = _Inbox()
        self._inboxes.setdefault(node, []).append(inbox)
        return inbox

    def leave(self, node: str, inbox: _Inbox) -> None:
        """Close an inbox of `node`."""
        inbox.close()
        self._inboxes[node].remove(inbox)
        if not self._inboxes[node]:
            del self._inboxes[node]


class MemoryStore:
    """A `MemoryWorld` as one node sees it."""

    def __init__(self, world: MemoryWorld, inbox: _Inbox) -> None:
        self.world = world
        self._inbox = inbox

    @property
    def lives(self) -> int:
        """See `Store.lives`."""
        return self.world.lives

    def now_ms(self) -> int:
        """See `Store.now_ms`."""
        return self.world.now_ms()

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`. A cancelled batch has not happened."""
        await trio.lowlevel.checkpoint()
        return self.world.execute(ops)

    def wakes(self) -> AsyncIterator[list[Wake]]:
        """See `Store.wakes`."""
        return aiter(self._inbox)

    async def check(self) -> None:
        """See `Store.check`."""
        await self.execute(())


@asynccontextmanager
async def open_memory(url: str, node: str, *, world: MemoryWorld | None = None) -> AsyncIterator[MemoryStore]:
    """Open `world` for `node`; or, without one, a new world, which no other node shares.

    Raises:
        StoreMisused: `url` is not one of a memory store.
    """
    if url != "memory:":
        raise StoreMisused("a store in memory is written memory: with nothing after the colon")
    if world is None:
        world = MemoryWorld()
    inbox = world.join(node)
    try:
        yield MemoryStore(world, inbox)
    finally:
        world.leave(node, inbox)
