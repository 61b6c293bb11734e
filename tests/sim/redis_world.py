"""The store of a simulation on a real redis-server: the scripts that production runs, under the mock clock.

A batch is sent over a connection that blocks, so no other task runs and no virtual time passes until it is answered. The rules in
Python get the same batch beside it: the results and the nodes woken must be equal for each batch. So the rows that the
checkers look at are right, and a run on Redis has the digest of the run in memory. Every fault of the store lies in front of this, and is
carried over: an outage and lost answers in `execute`, an empty store as FLUSHALL, a failover as DUMP and RESTORE.

Nothing here expires by real time within a run: the least TTL of a key is an hour.
"""

import atexit
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import cache
from typing import Any

from signald.errors import StoreUnavailable
from signald.store.base import Op, Result, Wake
from signald.store.redis_codecs import CODECS, read, scripts
from signald.store.redis_connection import ErrorReply, pack
from signald.store.redis_keys import DEFAULT, REGISTRY_TAG, ROOM_TAG
from signald.store.registry.ops import MendLine, Nodes, Workers
from signald.store.rows import Wakes
from signald.store.rules import apply
from tests.sim.redis_server import Blocking, RedisServer
from tests.sim.stores import Copy, SimWorld

_CHANNEL = DEFAULT.channels.encode()
_THROUGH = _CHANNEL + b"\0through"
"""Published after each batch: what the batch has published stands before it."""
_STAYS = (
    b":nodes",
    b":leases",
    b":misc",
    b":receipts",
    b":receipt_times",
    b":trail",
    b":trails",
    b":trail_bytes",
    b":revoked",
    b":revoked_ends",
    b":revoked_numbers",
    b":agenda",
    b":agenda_order",
    b":event_queues",
    b":jobs",
    b":pieces",
    b":events",
)
_AGENDA, _EVENT_QUEUES = f"{DEFAULT.key(REGISTRY_TAG)}:agenda", f"{DEFAULT.key(REGISTRY_TAG)}:event_queues"

"""A history stays as well, where `keep_history` of session.lua has put its mark in front."""


def _is_room(key: bytes) -> bool:
    """Tell whether a key is one of a room."""
    return key.startswith(DEFAULT.key(ROOM_TAG)[:-1].encode())


class RedisWorld(SimWorld):
    """See the module. `differs` hears of every answer or wake-up in which the two are not equal."""

    def __init__(self, *, started_ms: int, server: "Server", differs: Callable[[str], None]) -> None:
        super().__init__(started_ms=started_ms)
        self._server = server
        self._differs = differs
        server.empty()

    def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out `ops` on the server, and by the rules; wake as the server does."""
        if self.outage == "down":
            raise StoreUnavailable("the store is down")
        results, woken = self._server.execute(ops)
        wakes = Wakes()
        for place, (op, result) in enumerate(zip(ops, results, strict=True)):
            expected = apply(op, self.rows, wakes)
            if isinstance(op, MendLine):
                results[place] = (
                    expected  # rows in memory are one set and need no mending: how far it has come is no rule
                )
            elif _in_order(expected) != result:
                self._differs(f"{op}: Redis says {result}, and the rules say {expected}")
        if Counter(woken) != Counter(wakes.sent):
            self._differs(f"{list(ops)}: Redis wakes {woken}, and the rules wake {wakes.sent}")
        # The two may tell nodes in another order, which means nothing: a node hears in its own inbox. That of the rules makes the digest.
        for node, wake in wakes.sent:
            for inbox in self._inboxes.get(node, ()):
                inbox.put(wake)
        if self.outage == "answers lost":
            raise StoreUnavailable("the answer was lost")
        return results

    def left(self) -> list[str]:
        """See `SimWorld.left`: keys, but those of nodes and of what outlives a session. These are compared with the rows."""
        names, rows = self._server.names(), self.rows
        shelves = {DEFAULT.key(shelf).encode() for shelf in rows._shelves}
        queues = {DEFAULT.session_keys(session)[-1].encode() for session in rows._queues}
        items = {f"{kind}{name}".encode() for kind, of_kind in rows._items.items() for name in of_kind}
        items |= {f"o{room}".encode() for room in rows._room_owners}
        rooms = {DEFAULT.room_keys(room)[0].encode() for room in rows._rooms}
        self._compare("shelves", {name for name in names if name in shelves}, shelves)
        self._compare("rooms", {name for name in names if _is_room(name) and name.endswith(b"}")}, rooms)
        self._compare("event queues", {name for name in names if name.endswith(b":events")}, queues)
        self._compare("items of the agenda", self._server.fields(_AGENDA), items)
        self._compare(
            "event queues of the registry",
            self._server.fields(_EVENT_QUEUES),
            {name.encode() for name in rows._event_queues},
        )
        kept = shelves | rooms
        left = [key for key in names if not key.endswith(_STAYS) and key.rpartition(b"}")[0] + b"}" not in kept]
        return [f"key {key.decode()}" for key in left if not (key.endswith(b":history") and self._server.is_kept(key))]

    def _compare(self, what: str, found: set[bytes], expected: set[bytes]) -> None:
        if found != expected:
            self._differs(f"{what}: Redis has {sorted(found - expected)} besides, and lacks {sorted(expected - found)}")

    def lose_everything(self) -> None:
        """See `MemoryWorld.lose_everything`."""
        self._server.empty()
        super().lose_everything()

    def copied(self) -> Copy:
        """See `SimWorld.copied`."""
        return Copy(super().copied().rows, self._server.dump())

    def go_back(self, to: Copy) -> None:
        """See `SimWorld.go_back`."""
        super().go_back(to)
        assert isinstance(to.rest, dict)
        self._server.restore(to.rest)


def _in_order(result: Result) -> Result:
    """A result whose order means nothing in the order that Redis's is put in, which is that of the rules."""
    match result:
        case Nodes(nodes=nodes):
            return Nodes(tuple(sorted(nodes, key=lambda node: node.id)))
        case Workers(workers=workers):
            return Workers(tuple(sorted(workers, key=lambda worker: worker.id)))
        case _:
            return result


class Server:
    """A redis-server as a `RedisWorld` uses it: started once, emptied for each run."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            server = stack.enter_context(RedisServer())
            self._commands = stack.enter_context(closing(server.connect()))
            self._heard = stack.enter_context(closing(server.connect()))
            self._heard.ask("PSUBSCRIBE", _CHANNEL + b"*")
            for script in scripts(DEFAULT):
                self._commands.ask("SCRIPT", "LOAD", script.text)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close both connections and end the server."""
        self._stack.close()

    def execute(self, ops: Sequence[Op]) -> tuple[list[Result], list[tuple[str, Wake]]]:
        """Carry out a batch as one pipeline; return the results and the nodes it has woken, each `look` once."""
        packed = [CODECS[type(op)].pack(op) for op in ops]
        self._commands.send(b"".join([*packed, pack("PUBLISH", _THROUGH, b"")]))
        replies = _replies(self._commands, len(ops) + 1)[: len(ops)]
        results = [_in_order(read(op, reply)) for op, reply in zip(ops, replies, strict=True)]
        wakes = Wakes()
        while (message := self._heard.read())[2] != _THROUGH:
            wakes.tell(message[2].removeprefix(_CHANNEL).decode(), message[3])
        return results, wakes.sent

    def empty(self) -> None:
        """Hold nothing; the scripts stay."""
        self._commands.ask("FLUSHALL")

    def dump(self) -> dict[bytes, tuple[int, bytes]]:
        """Return each key: what is left of its life in ms (0: for ever), and its value."""
        return {key: (max(0, self._commands.ask("PTTL", key)), self._commands.ask("DUMP", key)) for key in self.names()}

    def names(self) -> list[bytes]:
        """Return the name of each key, in order."""
        return sorted(self._commands.ask("KEYS", "*"))

    def is_kept(self, history: bytes) -> bool:
        """Tell whether a chat history is that of an ended session, which is kept for its time."""
        return bool(self._commands.ask("LINDEX", history, 0)[:1] == b"P")

    def fields(self, key: str) -> set[bytes]:
        """Return the names of the fields of a hash."""
        return set(self._commands.ask("HKEYS", key))

    def restore(self, keys: dict[bytes, tuple[int, bytes]]) -> None:
        """Hold these keys, and nothing else."""
        self.empty()
        for key, (left_ms, value) in keys.items():
            self._commands.ask("RESTORE", key, left_ms, value)


def _replies(connection: Blocking, count: int) -> list[Any]:
    replies = [connection.read() for _ in range(count)]
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise reply
    return replies


@cache
def server_of_this_process() -> Server:
    """Return the server of this process; the first call starts it, and it ends with the process."""
    server = Server()
    atexit.register(server.close)
    return server
