"""What a canvas socket is told, made from what a room has; and what it says, made into publications.

    canvas_update {key: value, key: null}    put {key: {"value": value}}, remove [key]
    chat_message                             a publication of kind `chat` with the message as `data`
    any other object, with an id             a publication of kind `canvas.message` with the object as `data`
    canvas_state                             the property `value` of each record that has it

So a member that speaks `signald.v1` shares both. Of its publications a canvas is told what concerns `value`, and chats; it has no word for
other properties, kinds, binary data and presences.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from signald.core.rooms import NULL, Entry, Properties, Publication
from signald.wire import records

VALUE = "value"
"""The property of a record that a canvas shows."""

CHAT = "chat"
"""The kind of a publication that is a message of the chat."""

_encode = msgspec.json.encode


class Chat(Struct, frozen=True, gc=False):
    """A message of the chat, and its place in the room."""

    message: bytes
    member: str
    at_ms: int
    position: int

    def fields(self) -> bytes:
        """Return it as the fields of a JSON object."""
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return b'"message":%b,"from":%b,"at":"%b"' % (self.message, _encode(self.member), at.encode())


class _Body(Struct, frozen=True, gc=False):
    kind: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class _Record(Struct, frozen=True, gc=False):
    value: Raw | UnsetType = UNSET


_bodies = msgspec.json.Decoder(_Body)
_records = msgspec.json.Decoder(_Record)
PASSED_ON = "canvas.message"
"""The kind of a publication that is another object of a socket. One without an id is no publication (`rooms.casting`)."""

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# --- from a socket ------------------------------------------------------------------------------------------------


def edit(patch: Mapping[str, Raw]) -> Publication:
    """Return the publication of an edit; `patch` is not empty."""
    puts = tuple([(key, ((VALUE, bytes(value)),)) for key, value in patch.items() if bytes(value) != NULL])
    return Publication(0, b"", puts, (), tuple([key for key, value in patch.items() if bytes(value) == NULL]))


def chat(message: Raw) -> Publication:
    """Return the publication of a message of the chat."""
    return Publication(0, records.publication_body(CHAT, bytes(message), None))


def passed_on(payload: bytes) -> Publication:
    """Return the publication of another object, which is told to all others as it is."""
    return Publication(0, records.publication_body(PASSED_ON, payload, None))


# --- to a socket --------------------------------------------------------------------------------------------------


def chat_of(entry: Entry) -> Chat | None:
    """Return the message of the chat that an entry of the log is; None: it is none, or is damaged."""
    data = _data_of(entry, CHAT)
    return None if data is None else Chat(data, entry.member, entry.at_ms, entry.position)


def _data_of(entry: Entry, kind: str) -> bytes | None:
    """Return the data of an entry of this kind, as JSON; None: it is of another, has none, or is damaged."""
    body = entry.publication.body
    if body[:1] != b"t":
        return None
    try:
        read = _bodies.decode(b"{" + body[1:])
    except _ERRORS:
        return None
    return None if read.kind != kind or read.data is UNSET else bytes(read.data)


def update_of(entry: Entry) -> bytes:
    """Return the `canvas_update` of an entry; empty: it changes nothing that a canvas shows."""
    said, shown = entry.publication, dict[str, bytes]()
    for name, properties in said.puts:
        shown[name] = _value(properties) or NULL
    for name, properties in said.patches:
        value = _value(properties)
        if value is not None:
            shown[name] = value
    shown.update(dict.fromkeys(said.removes, NULL))
    if not shown:
        return b""
    return b'{"type":"canvas_update","patch":%b,"from":%b,"version":%d}' % (
        _object(shown.items()),
        _encode(entry.member),
        entry.position,
    )


def told(entry: Entry) -> bytes:
    """Return what a socket is told of an entry; empty: nothing."""
    if not entry.publication.body:
        return update_of(entry)
    said = chat_of(entry)
    if said is not None:
        return b'{"type":"chat_message",' + said.fields() + b"}"
    return _data_of(entry, PASSED_ON) or b""


def is_echoed(entry: Entry) -> bool:
    """Tell whether the sender of an entry is told of it too."""
    return chat_of(entry) is not None


def restored(state: Mapping[str, bytes], chats: Sequence[Chat], member: str, version: int) -> bytes:
    """Return the `session_restored` for records by id, as JSON, and the chat."""
    values = ((name, value) for name, record in state.items() if (value := _value_in(record)) is not None)
    return b'{"type":"session_restored","canvas_state":%b,"chat_history":[%b],"member":%b,"version":%d}' % (
        _object(values),
        b",".join([b"{" + one.fields() + b"}" for one in chats]),
        _encode(member),
        version,
    )


def error(code: str, text: str, id: str = "", retry_after_ms: int = 0) -> bytes:  # noqa: A002
    """Return an `error`: its `id` is that of the message which is not taken."""
    fields: dict[str, str | int] = {"type": "error", "code": code, "message": text}
    if id:
        fields["id"] = id
    if retry_after_ms:
        fields["retry_after_ms"] = retry_after_ms
    return _encode(fields)


def _value(properties: Properties) -> bytes | None:
    return dict(properties).get(VALUE)


def _value_in(record: bytes) -> bytes | None:
    try:
        value = _records.decode(record).value
    except _ERRORS:
        return None  # the store has damaged it
    return None if value is UNSET or bytes(value) == NULL else bytes(value)


def _object(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join([_encode(name) + b":" + value for name, value in pairs]) + b"}"
