"""Frames from signald to messages. An unknown type is skipped; a malformed frame breaks the connection."""

import struct
from typing import TypeVar

import msgspec

from signald.sdk.errors import LinkBroken
from signald.wire import surrogates
from signald.wire.messages import (
    Ack,
    AppAccepted,
    ErrorMessage,
    GoAway,
    Job,
    JobCancel,
    JobStateChanged,
    Message,
    NewApiToken,
    PeerChanged,
    Ping,
    Pong,
    Realtime,
    Receipt,
    ReconnectionAck,
    SessionAssigned,
    SessionEnded,
    SessionRestored,
    SessionStarted,
    StreamCancelled,
    StreamState,
    Successor,
    TerminateApp,
)
from signald.wire.rooms import Joined, Left, Published, RoomError, RoomMessage, RoomPresence, RoomSnapshot

_U16 = struct.Struct(">H")
M = TypeVar("M")

OfRooms = Joined | RoomSnapshot | Published | RoomMessage | RoomError | RoomPresence | Left
Shared = Message | Ack | Receipt | Realtime | Ping | Pong | ErrorMessage | GoAway | SessionEnded | NewApiToken | OfRooms
ToClient = SessionStarted | SessionRestored | PeerChanged | JobStateChanged | StreamState | Shared
ToWorker = (
    AppAccepted
    | ReconnectionAck
    | SessionAssigned
    | Job
    | JobCancel
    | StreamCancelled
    | Successor
    | TerminateApp
    | Shared
)

_client: msgspec.json.Decoder[ToClient] = msgspec.json.Decoder(ToClient)
_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)

_OF_ROOMS = {"joined", "snapshot", "published", "room_message", "room_error", "room_presence", "left"}
_SHARED = _OF_ROOMS | {
    "message", "ack", "receipt", "realtime", "ping", "pong", "error", "goaway", "session_ended", "api_token",
}  # fmt: skip
_CLIENT = frozenset(_SHARED | {"session_started", "session_restored", "peer", "job_state", "stream_state"})
_WORKER = frozenset(
    _SHARED
    | {
        "app_accepted",
        "reconnection_ack",
        "session_assigned",
        "job",
        "job_cancel",
        "stream_cancel",
        "successor",
        "terminate_app",
    }
)


class _Typed(msgspec.Struct):
    type: str


_typed = msgspec.json.Decoder(_Typed)


def _decode(
    decoder: msgspec.json.Decoder[M], known: frozenset[str], data: str | bytes
) -> tuple[M | None, bytes | None]:
    binary: bytes | None = None
    payload: str | bytes = data
    if isinstance(data, bytes):
        end = 2 + _U16.unpack_from(data)[0] if len(data) >= 2 else len(data) + 1
        if end > len(data):
            raise LinkBroken("a binary frame without a whole header")
        payload, binary = data[2:end], data[end:]
    try:
        return decoder.decode(payload), binary
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        failed: Exception = error
    marked = surrogates.mark(payload.encode() if isinstance(payload, str) else payload)
    if marked is not None:
        payload = marked.text
        try:
            return marked.decode(decoder), binary
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            failed = error
    if isinstance(failed, msgspec.ValidationError) and _type(payload) not in known:
        return None, None  # a newer signald may say more than this SDK knows
    raise LinkBroken(f"not a message of signald.v1: {failed}"[:300])


def _type(payload: str | bytes) -> str:
    try:
        return _typed.decode(payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinkBroken(f"not a message of signald.v1: {error}") from None


def decode_for_client(data: str | bytes) -> tuple[ToClient | None, bytes | None]:
    """Decode one frame: (message, or None when its type is unknown; the data of a binary frame).

    Raises:
        LinkBroken: not a frame of signald.v1.
    """
    return _decode(_client, _CLIENT, data)


def decode_for_worker(data: str | bytes) -> tuple[ToWorker | None, bytes | None]:
    """As `decode_for_client`, on a worker's connection."""
    return _decode(_worker, _WORKER, data)
