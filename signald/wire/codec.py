"""Bytes to messages and back. Decoding answers with a message, `BadMessage` or `UnknownType`, and nothing else."""

import re
import struct
from typing import TypeVar

import msgspec

from signald.errors import BadMessage, UnknownType
from signald.wire import surrogates
from signald.wire.fields import NO_DATA, Name, Outbound
from signald.wire.messages import ClientMessage, Message, Realtime, WorkerMessage
from signald.wire.rooms import Publish, Snapshot

_U16 = struct.Struct(">H")
_EMPTY = b""
M = TypeVar("M")

_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_worker_decoder: msgspec.json.Decoder[WorkerMessage] = msgspec.json.Decoder(WorkerMessage)
_encoder = msgspec.json.Encoder()


class _Typed(msgspec.Struct):
    type: str


class _Named(msgspec.Struct):
    session: Name


_typed_decoder = msgspec.json.Decoder(_Typed)
_named_decoder = msgspec.json.Decoder(_Named)

# How the frames of a worker begin that do not go on as JSON; a name that needs no escape cannot be misread.
_NAMED = re.compile(rb'\s*\{\s*"type"\s*:\s*"[^"\\]{0,64}"\s*,\s*"session"\s*:\s*"([^"\\]{1,128})"')

_IN_ROOMS = {"join", "publish", "snapshot", "presence", "leave"}

CLIENT_TYPES = frozenset(
    _IN_ROOMS
    | {
        "connect",
        "restore_session",
        "stream_cancel",
        "message",
        "ack",
        "receipt",
        "realtime",
        "ping",
        "pong",
        "bye",
        "auth",
        "error",
    }
)
WORKER_TYPES = frozenset(
    _IN_ROOMS
    | {
        "app_ready",
        "session_accept",
        "session_refuse",
        "job_progress",
        "app_state",
        "app_terminated",
        "message",
        "ack",
        "receipt",
        "realtime",
        "ping",
        "pong",
        "bye",
        "auth",
        "error",
    }
)

# A string that never ends is one match up to the end of the text. Were its closing quote required, the search would begin
# anew at every quote inside it, and one hostile frame would hold up the node for many seconds.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def too_deep(text: bytes, depth_max: int) -> bool:
    """Tell whether the JSON `text` is nested deeper than `depth_max`; brackets inside strings do not count."""
    # A count of brackets bounds the depth from above and costs nothing; only a suspicious text is scanned.
    if text.count(b"{") + text.count(b"[") <= depth_max:
        return False
    depth = 0
    for match in _STRUCTURE.finditer(text):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
            if depth > depth_max:
                return True
        elif token in (b"}", b"]"):
            depth -= 1
    return False


def _decode(
    decoder: msgspec.json.Decoder[M], known: frozenset[str], text: bool, payload: bytes, depth_max: int
) -> tuple[M, bytes | None]:
    binary: bytes | None = None
    if not text:
        if len(payload) < 2:
            raise BadMessage("a binary frame begins with the length of its header")
        end = 2 + _U16.unpack_from(payload)[0]
        if end > len(payload):
            raise BadMessage("the header is longer than the frame")
        binary = payload[end:]
        payload = payload[2:end]
    if too_deep(payload, depth_max):
        raise BadMessage(f"nested deeper than {depth_max}")
    try:
        message = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = _decode_halves(decoder, known, payload, error)
    kind = type(message)
    if kind is Message or kind is Realtime:
        if (message.data is NO_DATA) is (binary is None):  # type: ignore[attr-defined]
            raise BadMessage("`data` belongs in a text frame, or after the header of a binary one")
    elif kind is Snapshot:
        if binary is None:
            raise BadMessage("a `snapshot` is a binary frame")
    elif binary is not None and kind is not Publish:
        raise BadMessage("only `message`, `realtime`, `publish` and `snapshot` may be binary")
    return message, binary


def _decode_halves(decoder: msgspec.json.Decoder[M], known: frozenset[str], payload: bytes, error: Exception) -> M:
    """Decode what msgspec has refused with `error`, if halves of surrogate pairs were all that was wrong."""
    marked = surrogates.mark(payload)
    if marked is None:
        raise _why(error, known, payload) from None
    try:
        return marked.decode(decoder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as again:
        raise _why(again, known, marked.text) from None


def _why(error: Exception, known: frozenset[str], payload: bytes) -> BadMessage | UnknownType:
    if isinstance(error, msgspec.ValidationError):
        try:
            named = _typed_decoder.decode(payload).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return BadMessage("a message is a JSON object with a string `type`")
        if named not in known:
            return UnknownType(named[:64])
        # msgspec names the field and the expected type, never the value: safe to show to the sender.
        return BadMessage(f"{named}: {error}"[:400])
    if isinstance(error, msgspec.DecodeError) and str(error) == surrogates.IN_TEXT:
        return BadMessage(surrogates.IN_TEXT)
    return BadMessage("not valid JSON")


def decode_client(text: bool, payload: bytes, depth_max: int) -> tuple[ClientMessage, bytes | None]:
    """Decode one frame of a client: (message, data of a binary frame or None).

    Raises:
        BadMessage: not JSON, not an object with a known shape, out of bounds, or nested deeper than `depth_max`.
        UnknownType: a well-formed object of a type no client sends.
    """
    return _decode(_client_decoder, CLIENT_TYPES, text, payload, depth_max)


def decode_worker(text: bool, payload: bytes, depth_max: int) -> tuple[WorkerMessage, bytes | None]:
    """Decode one frame of a worker; as `decode_client`."""
    return _decode(_worker_decoder, WORKER_TYPES, text, payload, depth_max)


def session_of(text: bool, payload: bytes) -> str | None:
    """Return the session that a worker's frame names, although the frame is wrong; None when it cannot be read."""
    if not text:
        end = 2 + _U16.unpack_from(payload)[0] if len(payload) >= 2 else 0
        payload = payload[2:end]
    marked = surrogates.mark(payload)
    try:
        return _named_decoder.decode(payload if marked is None else marked.text).session
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _NAMED.match(payload)
        return found[1].decode(errors="replace") if found else None


def encode(message: Outbound) -> bytes:
    """Return the payload of the text frame that carries `message`."""
    return _encoder.encode(message)


def encode_binary(message: Outbound, data: bytes) -> bytes:
    """Return the payload of the binary frame that carries `message` and `data`."""
    header = _encoder.encode(message)
    return _U16.pack(len(header)) + header + data


def ack_frame(seq: int, session: str | None) -> bytes:
    """Return an `ack`, the most frequent frame, without building a struct."""
    if session is None:
        return b'{"type":"ack","seq":%d}' % seq
    return b'{"type":"ack","session":"%b","seq":%d}' % (session.encode(), seq)


def receipt_frame(seq: int, session: str | None) -> bytes:
    """Return a `receipt`: the peer has everything up to `seq`."""
    if session is None:
        return b'{"type":"receipt","seq":%d}' % seq
    return b'{"type":"receipt","session":"%b","seq":%d}' % (session.encode(), seq)


PONG = b'{"type":"pong"}'
PING = b'{"type":"ping"}'
