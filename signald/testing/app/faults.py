"""The network between parties and nodes, with the faults that a test asks for, by party.

A party is a client or a worker of the test, by its name. What a fault does to a program is said at `SignaldCluster`, which is how
a test reaches it.
"""

import random
from collections.abc import Callable
from functools import partial

import attrs
import trio

from signald.testing.app.frames import BINARY, TEXT, FrameReader, fields_of, words
from signald.testing.network import Network, Wire

ANSWERS = frozenset({"ack", "session_started", "session_restored", "app_accepted", "reconnection_ack"})
"""Frames by which a node answers a party: the loss of one leaves open whether the store has what was asked."""


@attrs.define
class Weather:
    """The lasting faults of one party's connections, present and future ones."""

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """How fast it reads; 0: at once."""
    loses_answer: bool = False
    """The next answer is lost, with its connection."""
    dead: bool = False
    """Its process is gone."""


Sees = Callable[[Wire, dict[str, object]], None]
"""Takes a frame that a node writes, before it leaves."""


class PartyNetwork(Network):
    """Connections by party; every frame of a node is shown to `sees`, and what breaks to `tells(party, text)`."""

    def __init__(self, chance: random.Random, sees: Sees, tells: Callable[[str, str], None]) -> None:
        super().__init__(chance)
        self._sees = sees
        self._tells = tells
        self._weather: dict[str, Weather] = {}
        self._readers: dict[str, FrameReader] = {}

    def open(self, party: str, node: str) -> Wire:
        """Open a connection of `party` to `node`."""
        wire = self.connect(party, node, self._tap, lambda name, why: self._tells(party, f"{name} breaks: {why}"))
        self.by_name = {one.name: one for one in self.wires}
        self._readers = {name: reader for name, reader in self._readers.items() if name in self.by_name}
        self._readers[wire.name] = FrameReader()
        wire.up.tap = partial(self._heard, party)
        self._tells(party, f"opens {wire.name} to {node}")
        return wire

    def weather(self, party: str) -> Weather:
        """Return the faults of a party."""
        return self._weather.setdefault(party, Weather())

    def harm(self, wire: Wire, chance: random.Random) -> None:
        """See `Network.harm`."""
        del chance
        weather = self.weather(wire.party)
        wire.up.delay_s = wire.down.delay_s = weather.delay_s
        wire.down.bytes_per_s = weather.bytes_per_s

    def of_party(self, party: str) -> list[Wire]:
        """Return the open connections of a party, in the order in which they were opened."""
        return [wire for wire in self.wires if wire.party == party and not wire.over]

    # --- faults -----------------------------------------------------------------------------------------------------

    def cut(self, party: str, why: str = "cut") -> None:
        """Break all connections of a party, without a close."""
        for wire in self.of_party(party):
            wire.reset(why)

    def stall(self, party: str, seconds: float) -> None:
        """Let nothing arrive on the open connections of a party, in either direction."""
        for wire in self.of_party(party):
            wire.stall(trio.current_time() + seconds)

    def delay(self, party: str, up_to_s: float) -> None:
        """Let what is written arrive up to `up_to_s` later, in order; 0 ends it."""
        self.weather(party).delay_s = up_to_s
        self._apply(party)

    def slow(self, party: str, bytes_per_s: float) -> None:
        """Let the party read no faster than this; 0 ends it."""
        self.weather(party).bytes_per_s = bytes_per_s
        self._apply(party)

    def lose_answer(self, party: str) -> None:
        """Lose the next answer to the party, with its connection."""
        self.weather(party).loses_answer = True

    def kill_party(self, party: str) -> None:
        """The process of a party is gone: its kernel resets its connections, and it opens no more."""
        self.weather(party).dead = True
        self.cut(party, "its process died")

    def revive_party(self, party: str) -> None:
        """A process of the party runs again."""
        self.weather(party).dead = False

    def _apply(self, party: str) -> None:
        for wire in self.of_party(party):
            self.harm(wire, self._chance)

    # --- what is written --------------------------------------------------------------------------------------------

    def _heard(self, party: str, piece: bytes) -> None:
        """Tell of a whole message of a party (`signald.testing.messages`): its opcode and its payload."""
        if piece[0] in (TEXT, BINARY):
            self._tells(party, f"▸ {words(fields_of(piece[0] == TEXT, piece[1:]))}")

    def _tap(self, wire: Wire, data: bytes) -> None:
        reader = self._readers.get(wire.name)
        if reader is None:
            return
        begun = bool(reader.answer)
        frames = [fields_of(*frame) for frame in reader.feed(data)]
        if reader.answer and not begun:
            frames = [{"type": "http", "message": reader.answer}]
        for fields in frames:
            self._sees(wire, fields)
        weather = self.weather(wire.party)
        if weather.loses_answer and any(fields["type"] in ANSWERS or fields["type"] == "http" for fields in frames):
            weather.loses_answer = False
            wire.reset("its answer is lost")
