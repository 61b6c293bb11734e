"""The network of a simulation: byte streams that are late, cut into pieces, reset, stalled, or end in the middle of a frame.

Whole nodes can be cut off from all parties (`Network.isolate`), and stand still (`Gate`): then nothing that the node's
process would write leaves it, and nothing that arrives is read.
"""

import random
from collections import Counter
from collections.abc import Callable

import attrs
import trio

from tests.sim.pipes import WINDOW_BYTES, End, Gate, Pipe


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


@attrs.frozen
class SmallWindow:
    """Connections take only so many bytes that nobody has read: a slow reader is felt soon."""

    window_bytes: int


NetFault = ResetConnection | HalfOpenStall | Delay | WriteSplit | CutAtByte | SmallWindow


class Wire:
    """One connection between a party and a node."""

    def __init__(
        self,
        name: str,
        node: str,
        chance: random.Random,
        gate: Gate,
        tap: Callable[["Wire", bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        self.name = name
        self.party = name.partition("#")[0]
        self.node = node
        self.opened_at = trio.current_time()
        self.hurt = False
        """A fault has befallen it, or may have: it may end without a word."""
        self._lost = lost
        self.up = Pipe(chance, self.reset)
        self.down = Pipe(chance, self.reset)
        self.party_end = End(self.up, self.down)
        self.node_end = End(self.down, self.up, gate, lambda data: tap(self, data))
        self.reset_at = float("inf")

    def reset(self, why: str = "reset") -> None:
        """Both ends find the connection broken."""
        self.hurt = True
        if not self.up.broken or not self.down.broken:
            self._lost(why)
        self.up.break_()
        self.down.break_()

    def vanish(self) -> None:
        """The node's machine is gone: nothing more arrives, and nobody says so."""
        self.node_end.dead = True
        self.stall(float("inf"))

    def stall(self, until: float) -> None:
        """Nothing arrives any more before `until`."""
        self.hurt = True
        for pipe in (self.up, self.down):
            pipe.stalled_from, pipe.stalled_until = trio.current_time(), until
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
        self.by_name: dict[str, Wire] = {}
        self.opened: Counter[str] = Counter()
        """Party → how many connections it has opened."""
        self.gates: dict[str, Gate] = {}
        """Node → what stands still with it."""
        self.old_programs: set[str] = set()
        """Parties that offer no subprotocol."""
        self._isolated: dict[str, tuple[float, bool]] = {}
        """Node → until when no party reaches it, and whether those that try are told so."""
        self._chance = chance
        self._count = 0

    def connect(
        self, party: str, node: str, tap: Callable[[Wire, bytes], None], lost: Callable[[str, str], None]
    ) -> Wire:
        """A new connection of `party` to `node`."""
        self._count += 1
        self.opened[party] += 1
        name = f"{party}#{self._count}"
        chance = random.Random(self._chance.random())
        wire = Wire(name, node, chance, self.gate(node), tap, lambda why: lost(name, why))
        self.wires = [one for one in self.wires if not one.over]
        self.wires.append(wire)
        self.by_name[name] = wire
        if self.faulty:
            for fault in self.faults:
                _apply(fault, wire, chance)
        until, refused = self._isolated.get(node, (0.0, False))
        if until > trio.current_time():
            if refused:
                wire.reset("refused")
            else:
                wire.stall(until)
        return wire

    def gate(self, node: str) -> Gate:
        """What stands still with `node`."""
        return self.gates.setdefault(node, Gate())

    def isolate(self, node: str, seconds: float, *, refused: bool) -> None:
        """For a while no party reaches `node`: what stands stalls, what is new hangs, or is `refused` at once."""
        until = trio.current_time() + seconds
        self._isolated[node] = (until, refused)
        for wire in self.of(node):
            wire.stall(until)

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
        self._isolated.clear()
        for wire in self.wires:
            wire.reset_at = float("inf")
            for pipe in (wire.up, wire.down):
                pipe.window_bytes = WINDOW_BYTES
                pipe.delay_s = pipe.split_share = 0.0
                pipe.cut_at = -1
                if pipe.stalled_from > trio.current_time():
                    pipe.stalled_from = float("inf")
                pipe.change()


def _apply(fault: NetFault, wire: Wire, chance: random.Random) -> None:
    now = trio.current_time()
    both = (wire.up, wire.down)
    match fault:
        case ResetConnection(per_minute):
            wire.reset_at = now + chance.expovariate(per_minute / 60)
        case HalfOpenStall(share, after_s, lasts_s):
            if chance.random() < share:
                start = now + chance.uniform(0.0, after_s)
                wire.hurt = True
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
        case SmallWindow(window_bytes):
            for pipe in both:
                pipe.window_bytes = window_bytes
