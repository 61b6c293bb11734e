"""The fast transport of the simulation: whole messages instead of frames, between the real SDK and the real service.

It leaves out the slow parts, which have tests of their own: the opening handshake in bytes, masks, the frame decoder, and
the WebSocket library of the SDK. Everything above stays the production code, `Connection` with its queue, its clock and
its ends included. Faults of the wire apply to whole messages: a message is late, or the last one before a reset. No
message is split.

    WebSocketCarrier ▸ trio-websocket ▸ End ▸ Pipe ▸ End ▸ StreamTransport ▸ Connection      the wire in bytes
    MessageCarrier   ───────────────────────▸ Pipe ──────▸ MessageTransport ▸ Connection     here
"""

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from signald.net.connection import Connection
from signald.net.frames import Close, Event, Message, Ping, Pong
from signald.net.handshake import Handshake, refuse
from signald.net.listener import Server
from signald.net.transport import Transport
from signald.places import Place
from signald.sdk.dialing import DialFailed, refused_handshake
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.writing import Frame
from signald.testing.pipes import End
from signald.wire.messages import SUBPROTOCOL

TEXT, BINARY, CLOSE, PING, PONG = b"\x01", b"\x02", b"\x08", b"\x09", b"\x0a"
ACCEPTED = b"HTTP/1.1 101 "
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


# --- the node's side ------------------------------------------------------------------------------------------------


class MessageTransport:
    """A `Transport` that takes the frames of a `Connection` apart, which writes whole frames only."""

    def __init__(self, end: End) -> None:
        self.end = end

    def send_nowait(self, data: bytes, /) -> int:
        """See `Transport`."""
        end = self.end
        if end.closed:
            raise trio.ClosedResourceError
        if end.out.is_full or end.stands_still:
            return 0
        if not end.dead and end.tap is not None:
            end.tap(data)
        for piece in () if end.dead else _pieces(data):
            end.out.send_whole(piece)
        return len(data)

    async def send(self, data: memoryview, /) -> int:
        """See `Transport`."""
        await trio.lowlevel.checkpoint()
        await self.end.goes_on()
        while self.end.out.is_full and not self.end.closed:
            await self.end.out.changed()
            await self.end.goes_on()
        return self.send_nowait(bytes(data))

    async def receive(self, _most: int = 0, /) -> Any:
        """Return the messages that have come, as the decoder would."""
        await trio.lowlevel.checkpoint()
        if self.end.closed:
            raise trio.ClosedResourceError
        pieces = await self.end.incoming.receive_whole()
        await self.end.goes_on()
        if self.end.closed:
            raise trio.ClosedResourceError
        return [_event(piece) for piece in pieces]

    def finish_writing(self) -> None:
        """Do nothing, as `StreamTransport`."""

    def close(self) -> None:
        """See `Transport`."""
        self.end.close_now()

    def abort(self) -> None:
        """See `Transport`."""
        self.end.close_now()


def _pieces(data: bytes) -> list[bytes]:
    """The unmasked, unfragmented frames in `data`, each as one piece: its opcode and its payload."""
    if data.startswith(b"HTTP/"):
        return [data]
    pieces = []
    at = 0
    while at < len(data):
        opcode, length = data[at] & 15, data[at + 1]
        at += 2
        if length == 126:
            length, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        elif length == 127:
            length, at = int.from_bytes(data[at : at + 8], "big"), at + 8
        pieces.append(b"%c%b" % (opcode, data[at : at + length]))
        at += length
    return pieces


def _event(piece: bytes) -> Event | str:
    kind, payload = piece[:1], piece[1:]
    if kind in (TEXT, BINARY):
        return Message(kind == TEXT, payload)
    if kind == PING:
        return Ping(payload)
    if kind == PONG:
        return Pong(payload)
    if kind == CLOSE:
        return Close(*_said(payload))
    return piece.decode()


def _said(payload: bytes) -> tuple[int | None, str]:
    """The code and the reason in a Close."""
    if not payload:
        return None, ""
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


class Undecoded:
    """Replaces the `FrameDecoder` of a `Connection`: what arrives is decoded already."""

    def __init__(self) -> None:
        self.controls = 0
        self.failed = None
        self.held = 0

    def forget(self) -> None:
        """Nothing is held."""

    def feed(self, events: list[Event]) -> list[Event]:
        """Count the control frames."""
        self.controls += sum(type(event) is not Message for event in events)
        return events


class MessageServer(Server):
    """The server of a node for this transport: with the same admission, without bytes."""

    def __init__(self, server: Server) -> None:
        self.__dict__ = server.__dict__  # one server with two doors

    async def serve_end(self, end: End) -> None:
        """Serve one connection until it is over."""
        scope = trio.CancelScope()
        place = self._begin_handshake("memory", scope)
        if place is None:
            end.close_now()
            return
        await self._serve(MessageTransport(end), "memory", place, scope)

    async def _shake_hands(self, transport: Transport, peer: str, place: Place) -> Connection | None:
        del place  # the answer comes at once
        asked: Any = await transport.receive()
        if not asked:
            return None
        path, _, subprotocol = asked[0].partition(" ")
        route = self._settings.endpoints.route(path)
        assert route is not None, f"no endpoint at {path}"
        handshake = Handshake(path, route, (), subprotocol or None, None, None, b"")
        refusal = self.admission.begin_connection(peer, trio.current_time())
        if refusal is not None:
            raise refuse(refusal)
        try:
            self._ask_gate(handshake, peer)
            transport.send_nowait(ACCEPTED)
        except BaseException:
            self.admission.end_connection(peer)
            raise
        connection = Connection(
            transport, handshake, id=next(self._ids), remote=peer, settings=self._settings, spawn=self._spawn
        )
        connection._decoder = Undecoded()  # type: ignore[assignment]
        return connection


async def serve_messages(server: Server, end: End) -> None:
    """Serve the node's `end` of a connection."""
    await MessageServer(server).serve_end(end)


# --- the party's side -----------------------------------------------------------------------------------------------


class MessageCarrier:
    """A `Carrier` over whole messages."""

    def __init__(self, end: End, write_s: float) -> None:
        self._end = end
        self._write_s = write_s
        self._come: list[bytes] = []
        self._closed: CarrierClosed | None = None

    async def receive(self) -> str | bytes:
        """See `Carrier`."""
        while True:
            if not self._come:
                await self._wait()
            piece = self._come.pop()
            kind = piece[:1]
            if kind == TEXT:
                return piece[1:].decode()
            if kind == BINARY:
                return piece[1:]
            if kind == PING:
                self._put(PONG + piece[1:])
            elif kind == CLOSE:
                code, reason = _said(piece[1:])
                if self._closed is None:
                    self._put(piece)
                self._closed = CarrierClosed(code, reason) if code is not None else broke()
                raise self._closed

    async def _wait(self) -> None:
        if self._closed is not None:
            raise self._closed
        try:
            self._come = await self._end.incoming.receive_whole()
        except BROKEN:
            raise broke() from None
        self._come.reverse()
        if not self._come:
            raise broke()

    def _put(self, piece: bytes) -> None:
        try:
            self._end.out.send_whole(piece)
        except BROKEN:
            raise broke() from None

    async def send(self, frames: Sequence[Frame]) -> None:
        """See `Carrier`."""
        await trio.lowlevel.checkpoint()
        if self._closed is not None:
            raise self._closed
        out = self._end.out
        if out.is_full:
            with trio.move_on_after(self._write_s) as scope:
                while out.is_full:
                    await out.changed()
            if scope.cancelled_caught:
                raise CarrierClosed(None, "not written in time")
        for text, payload in frames:
            self._put((TEXT if text else BINARY) + payload)

    async def aclose(self, code: int, reason: str) -> None:
        """See `Carrier`."""
        try:
            if self._closed is None:
                self._put(CLOSE + struct.pack("!H", code) + reason[:100].encode())
                self._closed = CarrierClosed(code, reason)
                while not any(piece[:1] == CLOSE for piece in await self._end.incoming.receive_whole() or (CLOSE,)):
                    pass
        except (*BROKEN, CarrierClosed):
            self.abort()

    def abort(self) -> None:
        """See `Carrier`."""
        self._end.close_now()


def broke() -> CarrierClosed:
    """The error that a party gets when its connection ends without a Close."""
    return CarrierClosed(None, "the connection broke")


@asynccontextmanager
async def over_messages(
    end: End, url: str, subprotocol: str = SUBPROTOCOL, timing: Timing = DEFAULT_TIMING
) -> AsyncIterator[MessageCarrier]:
    """Ask for a connection, and carry messages over it for the time of the block. Raises DialFailed."""
    try:
        answer = b""
        with trio.move_on_after(timing.connect_s):
            try:
                end.out.send_whole(f"{urlsplit(url).path} {subprotocol}".encode())
                answer = b"".join(await end.incoming.receive_whole())
            except BROKEN:
                pass
        if not answer.startswith(ACCEPTED):
            raise _refused(answer)
        yield MessageCarrier(end, timing.write_s)
    finally:
        end.close_now()


def _refused(answer: bytes) -> DialFailed:
    """The error that the SDK's own carrier raises for an answer that is not 101."""
    if not answer:
        return DialFailed(None, "the handshake broke, or took too long")
    _, found, rest = answer.partition(b"Retry-After: ")
    return refused_handshake(int(answer.split()[1]), rest.split()[0] if found else b"")
