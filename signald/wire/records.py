"""The stored form of a message, and its way back into frames without parsing.

The log keeps *bodies*. A body is one letter for the frame kind, then the tail of the message's JSON object: everything but
`type` and `session`. To deliver it, a head is put in front, which costs no decoding:

    text    b"t" + b'"seq":5,"data":{...}}'
    binary  b"b" + u16 length of the tail + b'"seq":5}' + raw data
"""

import struct
from collections.abc import Iterable

from msgspec import Raw, json

from signald.wire.messages import Message, Realtime

_U16 = struct.Struct(">H")
_encode = json.encode

_HISTORY_KINDS = (None, "chat")


def head(kind: bytes, session: str | None) -> bytes:
    """Return the beginning of a JSON object of type `kind`, with `session` on worker connections."""
    if session is None:
        return b'{"type":"' + kind + b'",'
    return b'{"type":"' + kind + b'","session":"' + session.encode() + b'",'


def message_body(message: Message, binary: bytes | None) -> bytes:
    """Return the body the log keeps for `message`; `binary` is the data of a binary frame."""
    plain = message.kind is None and message.trace is None and message.history is None
    extra = b"" if plain else _extra(message)
    if binary is None:
        return b't"seq":%d%b,"data":%b}' % (message.seq, extra, bytes(message.data))
    tail = b'"seq":%d%b}' % (message.seq, extra)
    return b"b" + _U16.pack(len(tail)) + tail + binary


def _extra(message: Message) -> bytes:
    parts = b""
    if message.kind is not None:
        parts += b',"kind":' + _encode(message.kind)
    if message.history is not None:
        parts += b',"history":' + (b"true" if message.history else b"false")
    if message.trace is not None:
        parts += b',"trace":' + _encode(message.trace)
    return parts


def realtime_body(message: Realtime, binary: bytes | None) -> bytes:
    """Return the body of a `realtime`, in the same form as a message's."""
    trace = b'"trace":' + _encode(message.trace) if message.trace is not None else b""
    if binary is None:
        return b"t" + trace + (b"," if trace else b"") + b'"data":' + bytes(message.data) + b"}"
    tail = trace + b"}"
    return b"b" + _U16.pack(len(tail)) + tail + binary


def is_body(body: bytes) -> bool:
    """Tell whether `frame` can make a frame of `body`: what others have kept or carried may be damaged."""
    return body[:1] == b"t" or (body[:1] == b"b" and len(body) >= 3 and len(body) >= 3 + _U16.unpack_from(body, 1)[0])


def frame(front: bytes, body: bytes) -> tuple[bool, bytes]:
    """Glue `front` (see `head`) before `body`: (is text, payload of one frame)."""
    if body[0] == 0x74:
        return True, front + body[1:]
    end = 3 + _U16.unpack_from(body, 1)[0]
    tail = body[3:end]
    if tail == b"}":
        front = front.rstrip(b",")
    header = front + tail
    return False, _U16.pack(len(header)) + header + body[end:]


def in_history(message: Message, binary: bytes | None) -> bool:
    """Tell whether `message` belongs to the chat history.

    Said by the sender with `history`; unsaid, chat is what has no `kind` or the kind `chat`. Binary data never is: a
    chat history is JSON.
    """
    if binary is not None:
        return False
    return message.kind in _HISTORY_KINDS if message.history is None else message.history


def history_entry(party: str, body: bytes) -> bytes:
    """Return one object of `chat_history` for a text body."""
    return b'{"from":"' + party.encode() + b'",' + body[1:]


def chat_history(entries: Iterable[tuple[str, bytes]]) -> list[Raw]:
    """Stored history, (party, body) oldest first, as it is sent."""
    return [Raw(history_entry(party, body)) for party, body in entries]
