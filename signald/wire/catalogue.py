"""Which message goes which way: by party, what it sends, what it is sent, and which of these may be binary frames.

`message`, `ack`, `receipt`, `realtime` and `pong` have one struct for both ways. signald writes these, and `room_message`, without
building one.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from msgspec import Struct

from signald.wire.messages import (
    Ack,
    AppAccepted,
    AppReady,
    ClientMessage,
    Connect,
    ErrorMessage,
    GoAway,
    Job,
    JobCancel,
    JobStateChanged,
    Message,
    NewApiToken,
    PeerChanged,
    Pong,
    Realtime,
    Receipt,
    ReconnectionAck,
    RestoreSession,
    SessionAssigned,
    SessionEnded,
    SessionRestored,
    SessionStarted,
    StreamCancelled,
    StreamState,
    Successor,
    TerminateApp,
    WorkerMessage,
)
from signald.wire.rooms import (
    Joined,
    Left,
    Publish,
    Published,
    RoomError,
    RoomMessage,
    RoomPresence,
    RoomSnapshot,
    Snapshot,
)

Kinds = tuple[type[Struct], ...]

_OF_ROOMS: Kinds = (Joined, RoomSnapshot, Published, RoomMessage, RoomError, RoomPresence, Left)
_TO_BOTH: Kinds = (Message, Ack, Realtime, Pong, SessionEnded, GoAway, ErrorMessage, NewApiToken, *_OF_ROOMS)

SENT_BY: Mapping[Literal["client", "worker"], Kinds] = {
    "client": get_args(ClientMessage),
    "worker": get_args(WorkerMessage),
}
"""Party → what it may send."""

SENT_TO: Mapping[Literal["client", "worker"], Kinds] = {
    "client": (SessionStarted, SessionRestored, PeerChanged, JobStateChanged, StreamState, Receipt, *_TO_BOTH),
    "worker": (
        AppAccepted,
        ReconnectionAck,
        SessionAssigned,
        Job,
        JobCancel,
        StreamCancelled,
        Successor,
        TerminateApp,
        *_TO_BOTH,
    ),
}
"""Party → what signald may send to it."""

ANSWERS: Mapping[type[Struct], Kinds] = {
    Connect: (SessionStarted,),
    RestoreSession: (SessionRestored,),
    AppReady: (AppAccepted, ReconnectionAck),
}
"""Opening message → its answers. Each may get an `error` instead."""

BINARY: frozenset[type[Struct]] = frozenset({Message, Realtime, Job, Publish, RoomMessage, Snapshot, RoomSnapshot})
"""What may be a binary frame, whose `data` stands behind the JSON."""

BINARY_ONLY: frozenset[type[Struct]] = frozenset({Snapshot, RoomSnapshot})
"""What is never a text frame."""

WITHOUT_DATA: frozenset[type[Struct]] = frozenset({Publish, RoomMessage, *BINARY_ONLY})
"""What may be a binary frame, and needs no `data` in a text frame: changes of records stand in its place, or it is never one."""


def tag(kind: type[Struct]) -> str:
    """Return the `type` of a message on the wire."""
    return str(kind.__struct_config__.tag)
