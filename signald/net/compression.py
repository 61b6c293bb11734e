"""permessage-deflate (RFC 7692): what is agreed in the handshake, and both of its directions. Without I/O.

wsproto's extension negotiates and deflates. It is handed only offers that `_OFFER` has judged, because it raises ValueError for a
parameter such as `client_max_window_bits=abc`. Inflating is done here: wsproto inflates whatever comes, without a bound.

Without context each message is deflated for itself. So a connection holds nothing between two messages, one `Deflater` serves all
connections that have agreed on the same window, and what many are told is deflated once. With context a connection keeps 256 KiB to
deflate and 40 KiB to inflate, and messages that resemble each other become shorter.
"""

import re
import zlib
from collections.abc import Iterable
from typing import Literal

import attrs
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, RsvBits

from signald.net import frames
from signald.net.frames import ProtocolError
from signald.tally import Traffic
from signald.wire.close_codes import CloseCode

Mode = Literal["off", "messages", "context"]

OFFERS_MAX = 8
"""Offers that are looked at. Browsers send one, Autobahn up to four."""

_NAME = "permessage-deflate"
# Windows of 2^8 are declined: zlib cannot deflate with one.
_BITS = r"(?:9|1[0-5])"
_OFFER = re.compile(
    rf"{_NAME}(?:\s*;\s*(?:server_no_context_takeover|client_no_context_takeover|server_max_window_bits={_BITS}"
    rf"|client_max_window_bits(?:={_BITS})?))*"
)
_TAIL = b"\x00\x00\xff\xff"
_NO_BITS = RsvBits(False, False, False)
_AS_SERVER = FrameProtocol(client=False, extensions=[])


@attrs.frozen
class Terms:
    """What both sides have agreed on."""

    said: str
    """The value of the header in the answer."""
    server_bits: int
    """The window of what is sent, as the exponent of 2."""
    client_bits: int
    server_keeps: bool
    """What is sent may refer to earlier messages."""
    client_keeps: bool


def agree(offers: Iterable[str], mode: Mode) -> Terms | None:
    """Return the terms of the first offer that can be accepted; None: the connection is not compressed."""
    if mode == "off":
        return None
    for offer in list(offers)[:OFFERS_MAX]:
        if not _is_sound(offer):
            continue
        alone = mode == "messages"
        extension = PerMessageDeflate(client_no_context_takeover=alone, server_no_context_takeover=alone)
        said = extension.accept(offer)
        if isinstance(said, str):
            return Terms(
                f"{_NAME}; {said}" if said else _NAME,
                extension.server_max_window_bits,
                extension.client_max_window_bits,
                not extension.server_no_context_takeover,
                not extension.client_no_context_takeover,
            )
    return None


def _is_sound(offer: str) -> bool:
    """Tell whether an offer has only parameters of RFC 7692 (7.1), each once and with a value that it may have."""
    if _OFFER.fullmatch(offer) is None:
        return False
    names = [parameter.partition("=")[0].strip() for parameter in offer.split(";")]
    return len(set(names)) == len(names)


class Deflater:
    """Makes messages into frames, deflated where that makes them shorter."""

    __slots__ = ("_bits", "_bytes_min", "_extension", "_keeps", "_traffic")

    def __init__(self, bits: int, bytes_min: int, traffic: Traffic, *, keeps: bool = False) -> None:
        """Leave messages below `bytes_min` alone. With `keeps` each message refers to the ones before: one connection's only."""
        self._bits = bits
        self._bytes_min = bytes_min
        self._keeps = keeps
        self._traffic = traffic
        self.forget()

    def forget(self) -> None:
        """Begin anew: what comes next refers to nothing before it."""
        self._extension = PerMessageDeflate(
            server_no_context_takeover=not self._keeps, server_max_window_bits=self._bits
        )

    def parts(self, payload: bytes, *, text: bool) -> tuple[bytes, bytes]:
        """Return the header and the payload of the frame of one message."""
        size = len(payload)
        if size >= self._bytes_min:
            opcode = Opcode.TEXT if text else Opcode.BINARY
            _, deflated = self._extension.frame_outbound(_AS_SERVER, opcode, _NO_BITS, payload, True)
            # With context it has to go out also when it is longer: what comes next may refer to it.
            if len(deflated) < size or self._keeps:
                self._traffic.deflatable_bytes += size
                self._traffic.deflated_bytes += len(deflated)
                return frames.deflated_header(len(deflated), text=text), deflated
        return frames.text_header(size) if text else frames.binary_header(size), payload


class Inflater:
    """Inflates the messages of one connection, and no further than it is told."""

    __slots__ = ("_bits", "_keeps", "_stream")

    def __init__(self, bits: int, *, keeps: bool) -> None:
        """Without `keeps` nothing is held between two messages."""
        self._bits = bits
        self._keeps = keeps
        self._stream: zlib._Decompress | None = None

    def inflate(self, data: bytes, most: int, *, last: bool) -> bytes | None:
        """Return what a frame of a message holds, the `last` or an earlier one; None: more than `most` bytes.

        zlib is stopped one byte beyond `most`, so a bomb costs no more memory than a message. Raises ProtocolError for what
        cannot be inflated. Nothing may be inflated after either.
        """
        if self._stream is None:
            self._stream = zlib.decompressobj(-self._bits)
        stream = self._stream
        try:
            found = stream.decompress(data, most + 1)
            # A last block may be followed by the padding of an empty one (RFC 7692 7.2.3.4), and by nothing else.
            if stream.eof and len(stream.unused_data) > 1:
                raise ProtocolError(CloseCode.INVALID_DATA, "more behind the last block")
            if last and len(found) <= most:
                found += stream.decompress(_TAIL, most + 1 - len(found))
        except zlib.error:
            raise ProtocolError(CloseCode.INVALID_DATA, "message cannot be inflated") from None
        if last and (stream.eof or not self._keeps):
            self._stream = None
        return found if len(found) <= most else None


class Compression:
    """What a listener agrees to, and the deflaters that its connections share."""

    def __init__(self, mode: Mode, bytes_min: int, traffic: Traffic) -> None:
        self.mode = mode
        self._bytes_min = bytes_min
        self._traffic = traffic
        self._shared: dict[int, Deflater] = {}

    def shared(self, terms: Terms | None) -> Deflater | None:
        """Return the deflater of what many connections with such `terms` are told; there is one for each of seven windows."""
        if terms is None:
            return None
        deflater = self._shared.get(terms.server_bits)
        if deflater is None:
            deflater = self._shared[terms.server_bits] = Deflater(terms.server_bits, self._bytes_min, self._traffic)
        return deflater

    def own(self, terms: Terms | None) -> Deflater | None:
        """Return the deflater of what one connection is told."""
        if terms is None or not terms.server_keeps:
            return self.shared(terms)
        return Deflater(terms.server_bits, self._bytes_min, self._traffic, keeps=True)


def inflater_of(terms: Terms | None) -> Inflater | None:
    """Return the inflater of a new connection."""
    return None if terms is None else Inflater(terms.client_bits, keeps=terms.client_keeps)
