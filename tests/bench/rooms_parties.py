"""A publisher and the members of a room, for each of the servers that `rooms` measures.

Each publication carries its number. A member checks that each read goes on where the last one ended, so every figure is of publications
that each member has had once, in order. Most members read the same bytes: what those hold is found out once (`Crowd.found`).
"""

import json
from abc import abstractmethod
from collections.abc import Callable

from tests.bench.errors import BenchError
from tests.bench.parties import ClientLink, ClientSession, Json, text
from tests.bench.sockets import TEXT, Address, Loop, WebSocket, frame, frame_span

ROOM = "bench"
DIGITS = 10
DATA_BYTES = 128
FOUND_MAX = 256
"""Reads that are remembered: some windows of the largest kind."""

_FILLER = "x" * (DATA_BYTES - DIGITS - 1)


def data_of(number: int) -> str:
    """Return the data of a publication."""
    return f"#{number:0{DIGITS}}{_FILLER}"


def number_of(payload: bytes, start: int, stop: int) -> int:
    """Return the number of the publication that lies there, or 0 if none does."""
    at = payload.find(b'"#', start, stop)
    return int(payload[at + 2 : at + 2 + DIGITS]) if at >= 0 else 0


class Crowd:
    """What is said to a room and how much of it has come: `window` publications are under way while `running`."""

    def __init__(self) -> None:
        self.members = 0
        self.window = 1
        self.running = False
        self.published = 0
        self.delivered = 0
        self.publish: Callable[[int, int], None] = lambda _first, _count: None
        """Publish so many, from a number on."""
        self._complete = 0
        self._due = 0
        """Deliveries at which the next publication is complete."""
        self._found: dict[bytes, tuple[int, int] | None] = {}

    def start(self) -> None:
        """Publish a window. All that was published before must have come."""
        self.running = True
        self.delivered, self._complete, self._due = 0, self.published, self.members
        self._say(self.window)

    @property
    def quiet(self) -> bool:
        """Whether all that was published has come at each member."""
        return self._complete == self.published

    def came(self, count: int) -> None:
        """A member has had so many more."""
        self.delivered += count
        if self.delivered >= self._due:
            before = self._complete
            while self.delivered >= self._due and self._complete < self.published:
                self._complete += 1
                self._due += self.members
            if self.running:
                self._say(self._complete - before)

    def _say(self, count: int) -> None:
        first, self.published = self.published + 1, self.published + count
        self.publish(first, count)

    def found(self, data: bytes) -> tuple[int, int] | None:
        """Return the numbers of the first and the last publication of a read that is made of whole ones, in order; else None."""
        try:
            return self._found[data]
        except KeyError:
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            found = self._found[data] = _span_of(data)
            return found


def _span_of(data: bytes) -> tuple[int, int] | None:
    position, first, last = 0, 0, 0
    while position < len(data):
        span = frame_span(data, position)
        number = number_of(data, *span) if span is not None and data[position] == TEXT else 0
        if span is None or not number or (first and number != last + 1):
            return None
        first, last, position = first or number, number, span[1]
    return first, last


class Ear(WebSocket):
    """The connection of a member. Before a kind of connection in the order of bases."""

    crowd: Crowd
    expected = 1
    """The number of the next publication."""

    def on_frames(self, data: bytes) -> None:
        """Take publications; all else frame by frame."""
        found = None if self._tail else self.crowd.found(data)
        if found is None:
            super().on_frames(data)
        else:
            self._heard(*found)

    def on_frame(self, opcode: int, payload: bytes) -> None:
        """Take one publication; all else belongs to the kind of connection."""
        number = number_of(payload, 0, len(payload)) if opcode == TEXT else 0
        if number:
            self._heard(number, number)
        else:
            super().on_frame(opcode, payload)

    def _heard(self, first: int, last: int) -> None:
        if first != self.expected:
            raise BenchError(f"a member got publication {first} for {self.expected}")
        self.expected = last + 1
        self.crowd.came(last + 1 - first)


class Room:
    """A room of one of the servers: its publisher at the first of `addresses`, its members at all of them in turn."""

    def __init__(self, loop: Loop, addresses: list[Address]) -> None:
        self.loop = loop
        self.addresses = addresses
        self.crowd = Crowd()
        self._ready = 0

    def enter(self) -> None:
        """One party is in the room."""
        self._ready += 1

    def open(self) -> None:
        """Connect the publisher."""
        self._open_publisher(self.addresses[0])
        self.loop.run_until(lambda: self._ready == 1, 10.0, "the publisher is in the room")

    def grow(self, members: int, in_flight: int = 32) -> None:
        """Connect members until there are so many."""
        crowd, nodes = self.crowd, len(self.addresses)
        while crowd.members < members:
            for _ in range(min(in_flight, members - crowd.members)):
                crowd.members += 1
                # The first member is at another node than the publisher, where there is one.
                self._open_member(self.addresses[crowd.members % nodes], crowd.published + 1)
            self.loop.run_until(
                lambda: self._ready == 1 + crowd.members, 60.0, f"{crowd.members} members are in the room"
            )

    @abstractmethod
    def _open_publisher(self, address: Address) -> None:
        """Connect the publisher, and set `crowd.publish`."""

    @abstractmethod
    def _open_member(self, address: Address, expected: int) -> None:
        """Connect a member whose next publication is `expected`."""


# --- signald ------------------------------------------------------------------------------------------------------


class MemberLink(Ear, ClientLink):
    """A connection of a client that is in the room."""

    def on_json(self, message: Json) -> None:
        """Take what is said of the room."""
        kind = message["type"]
        if kind == "joined":
            assert isinstance(self.session, Member)
            if not message.get("more"):
                self.session.room.enter()
        elif kind in ("room_error", "left"):
            raise BenchError(f"from the room: {message}")
        elif kind not in ("room_presence", "published"):
            super().on_json(message)


class Member(ClientSession):
    """A client that wants no worker."""

    link_class = MemberLink

    def __init__(self, room: Room, expected: int) -> None:
        super().__init__(room.loop)
        self.room = room
        self._expected = expected

    def dial(self, address: Address) -> None:
        """Connect."""
        super().dial(address)
        assert isinstance(self.dialled, MemberLink)
        self.dialled.crowd, self.dialled.expected = self.room.crowd, self._expected

    def opening(self) -> Json:
        """Say so."""
        return {**super().opening(), "pair": False}

    def started(self, link: ClientLink, message: Json) -> None:
        """Join."""
        super().started(link, message)
        link.send(text({"type": "join", "room": ROOM}))


class SignaldRoom(Room):
    """A room of signald."""

    def _open_publisher(self, address: Address) -> None:
        publisher = Member(self, 0)
        publisher.dial(address)

        def publish(first: int, count: int) -> None:
            assert publisher.link is not None
            publisher.link.send(b"".join([publication(number) for number in range(first, first + count)]))

        self.crowd.publish = publish

    def _open_member(self, address: Address, expected: int) -> None:
        Member(self, expected).dial(address)


def publication(number: int) -> bytes:
    """Return a `publish` as a frame."""
    return frame(
        b'{"type":"publish","room":"%b","seq":%d,"data":"%b"}' % (ROOM.encode(), number, data_of(number).encode())
    )


# --- the bare loop ------------------------------------------------------------------------------------------------


class BareLink(WebSocket):
    """The connection of a publisher."""

    path = "/publisher"

    def __init__(self, loop: Loop, address: Address, room: Room) -> None:
        super().__init__(loop, address)
        self._room = room

    def on_open(self) -> None:
        """It may begin."""
        self._room.enter()


class BareMemberLink(Ear, BareLink):
    """The connection of a member."""

    path = "/member"


class BareRoom(Room):
    """All sockets of a bare loop. With two of them, what is said is said to both."""

    def _open_publisher(self, address: Address) -> None:
        links = [BareLink(self.loop, one, self) for one in self.addresses]
        self.loop.run_until(lambda: self._ready == len(links), 10.0, "the publisher is connected")
        self._ready = 1

        def publish(first: int, count: int) -> None:
            frames = b"".join([publication(number) for number in range(first, first + count)])
            for link in links:
                link.send(frames)

        self.crowd.publish = publish

    def _open_member(self, address: Address, expected: int) -> None:
        link = BareMemberLink(self.loop, address, self)
        link.crowd, link.expected = self.crowd, expected


# --- Socket.IO ----------------------------------------------------------------------------------------------------


class SocketIoLink(WebSocket):
    """A connection of Socket.IO over Engine.IO, as their protocols 5 and 4 say."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def __init__(self, loop: Loop, address: Address, room: Room) -> None:
        super().__init__(loop, address)
        self._room = room

    def on_frame(self, opcode: int, payload: bytes) -> None:
        """Answer what keeps the connection."""
        if opcode != TEXT:
            super().on_frame(opcode, payload)
        elif payload.startswith(b"0"):
            self.send(frame(b"40"))
        elif payload == b"2":
            self.send(frame(b"3"))
        elif payload.startswith(b"40"):
            self._room.enter()
        else:
            raise BenchError(f"unexpected from Socket.IO: {payload[:200]!r}")


class SocketIoMemberLink(Ear, SocketIoLink):
    """The connection of a member."""


class SocketIoRoom(Room):
    """A room of Socket.IO."""

    def _open_publisher(self, address: Address) -> None:
        link = SocketIoLink(self.loop, address, self)

        def publish(first: int, count: int) -> None:
            events = [
                frame(b"42" + json.dumps(["say", data_of(number)]).encode()) for number in range(first, first + count)
            ]
            link.send(b"".join(events))

        self.crowd.publish = publish

    def _open_member(self, address: Address, expected: int) -> None:
        link = SocketIoMemberLink(self.loop, address, self)
        link.crowd, link.expected = self.crowd, expected
