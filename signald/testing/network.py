"""The network of a cluster in memory: byte streams between parties and nodes, which a test may stall, reset or cut off.

Whole nodes can be unreachable for all parties (`Network.isolate`), or paused (`Gate`). A paused process writes nothing
and reads nothing.
"""

import random
from collections import Counter
from collections.abc import Callable

import trio

from signald.testing.pipes import WINDOW_BYTES, End, Gate, Pipe


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
        """A fault may have hit it: it may end without a Close."""
        self._lost = lost
        self.up = Pipe(chance, self.reset)
        self.down = Pipe(chance, self.reset)
        self.party_end = End(self.up, self.down)
        self.node_end = End(self.down, self.up, gate, lambda data: tap(self, data))

    def reset(self, why: str = "reset") -> None:
        """Both ends find the connection broken."""
        self.hurt = True
        if not self.up.broken or not self.down.broken:
            self._lost(why)
        self.up.break_()
        self.down.break_()

    def vanish(self) -> None:
        """The node's machine is gone: nothing more arrives, not even a reset."""
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
        """Neither end can use it any more."""
        return (self.up.broken and self.down.broken) or (self.up.ended and self.down.ended)


class Network:
    """Makes connections, and knows those that are open."""

    def __init__(self, chance: random.Random) -> None:
        self.wires: list[Wire] = []
        self.by_name: dict[str, Wire] = {}
        self.opened: Counter[str] = Counter()
        """Party → the number of connections it has opened."""
        self.gates: dict[str, Gate] = {}
        """Node → the gate of its process."""
        self.old_programs: set[str] = set()
        """Parties that offer no subprotocol."""
        self._isolated: dict[str, tuple[float, bool]] = {}
        """Node → until when no party reaches it, and whether new connections are refused at once."""
        self._chance = chance
        self._count = 0

    def connect(
        self, party: str, node: str, tap: Callable[[Wire, bytes], None], lost: Callable[[str, str], None]
    ) -> Wire:
        """Open a connection from `party` to `node`.

        `tap` gets what the node writes before it leaves; `lost` gets the wire's name and the reason when it is reset.
        """
        self._count += 1
        self.opened[party] += 1
        name = f"{party}#{self._count}"
        chance = random.Random(self._chance.random())
        wire = Wire(name, node, chance, self.gate(node), tap, lambda why: lost(name, why))
        self.wires = [one for one in self.wires if not one.over]
        self.wires.append(wire)
        self.by_name[name] = wire
        self.harm(wire, chance)
        until, refused = self._isolated.get(node, (0.0, False))
        if until > trio.current_time():
            if refused:
                wire.reset("refused")
            else:
                wire.stall(until)
        return wire

    def harm(self, wire: Wire, chance: random.Random) -> None:
        """Do to a new connection what a faulty network would; the base does nothing."""

    def gate(self, node: str) -> Gate:
        """Return the gate of a node's process."""
        return self.gates.setdefault(node, Gate())

    def isolate(self, node: str, seconds: float, *, refused: bool) -> None:
        """Cut a node off from all parties for a while: open connections stall, new ones hang or are `refused` at once."""
        until = trio.current_time() + seconds
        self._isolated[node] = (until, refused)
        for wire in self.of(node):
            wire.stall(until)

    def of(self, node: str) -> list[Wire]:
        """The connections of a node."""
        return [wire for wire in self.wires if wire.node == node]

    def heal(self) -> None:
        """End all faults but the stalls that have begun: only the owners of those connections can find them out."""
        self._isolated.clear()
        for wire in self.wires:
            for pipe in (wire.up, wire.down):
                pipe.window_bytes = WINDOW_BYTES
                pipe.delay_s = pipe.split_share = 0.0
                pipe.cut_at = -1
                if pipe.stalled_from > trio.current_time():
                    pipe.stalled_from = float("inf")
                pipe.change()
