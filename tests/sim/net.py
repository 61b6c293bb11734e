"""The faults of a simulation's network: its connections are late, cut into pieces, reset, stalled, or end within a frame."""

import random

import attrs
import trio

from signald.testing.network import Network, Wire


@attrs.frozen
class ResetConnection:
    """A connection is reset at a random time: in the mean `per_minute` times a minute."""

    per_minute: float


@attrs.frozen
class HalfOpenStall:
    """On a `share` of the connections, from some moment on nothing arrives any more, not even a reset."""

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
    """Connections hold only so many unread bytes: a slow reader is felt soon."""

    window_bytes: int


NetFault = ResetConnection | HalfOpenStall | Delay | WriteSplit | CutAtByte | SmallWindow


class FaultyNetwork(Network):
    """A network with the faults of the plan on its connections while `faulty`."""

    def __init__(self, faults: tuple[NetFault, ...], chance: random.Random) -> None:
        super().__init__(chance)
        self.faults = faults
        self.faulty = True
        self._reset_at: dict[Wire, float] = {}

    def harm(self, wire: Wire, chance: random.Random) -> None:
        """See `Network.harm`."""
        if self.faulty:
            for fault in self.faults:
                self._apply(fault, wire, chance)

    async def run(self, poll_s: float = 0.05) -> None:
        """Reset connections when their time has come. Until cancelled, or there is nothing to do."""
        while any(isinstance(fault, ResetConnection) for fault in self.faults):
            await trio.sleep(poll_s)
            now = trio.current_time()
            for wire in self.wires:
                if self._reset_at.get(wire, float("inf")) <= now:
                    del self._reset_at[wire]
                    wire.reset()

    def heal(self) -> None:
        """See `Network.heal`."""
        self.faulty = False
        self._reset_at.clear()
        super().heal()

    def _apply(self, fault: NetFault, wire: Wire, chance: random.Random) -> None:
        now = trio.current_time()
        both = (wire.up, wire.down)
        match fault:
            case ResetConnection(per_minute):
                self._reset_at[wire] = now + chance.expovariate(per_minute / 60)
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
