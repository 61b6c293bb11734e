"""The stored form of a message and of a publication in a room, and its way back into frames without parsing.

The log keeps *bodies*. A body is one letter for the frame kind, then the tail of the message's JSON object: everything but
`type` and `session`. To deliver it, a head is put in front, which costs no decoding:

    text    b"t" + b'"seq":5,"data":{...}}'
    binary  b"b" + u16 length of the tail + b'"seq":5}' + raw data

A message of the chat history has the time of its arrival behind its seq: `"seq":5,"at_ms":1700000000000`. The time is the node's own and
is in no frame. Bodies of release 0.1.0 have none.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache

from msgspec import json

from signald.wire.messages import Message, Realtime

_U16 = struct.Struct(">H")
_encode = json.encode

_HISTORY_KINDS = (None, "chat")


def head(kind: bytes, session: str | None) -> bytes:
    """Return the beginning of a JSON object of type `kind`, with `session` on worker connections."""
    if session is None:
        return b'{"type":"' + kind + b'",'
    return b'{"type":"' + kind + b'","session":"' + session.encode() + b'",'


_AT = b',"at_ms":'
_AT_END = len(_AT) + 13
"""Thirteen digits: from 2001 to 2286."""


@lru_cache(16)
def _at(at_ms: int) -> bytes:
    # Many messages arrive in one millisecond.
    return _AT + b"%013d" % at_ms


def message_body(message: Message, binary: bytes | None, at_ms: int = 0) -> bytes:
    """Return the body the log keeps for `message`; `binary` is the data of a binary frame.

    `at_ms`: when it arrived (milliseconds since 1970), for a message of the chat history; 0 for any other.
    """
    plain = message.kind is None and message.trace is None and message.history is None and message.stream is None
    extra = b"" if plain and message.content_type is None and message.blob is None else _extra(message)
    if at_ms:
        extra = _at(at_ms) + extra
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
    if message.stream is not None:
        parts += b',"stream":' + _encode(message.stream)
    if message.attempt is not None:
        parts += b',"attempt":%d' % message.attempt
    if message.fold is not None:
        parts += b',"fold":' + _encode(message.fold)
    if message.content_type is not None:
        parts += b',"content_type":' + _encode(message.content_type)
    if message.end:
        parts += b',"end":true'
    if message.outcome is not None:
        parts += b',"outcome":' + _encode(message.outcome)
    if message.error is not None:
        parts += b',"error":' + _encode(message.error)
    if message.blob is not None:
        parts += b',"blob":' + _encode(message.blob)
    return parts


_FRONT = re.compile(rb't"seq":([0-9]{1,16})(?:,"at_ms":([0-9]{13}))?')


def seq_and_time(body: bytes) -> tuple[int, int]:
    """Return the seq of a text body, and when it arrived (milliseconds since 1970; 0: not known). (0, 0) for what is no such body."""
    found = _FRONT.match(body)
    return (0, 0) if found is None else (int(found[1]), int(found[2] or 0))


def realtime_body(message: Realtime, binary: bytes | None) -> bytes:
    """Return the body of a `realtime`, in the same form as a message's."""
    trace = b'"trace":' + _encode(message.trace) if message.trace is not None else b""
    return _loose_body(trace, bytes(message.data), binary)


def _loose_body(first: bytes, data: bytes, binary: bytes | None) -> bytes:
    """Return a body without a seq: with the field `first`, if it is not empty, and `data` or the data of a binary frame."""
    if binary is None:
        return b"t" + first + (b"," if first else b"") + b'"data":' + data + b"}"
    tail = first + b"}"
    return b"b" + _U16.pack(len(tail)) + tail + binary


_SEQ = re.compile(rb'"seq":[0-9]{1,16}')


def renumbered(body: bytes, seq: int) -> bytes:
    """Return the body of a message that gets another seq."""
    number = b'"seq":%d' % seq
    if body[:1] == b"t":
        return b"t" + _SEQ.sub(number, body[1:], count=1)
    end = 3 + _U16.unpack_from(body, 1)[0]
    tail = _SEQ.sub(number, body[3:end], count=1)
    return b"b" + _U16.pack(len(tail)) + tail + body[end:]


def is_body(body: bytes) -> bool:
    """Tell whether `frame` can make a frame of `body`: what others have kept or carried may be damaged."""
    return body[:1] == b"t" or (body[:1] == b"b" and len(body) >= 3 and len(body) >= 3 + _U16.unpack_from(body, 1)[0])


def frame(front: bytes, body: bytes) -> tuple[bool, bytes]:
    """Glue `front` (see `head`) before `body`: (is text, payload of one frame)."""
    if body[0] == 0x74:
        return True, front + _timeless(body)
    end = 3 + _U16.unpack_from(body, 1)[0]
    tail = body[3:end]
    if tail == b"}":
        front = front.rstrip(b",")
    header = front + tail
    return False, _U16.pack(len(header)) + header + body[end:]


def parts(body: bytes) -> tuple[bytes, bytes | None]:
    """Return the JSON object that `body` holds, and the data of a binary message, or None. The body is one (`is_body`)."""
    if body[:1] == b"t":
        return b"{" + body[1:], None
    end = 3 + _U16.unpack_from(body, 1)[0]
    return b"{" + body[3:end], body[end:]


def _timeless(body: bytes) -> bytes:
    """Return a text body without its letter, and without the time that a node has put behind its seq."""
    at = body.find(b",", 7, 24)
    if body.startswith(_AT, at):
        return body[1:at] + body[at + _AT_END :]
    return body[1:]


def in_history(message: Message, binary: bytes | None) -> bool:
    """Tell whether `message` belongs to the chat history.

    Said by the sender with `history`; unsaid, chat is what has no `kind` or the kind `chat`, and the text of a stream. Binary data
    never is, because a chat history is JSON, and neither is a stream without a text.
    """
    if binary is not None:
        return False
    if message.stream is not None:
        return message.fold is not None and message.history is not False
    return message.kind in _HISTORY_KINDS if message.history is None else message.history


def history_entry(party: str, body: bytes) -> bytes:
    """Return one object of `chat_history` for a text body."""
    return b'{"from":"' + party.encode() + b'",' + _timeless(body)


def stream_entry(
    party: str,
    seq: int,
    stream: str,
    attempt: int,
    kind: str,
    data: bytes,
    outcome: str,
    *,
    truncated: bool,
) -> bytes:
    """Return one object of `chat_history` for a stream. `data` is the inside of a JSON string; `outcome` is "" while it goes on."""
    return b'{"from":"%b","seq":%d%b,"stream":%b,"attempt":%d,%b%b"data":"%b"}' % (
        party.encode(),
        seq,
        b',"kind":' + _encode(kind) if kind else b"",
        _encode(stream),
        attempt,
        b'"outcome":' + _encode(outcome) + b"," if outcome else b'"open":true,',
        b'"truncated":true,' if truncated else b"",
        data,
    )


# --- rooms --------------------------------------------------------------------------------------------------------

Changes = Sequence[tuple[str, Sequence[tuple[str, bytes]]]]
"""Records by id, each with its properties: name, and value as JSON."""


def publication_body(kind: str | None, data: bytes, binary: bytes | None) -> bytes:
    """Return the body that a room keeps for `data`, or for the data of a binary frame. It has neither seq nor position."""
    return _loose_body(b"" if kind is None else b'"kind":' + _encode(kind), data, binary)


def changes_body(puts: Changes, patches: Changes, removes: Sequence[str]) -> bytes:
    """Return changes of records in the form of a body."""
    fields = [b'"%b":%b' % (name, records_json(some)) for name, some in ((b"put", puts), (b"patch", patches)) if some]
    if removes:
        fields.append(b'"remove":' + _encode(removes))
    return b"t" + b",".join(fields) + b"}"


def records_json(records: Changes) -> bytes:
    """Return records as one JSON object."""
    return b"{" + b",".join([_encode(name) + b":" + record_json(properties) for name, properties in records]) + b"}"


def record_json(properties: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a record as a JSON object."""
    return b"{" + b",".join([_encode(key) + b":" + value for key, value in properties]) + b"}"


def room_front(room: str, session: str | None) -> bytes:
    """Return the beginning of each `room_message` of a room, with `session` on worker connections."""
    return head(b"room_message", session) + b'"room":' + _encode(room) + b","


def placed(front: bytes, position: int, member: str, at_ms: int, seq: int = 0) -> bytes:
    """Return `front` (see `room_front`) with the place of a publication in the log; `seq` for its own member only."""
    own = b"" if not seq else b'"seq":%d,' % seq
    return front + b'"position":%d,"member":%b,"at_ms":%d,%b' % (position, _encode(member), at_ms, own)


def room_frame(front: bytes, body: bytes) -> tuple[bool, bytes]:
    """Glue `front` (see `placed`) before the body of a publication: (is text, payload of one frame)."""
    if body[:1] == b"t":
        return True, front + body[1:]
    return frame(front, body)


def room_object(front: bytes, body: bytes) -> bytes:
    """Return a publication as a JSON object; binary data is `data_b64`, in base64."""
    if body[:1] == b"t":
        return front + body[1:]
    tail, data = parts(body)
    first = tail[1:-1] + b"," if len(tail) > 2 else b""
    return front + first + b'"data_b64":"' + b64encode(data or b"") + b'"}'
