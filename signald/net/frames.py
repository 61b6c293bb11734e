"""WebSocket frames after the opening handshake, server role, without I/O (RFC 6455 sections 5 to 8).

`feed` takes the bytes of one `recv` and returns every event in them; the encoders return bytes. Data messages come out whole,
never as fragments, and inflated. A reserved bit is an error, but for the one of permessage-deflate where that was agreed on.

The common frame, short and unfragmented, takes one branch and one slice; everything else goes through `_uncommon`. An
incomplete frame waits as raw bytes, at most one of them. So memory per connection is bounded by `message_bytes_max`
plus a header, and the undecoded bytes can be handed to another process as they are. What one read inflates to is bounded too:
64 KiB on the wire may be eight hundred messages of 64 KiB each.

Errors: `feed` returns the events that came before a protocol error and keeps the error in `failed`, so no valid frame
before it is lost. Feeding a failed decoder raises that error.
"""

import codecs
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from signald.errors import SignaldError
from signald.wire.close_codes import CloseCode


def apply_mask_slowly(data: bytes, mask: bytes) -> bytes:
    """Return `data` XORed with the 4 bytes of `mask` repeated; the same as the C helper, without it."""
    size = len(data)
    repeated = mask * (size // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big")


apply_mask: Callable[[bytes, bytes], bytes]
try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler when websockets was installed
    apply_mask = apply_mask_slowly

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL_BYTES_MAX = 125
"""Longest payload of a control frame, and the longest length that fits the second header byte."""

INFLATED_BYTES_MAX = 8_388_608
"""What the messages of one read may inflate to, or `message_bytes_max` where that is more. 128 times the bytes of a read: text becomes
ten to twenty times shorter, a bomb a thousand times."""

HEADER_BYTES_MAX = 14
"""Two fixed bytes, eight of length, four of mask."""

DEFLATED = 0x40
"""The bit of the first byte that says that a message is deflated: RSV1 (RFC 7692 6)."""

_DATA_OR_CONTROL = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CLOSE_CODES_OF_THE_RFC = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})
_PARTIAL = -1


class Message(NamedTuple):
    """A whole data message; the payload of a text message is known to be UTF-8."""

    text: bool
    payload: bytes


class Ping(NamedTuple):
    """The peer asks for a Pong with the same payload."""

    payload: bytes


class Pong(NamedTuple):
    """The answer to a Ping, or an unsolicited Pong."""

    payload: bytes


class Close(NamedTuple):
    """The peer's Close; the last event of a connection. `code` is None when the frame had none."""

    code: int | None
    reason: str


Event = Message | Ping | Pong | Close


class ProtocolError(SignaldError):
    """The peer broke the protocol or a limit; the connection is to be closed with `code`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        """Keep the close `code` and a short `reason` that may be sent to the peer."""
        super().__init__(f"{code.value} {reason}")
        self.code = code
        self.reason = reason


class Inflates(Protocol):
    """Inflates the messages of one connection (`net.compression`)."""

    def inflate(self, data: bytes, most: int, *, last: bool) -> bytes | None:
        """Return what a frame holds; None: more than `most` bytes."""


class FrameDecoder:
    """Masked client frames in, events out.

    Invariant: between two calls the decoder keeps at most one incomplete frame and the fragments of one message. Together
    they have at most `message_bytes_max` payload bytes in at most `fragments_max` frames.
    """

    __slots__ = (
        "_closed",
        "_deflated",
        "_deflated_bytes_max",
        "_fragments",
        "_fragments_max",
        "_inflatable",
        "_inflater",
        "_kind",
        "_message_bytes_max",
        "_need",
        "_partial",
        "_size",
        "_utf8",
        "controls",
        "failed",
    )

    def __init__(self, *, message_bytes_max: int, fragments_max: int, inflater: Inflates | None = None) -> None:
        """Accept messages up to `message_bytes_max` bytes, inflated, in at most `fragments_max` frames.

        Without `inflater` a deflated message is a protocol error.
        Raises ValueError when `message_bytes_max` is below what a control frame may carry.
        """
        if message_bytes_max < CONTROL_BYTES_MAX:
            raise ValueError(f"message_bytes_max must be at least {CONTROL_BYTES_MAX}")
        self._message_bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._inflater = inflater
        self._deflated = False  # the fragmented message in progress is
        # What cannot be made shorter becomes longer: by five bytes for each 16 KiB, by an eighth where a deflater lacks memory.
        self._deflated_bytes_max = message_bytes_max + message_bytes_max // 8 + 64
        self._inflatable = 0  # bytes to which the rest of this read may still inflate
        self._partial: bytearray | None = None  # the one incomplete frame, raw
        self._need = 0  # bytes the incomplete frame must have before another look is worth it
        self._fragments: list[bytes] | None = None  # of the message in progress; None between messages
        self._kind = TEXT
        self._size = 0
        self._utf8: codecs.IncrementalDecoder | None = None  # of a fragmented text message, to fail at once
        self._closed = False
        self.failed: ProtocolError | None = None
        """The error that ended the decoding, once there is one."""
        self.controls = 0
        """How many control frames were decoded so far, so that a caller sees at once whether a read had any."""

    @property
    def remainder(self) -> bytes:
        """The bytes received and not decoded yet: the beginning of one frame."""
        return bytes(self._partial or b"")

    @property
    def missing(self) -> int:
        """How many more bytes the incomplete frame needs at least; 0 at a frame boundary."""
        return self._need - len(self._partial) if self._partial is not None else 0

    @property
    def between_messages(self) -> bool:
        """True when no fragmented message is open, so that `remainder` is the whole state."""
        return self._fragments is None

    @property
    def held(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._partial or b"") + (self._size if self._fragments is not None else 0)

    def forget(self) -> None:
        """Drop what is held. Nothing may be fed after it."""
        self._partial = self._fragments = self._utf8 = self._inflater = None

    def feed(self, data: bytes) -> list[Event]:
        """Return the events `data` completes; what comes after a Close is ignored.

        On a protocol error the events before it are returned and `failed` is set; a later call raises it.
        """
        if self.failed is not None:
            raise self.failed
        if self._closed:
            return []
        partial = self._partial
        if partial is not None:
            partial += data  # amortised O(1), so a frame that arrives byte by byte costs no more than its size
            if len(partial) < self._need:
                return []
            data = bytes(partial)
            self._partial = None
        events: list[Event] = []
        if self._inflater is not None:
            self._inflatable = max(INFLATED_BYTES_MAX, self._message_bytes_max)
        try:
            at = self._decode(data, events)
        except ProtocolError as error:
            self.failed = error
            return events
        if at < len(data) and not self._closed:
            self._partial = bytearray(data[at:])
        return events

    def _decode(self, data: bytes, events: list[Event]) -> int:
        """Append what is complete to `events`; return where the incomplete frame begins and set `_need`."""
        at, end = 0, len(data)
        append, unmask = events.append, apply_mask
        while end - at >= 2:
            first, length = data[at], data[at + 1]
            # Masked, whole, of at most 64 KiB: FIN with text or binary, mask bit, length in one byte or two, and no fragments open.
            # Literals, because this line runs once per message.
            size, start = length - 0x80, at + 6
            if size == 126 and end - at >= 4:
                size, start = data[at + 2] << 8 | data[at + 3], at + 8
                whole = 126 <= size <= self._message_bytes_max
            else:
                whole = 0 <= size < 126
            if whole and first in (0x81, 0x82) and self._fragments is None:
                stop = start + size
                if stop > end:
                    self._need = stop - at
                    return at
                payload = unmask(data[start:stop], data[start - 4 : start])
                if first == 0x82:
                    append(Message(False, payload))
                else:
                    if not payload.isascii():
                        _check_utf8(payload)
                    append(Message(True, payload))
                at = stop
            else:
                after = self._uncommon(data, at, end, events)
                if after == _PARTIAL:
                    return at
                at = after
                if self._closed:
                    return at
        self._need = 2
        return at

    def _uncommon(self, data: bytes, at: int, end: int, events: list[Event]) -> int:
        """Decode any frame at `at`; return where the next begins, or `_PARTIAL` with `_need` set."""
        first, length = data[at], data[at + 1]
        opcode = first & 0x0F
        self._check_header(first, length)
        length &= 0x7F
        start = at + 6
        if length == 126:
            start += 2
            if start > end:
                self._need = start - at
                return _PARTIAL
            (length,) = struct.unpack_from("!H", data, at + 2)
            if length < 126:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "length not in its shortest form")
        elif length == 127:
            start += 8
            if start > end:
                self._need = start - at
                return _PARTIAL
            (length,) = struct.unpack_from("!Q", data, at + 2)
            if length < 0x10000 or length >> 63:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "length not in its shortest form")
        deflated = bool(first & DEFLATED) if opcode else self._deflated
        if opcode < CLOSE:
            self._check_limits(length, deflated)  # on the announced length, before any of it is kept
        stop = start + length
        if stop > end:
            self._need = stop - at
            return _PARTIAL
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if opcode < CLOSE:
            if deflated:
                payload = self._inflated(payload, bool(first & 0x80))
            self._data_frame(opcode, bool(first & 0x80), payload, events)
            self._deflated = deflated
            return stop
        self.controls += 1
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_parse_close(payload))
            self._closed = True
        return stop

    def _check_header(self, first: int, second: int) -> None:
        """Raise ProtocolError for what the first two bytes alone show to be wrong."""
        opcode = first & 0x0F
        # A control frame is never deflated, and of a message only the first frame says it (RFC 7692 6.1).
        allowed = DEFLATED if self._inflater is not None and opcode in (TEXT, BINARY) else 0
        if first & 0x70 & ~allowed:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "reserved bit set")
        if opcode not in _DATA_OR_CONTROL:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "reserved opcode")
        if not second & 0x80:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "frame not masked")
        if opcode >= CLOSE:
            if not first & 0x80:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "fragmented control frame")
            if second & 0x7F > CONTROL_BYTES_MAX:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "control frame too long")
        elif opcode == CONTINUATION:
            if self._fragments is None:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "continuation of nothing")
        elif self._fragments is not None:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one")

    def _check_limits(self, length: int, deflated: bool) -> None:
        """Raise ProtocolError 1009 when a data frame of `length` bytes would pass a limit.

        Frames count whatever their size: a message of endless empty fragments costs memory too.
        """
        size = self._size if self._fragments is not None else 0
        if length > self._deflated_bytes_max if deflated else length + size > self._message_bytes_max:
            raise ProtocolError(CloseCode.TOO_BIG, f"message over {self._message_bytes_max} bytes")
        if self._fragments is not None and len(self._fragments) >= self._fragments_max:
            raise ProtocolError(CloseCode.TOO_BIG, f"message over {self._fragments_max} fragments")

    def _inflated(self, payload: bytes, last: bool) -> bytes:
        """Return what a frame of a deflated message holds. Raises ProtocolError 1009 where that is too much."""
        assert self._inflater is not None
        room = self._message_bytes_max - (self._size if self._fragments is not None else 0)
        found = self._inflater.inflate(payload, min(room, self._inflatable), last=last)
        if found is None:
            said = f"message over {self._message_bytes_max} bytes" if room <= self._inflatable else "inflates too much"
            raise ProtocolError(CloseCode.TOO_BIG, said)
        self._inflatable -= len(found)
        return found

    def _data_frame(self, opcode: int, fin: bool, payload: bytes, events: list[Event]) -> None:
        fragments = self._fragments
        if fragments is None:
            if fin:
                if opcode == TEXT and not payload.isascii():
                    _check_utf8(payload)
                events.append(Message(opcode == TEXT, payload))
                return
            self._kind = opcode
            self._size = 0
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
            fragments = self._fragments = []
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, fin)
            except UnicodeDecodeError:
                raise ProtocolError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
        fragments.append(payload)
        self._size += len(payload)
        if fin:
            events.append(Message(self._kind == TEXT, b"".join(fragments)))
            self._fragments = None
            self._utf8 = None


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "text is not UTF-8") from None


def _parse_close(payload: bytes) -> Close:
    if not payload:
        return Close(None, "")
    if len(payload) == 1:
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "close with half a code")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CLOSE_CODES_OF_THE_RFC and not 3000 <= code <= 4999:
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "close code that must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "close reason is not UTF-8") from None


def _header(opcode: int, length: int) -> bytes:
    if length < 126:
        return bytes((0x80 | opcode, length))
    if length < 0x10000:
        return struct.pack("!BBH", 0x80 | opcode, 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, 127, length)


_SHORT_TEXT = tuple(_header(TEXT, length) for length in range(126))
_SHORT_BINARY = tuple(_header(BINARY, length) for length in range(126))


def text_header(length: int) -> bytes:
    """Return the header of a text frame of `length` bytes, for callers that join many frames at once."""
    return _SHORT_TEXT[length] if length < 126 else _header(TEXT, length)


def part_header(length: int, *, first: bool, last: bool) -> bytes:
    """Return the header of one frame of a text message that stands in several."""
    header = _header(TEXT if first else CONTINUATION, length)
    return header if last else bytes((header[0] & 0x7F,)) + header[1:]


def binary_header(length: int) -> bytes:
    """Return the header of a binary frame of `length` bytes."""
    return _SHORT_BINARY[length] if length < 126 else _header(BINARY, length)


def deflated_header(length: int, *, text: bool) -> bytes:
    """Return the header of a frame whose `length` bytes are a whole deflated message."""
    header = _header(TEXT if text else BINARY, length)
    return bytes((header[0] | DEFLATED,)) + header[1:]


def encode_text(payload: bytes) -> bytes:
    """Return one text frame; that `payload` is UTF-8 is the caller's word."""
    return text_header(len(payload)) + payload


def encode_binary(payload: bytes) -> bytes:
    """Return one binary frame."""
    return binary_header(len(payload)) + payload


def encode_ping(payload: bytes = b"") -> bytes:
    """Return a Ping of at most 125 bytes; raises ValueError when it is longer."""
    return _control(PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """Return a Pong of at most 125 bytes; raises ValueError when it is longer."""
    return _control(PONG, payload)


def encode_close(code: int | None, reason: str = "") -> bytes:
    """Return a Close; a reason that does not fit is cut at a character. None gives a Close without a code."""
    if code is None:
        return _control(CLOSE, b"")
    said = reason.encode("utf-8", "replace")[: CONTROL_BYTES_MAX - 2].decode("utf-8", "ignore").encode()
    return _control(CLOSE, struct.pack("!H", code) + said)


def _control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > CONTROL_BYTES_MAX:
        raise ValueError(f"a control frame carries at most {CONTROL_BYTES_MAX} bytes")
    return _header(opcode, len(payload)) + payload


def sort(events: Iterable[Event]) -> tuple[list[Event], bytes, Close | None]:
    """Part the events of one read: its messages, the Pongs that answer its Pings as whole frames, and the last Close."""
    messages: list[Event] = []
    pongs: list[bytes] = []
    close: Close | None = None
    for event in events:
        if type(event) is Message:
            messages.append(event)
        elif type(event) is Ping:
            pongs.append(encode_pong(event.payload))
        elif type(event) is Close:
            close = event
    return messages, b"".join(pongs), close
