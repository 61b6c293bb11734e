"""The network of a simulation: byte streams that are late, cut into pieces, reset, stalled, or end in the middle of a frame."""

import random
from collections import deque
from collections.abc import Callable

import attrs
import trio

WINDOW_BYTES = 65536
"""What a sender may have under way; then its send waits, as a full socket buffer makes it wait."""


@attrs.frozen
class ResetConnection:
    """A connection is reset at a random time: in the mean `per_minute` times a minute."""

    per_minute: float


@attrs.frozen
class HalfOpenStall:
    """On a `share` of the connections, from some moment on nothing arrives any more, and nobody is told."""

    share: float
    after_s: float
    lasts_s: float


@attrs.frozen
class Delay:
    """What is written arrives up to `up_to_s` later, in order."""

    up_to_s: float


@attrs.frozen
class WriteSplit:
    """A `share` of the writes arrives in pieces."""

    share: float


@attrs.frozen
class CutAtByte:
    """On a `share` of the connections, one direction is cut at a byte among the first `within`."""

    share: float
    within: int


NetFault = ResetConnection | HalfOpenStall | Delay | WriteSplit | CutAtByte


class Pipe:
    """One direction of a connection."""

    def __init__(self, chance: random.Random, reset: Callable[[str], None]) -> None:
        self._chance = chance
        self._reset = reset
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._under_way = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._last_at = 0.0
        self.ended = False
        """The sender has finished."""
        self.broken = False
        self.stalled_from = float("inf")
        self.stalled_until = float("inf")
        self.delay_s = 0.0
        self.split_share = 0.0
        self.cut_at = -1
        self._sent = 0

    def change(self) -> None:
        """Let both ends look again."""
        self._changed.unpark_all()

    async def send(self, data: bytes) -> None:
        """Take `data` on its way. Raises BrokenResourceError."""
        while self._under_way >= WINDOW_BYTES and not self.broken:
            await self._changed.park()
        if self.broken:
            raise trio.BrokenResourceError
        if 0 <= self.cut_at < self._sent + len(data):
            self._put(data[: self.cut_at - self._sent])
            self._reset("cut")
            raise trio.BrokenResourceError
        self._sent += len(data)
        if len(data) > 1 and self.split_share and self._chance.random() < self.split_share:
            for _ in range(self._chance.randint(1, 3)):
                if len(data) > 1:
                    at = self._chance.randint(1, len(data) - 1)
                    self._put(data[:at])
                    data = data[at:]
        self._put(data)

    def _put(self, data: bytes) -> None:
        at = trio.current_time()
        if self.delay_s:
            at += self._chance.uniform(0.0, self.delay_s)
        self._last_at = max(self._last_at, at)
        self._chunks.append((self._last_at, data))
        self._under_way += len(data)
        self.change()

    async def receive(self, most: int) -> bytes:
        """Return what has arrived; b"" at the end. Raises BrokenResourceError."""
        while True:
            now = trio.current_time()
            stalled = self.stalled_from <= now < self.stalled_until
            if self.broken and not (self._chunks and self._chunks[0][0] <= now):
                raise trio.BrokenResourceError
            if stalled:
                until = self.stalled_until
            elif self._chunks:
                at, data = self._chunks[0]
                if at <= now:
                    return self._take(at, data, most)
                until = min(at, self.stalled_from) if self.stalled_from > now else at
            elif self.ended:
                return b""
            else:
                until = float("inf")
            with trio.move_on_at(until):
                await self._changed.park()

    def _take(self, at: float, data: bytes, most: int) -> bytes:
        self._chunks.popleft()
        if len(data) > most:
            self._chunks.appendleft((at, data[most:]))
            data = data[:most]
        self._under_way -= len(data)
        self.change()
        return data

    def break_(self) -> None:
        """The connection was reset: what is under way is lost."""
        if not self.broken:
            self.broken = True
            self._chunks.clear()
            self.change()


class End(trio.abc.Stream):
    """One end of a `Wire`."""

    def __init__(self, wire: "Wire", outgoing: Pipe, incoming: Pipe, tap: Callable[[bytes], None] | None) -> None:
        self._wire = wire
        self._out = outgoing
        self._in = incoming
        self._tap = tap
        self._closed = False
        self.dead = False
        """Its process is gone without a word: what it still says is not heard."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if self.dead:
            await trio.sleep_forever()
        data = bytes(data)
        if self._tap is not None:
            self._tap(data)
        await self._out.send(data)
        if self._closed:
            raise trio.ClosedResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        data = await self._in.receive(max_bytes or WINDOW_BYTES)
        if self._closed:
            raise trio.ClosedResourceError
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if not self.dead:
                self._out.ended = True
                self._in.break_()  # who writes to a closed socket is told so
            self._out.change()
            self._in.change()
        await trio.lowlevel.checkpoint()


class Wire:
    """One connection between a party and a node."""

    def __init__(
        self,
        name: str,
        node: str,
        chance: random.Random,
        tap: Callable[[bytes], None] | None,
        lost: Callable[[str], None],
    ) -> None:
        self.name = name
        self.node = node
        self._lost = lost
        self.up = Pipe(chance, self.reset)
        self.down = Pipe(chance, self.reset)
        self.party_end = End(self, self.up, self.down, None)
        self.node_end = End(self, self.down, self.up, tap)
        self.reset_at = float("inf")

    def reset(self, why: str = "reset") -> None:
        """Both ends find the connection broken."""
        if not self.up.broken or not self.down.broken:
            self._lost(why)
        self.up.break_()
        self.down.break_()

    def vanish(self) -> None:
        """The node's machine is gone: nothing more arrives, and nobody says so."""
        self.node_end.dead = True
        now = trio.current_time()
        for pipe in (self.up, self.down):
            pipe.stalled_from, pipe.stalled_until = now, float("inf")
            pipe.change()

    def kill(self) -> None:
        """The node's process is gone: its kernel resets the connection."""
        self.node_end.dead = True
        self.reset("killed")

    @property
    def over(self) -> bool:
        """Nobody can use it any more."""
        return (self.up.broken and self.down.broken) or (self.up.ended and self.down.ended)


class Network:
    """Makes connections, with the faults of the plan on them while `faulty`."""

    def __init__(self, faults: tuple[NetFault, ...], chance: random.Random) -> None:
        self.faults = faults
        self.faulty = True
        self.wires: list[Wire] = []
        self._chance = chance
        self._count = 0

    def connect(
        self, party: str, node: str, tap: Callable[[str, bytes], None], lost: Callable[[str, str], None]
    ) -> Wire:
        """A new connection of `party` to `node`."""
        self._count += 1
        name = f"{party}#{self._count}"
        chance = random.Random(self._chance.random())
        wire = Wire(name, node, chance, lambda data: tap(name, data), lambda why: lost(name, why))
        self.wires = [one for one in self.wires if not one.over]
        self.wires.append(wire)
        if self.faulty:
            for fault in self.faults:
                _apply(fault, wire, chance)
        return wire

    def of(self, node: str) -> list[Wire]:
        """The connections of a node."""
        return [wire for wire in self.wires if wire.node == node]

    async def run(self, poll_s: float = 0.05) -> None:
        """Reset connections when their time has come. Until cancelled, or there is nothing to do."""
        while any(isinstance(fault, ResetConnection) for fault in self.faults):
            await trio.sleep(poll_s)
            now = trio.current_time()
            for wire in self.wires:
                if wire.reset_at <= now:
                    wire.reset_at = float("inf")
                    wire.reset()

    def heal(self) -> None:
        """No new faults; delays and resets end. Stalled connections stay so: only their owners can find that out."""
        self.faulty = False
        for wire in self.wires:
            wire.reset_at = float("inf")
            for pipe in (wire.up, wire.down):
                pipe.delay_s = pipe.split_share = 0.0
                pipe.cut_at = -1
                if pipe.stalled_from > trio.current_time():
                    pipe.stalled_from = float("inf")


def _apply(fault: NetFault, wire: Wire, chance: random.Random) -> None:
    now = trio.current_time()
    both = (wire.up, wire.down)
    match fault:
        case ResetConnection(per_minute):
            wire.reset_at = now + chance.expovariate(per_minute / 60)
        case HalfOpenStall(share, after_s, lasts_s):
            if chance.random() < share:
                start = now + chance.uniform(0.0, after_s)
                for pipe in both if chance.random() < 0.7 else (chance.choice(both),):
                    pipe.stalled_from, pipe.stalled_until = start, start + lasts_s
        case Delay(up_to_s):
            for pipe in both:
                pipe.delay_s = up_to_s
        case WriteSplit(share):
            for pipe in both:
                pipe.split_share = share
        case CutAtByte(share, within):
            if chance.random() < share:
                chance.choice(both).cut_at = chance.randint(1, within)
