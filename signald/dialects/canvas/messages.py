"""What a canvas socket says, read from its text frames. A frame that is wrong costs its sender an error message, and nothing else."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.wire.codec import too_deep

ID_MAX = 64
"""Characters of the id of a message, from the contract of the wire."""

TYPE_MAX = 64
"""Characters of a type: a name in a program has half of it."""

RESERVED = frozenset({"session_restored", "pong", "error"})
"""What signald alone says. From a socket it would reach the others, who would take it for the word of the server."""

Id = Annotated[str, Meta(min_length=1, max_length=ID_MAX)]


class WrongError(Exception):
    """The frame is not taken; `code` and the text are told to its sender."""

    def __init__(self, code: str, text: str, id: str = "") -> None:  # noqa: A002
        super().__init__(text)
        self.code = code
        self.text = text
        self.id = id


class RestoreSession(Struct, frozen=True, gc=False):
    """The socket asks for what the session has."""

    session_id: str | UnsetType = UNSET


class CanvasUpdate(Struct, frozen=True, gc=False):
    """Records are replaced, or removed by null."""

    patch: dict[str, Raw]
    id: Id | None = None


class ChatMessage(Struct, frozen=True, gc=False):
    """A message of the chat, of any JSON."""

    message: Raw
    id: Id | None = None


class Ping(Struct, frozen=True, gc=False):
    """The heartbeat of a browser."""


class Auth(Struct, frozen=True, gc=False):
    """A new credential, as on `signald.v1`. It is never passed on, as another type would be."""

    auth: str


class Other(Struct, frozen=True, gc=False):
    """Anything else with a type: it goes to all others as it is."""

    payload: bytes
    id: Id | None = None


class _Typed(Struct, frozen=True, gc=False):
    type: Annotated[str, Meta(min_length=1, max_length=TYPE_MAX)]


class _Named(Struct, frozen=True, gc=False):
    id: Id | None = None


Said = RestoreSession | CanvasUpdate | ChatMessage | Ping | Auth | Other

_typed = msgspec.json.Decoder(_Typed)
_named = msgspec.json.Decoder(_Named)
_decoders: dict[str, msgspec.json.Decoder[Said]] = {
    "restore_session": msgspec.json.Decoder(RestoreSession),
    "canvas_update": msgspec.json.Decoder(CanvasUpdate),
    "chat_message": msgspec.json.Decoder(ChatMessage),
    "ping": msgspec.json.Decoder(Ping),
    "auth": msgspec.json.Decoder(Auth),
}

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read(text: bool, payload: bytes, depth_max: int) -> Said:
    """Return what one frame says. Raises WrongError."""
    if not text:
        raise WrongError("bad_message", "only text frames are taken, each with one JSON object")
    if too_deep(payload, depth_max):
        raise WrongError("bad_message", f"nested deeper than {depth_max}", _id_of(payload))
    try:
        kind = _typed.decode(payload).type
    except _DECODE_ERRORS:
        raise WrongError("bad_message", "expected one JSON object with a `type` of 1 to 64 characters") from None
    if kind in RESERVED:
        raise WrongError("bad_message", f"`{kind}` is said by the server only", _id_of(payload))
    decoder = _decoders.get(kind)
    try:
        if decoder is not None:
            return decoder.decode(payload)
        # Each of its values is looked at: what is passed on must be JSON as a whole.
        return Other(payload, _named.decode(payload).id)
    except _DECODE_ERRORS as error:
        raise WrongError("bad_message", f"`{kind}`: {_told(error)}", _id_of(payload)) from None


def _id_of(payload: bytes) -> str:
    """Return the id of a frame that is refused, so that its sender knows which one it was; "" when none can be read."""
    try:
        return _named.decode(payload).id or ""
    except _DECODE_ERRORS:
        return ""


def _told(error: Exception) -> str:
    """Return what is wrong, without a text of the frame."""
    return str(error)[:200] if isinstance(error, msgspec.ValidationError) else "no valid JSON"
