"""Every message of `signald.v1`, as bounded structs. Field names are the names on the wire.

Structs are decoded strictly (a string is not a number) with unknown fields ignored, so that an older node can read a
newer party. `data` stays raw: signald carries it and never looks inside.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import force_setattr

from signald.wire.fields import (
    HISTORY_MAX,
    KIND_MAX,
    NAME_MAX,
    NO_DATA,
    REASON_MAX,
    SEQ_MAX,
    Inbound,
    Name,
    Outbound,
    Position,
    Reason,
    Seq,
)
from signald.wire.rooms import (
    Join,
    Leave,
    Presence,
    Publish,
    RoomPositions,
    Snapshot,
)

SUBPROTOCOL = "signald.v1"

TRACE_MAX = 256
"""Characters of a `trace`."""
STATE_BYTES_MAX = 32_768
"""Bytes of a `state` that a worker leaves for the next one."""
SETTINGS_BYTES_MAX = 32_768
"""Bytes of the `settings` that the core server gives for a session: as many as a worker may leave for the next one."""
TICKET_MAX = 256
"""Characters of a `ticket`: five times what a node makes."""
STREAM_MAX, CONTENT_TYPE_MAX = 64, 128
"""Characters of the name of a stream, and of a `content_type`."""
BLOB_MAX = 64
"""Characters of the id of a blob: a third more than signald makes."""
SECRET_MAX = 8192
API_TOKEN_MAX = 10_240
"""Characters of an API token: it names a principal, which a JWT of `SECRET_MAX` may have named."""
KINDS_MAX, JOBS_MAX = 64, 200
"""Kinds of jobs that a worker names, and jobs that it names in one session: twice as many as a session may have unfinished."""
LABELS_MAX, LABEL_NAME_MAX, LABEL_VALUE_MAX = 32, 64, 256
CAPACITY_MAX = 100_000

Millis = Annotated[int, Meta(ge=-SEQ_MAX, le=SEQ_MAX)]
"""A duration that signald gives. A negative one counts as 0."""
Epoch = Annotated[int, Meta(ge=-SEQ_MAX, le=SEQ_MAX)]
Secret = Annotated[str, Meta(min_length=1, max_length=SECRET_MAX)]
ApiTokenText = Annotated[str, Meta(min_length=1, max_length=API_TOKEN_MAX)]
Labels = Annotated[
    dict[Annotated[str, Meta(max_length=LABEL_NAME_MAX)], Annotated[str, Meta(max_length=LABEL_VALUE_MAX)]],
    Meta(max_length=LABELS_MAX),
]
Capacity = Annotated[int, Meta(ge=0, le=CAPACITY_MAX)]
Trace = Annotated[str, Meta(max_length=TRACE_MAX)]

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
CancelReason = Literal["requested", "deadline", "session_ended"]

PeerState = Literal["waiting", "paired", "away", "replaced", "gone", "none"]
"""`none` is told only to a session that asked for no worker."""


class _Trimmed(Struct, frozen=True, gc=False):
    """Base of messages with texts that had no bound in release 0.1.0: a longer one is dropped or cut, and refuses nothing."""

    def __post_init__(self) -> None:
        """Keep no text beyond its bound."""
        for name, (most, cut) in _BOUNDS.items():
            text = getattr(self, name, None)
            if type(text) is str and len(text) > most:
                force_setattr(self, name, text[:most] if cut else None)


_BOUNDS = {
    "trace": (TRACE_MAX, False),
    "ticket": (TICKET_MAX, False),
    "request_id": (NAME_MAX, True),
    "status": (KIND_MAX, True),
    "code": (KIND_MAX, True),
    "message": (REASON_MAX, True),
}
"""Field of a `_Trimmed` message → how many characters are kept, and whether a longer text is cut (or else dropped)."""


# --- from a client -----------------------------------------------------------------------------------------------


class Connect(Inbound, _Trimmed, tag="connect", frozen=True):
    """A client's opening message: start a session with a worker that has the labels of `want`; with `pair` false, with no worker."""

    auth: Secret | None = None
    want: Labels = {}
    meta: Raw = Raw()
    receipts: bool = False
    trace: str | None = None
    pair: bool = True
    api: bool = False


class RestoreSession(Inbound, _Trimmed, tag="restore_session", frozen=True):
    """A client's opening message: resume.

    `received` is the highest contiguous seq it has of the worker's messages; None when it does not know. `acked` (an extension) is the
    highest seq of its own that was acked to it. If the store has lost more than that, the loss is said and no seq is used twice.
    `attempt` (an extension) counts the opening messages of this party; an older one claims nothing (0: not counted).
    """

    recovery_token: Secret
    received: Position | None = None
    acked: Position = 0
    attempt: Position = 0
    auth: Secret | None = None
    history: Annotated[int, Meta(ge=0, le=HISTORY_MAX)] = 0
    ticket: str | None = None
    trace: str | None = None
    api: bool = False
    rooms: RoomPositions = []
    """The rooms that it is in."""


class StreamCancel(Inbound, tag="stream_cancel", frozen=True):
    """The client asks the worker to end a stream."""

    stream: Annotated[str, Meta(max_length=STREAM_MAX)]
    reason: Reason = ""


# --- from a worker -----------------------------------------------------------------------------------------------


class SessionPosition(Struct, frozen=True, gc=False):
    """The position of a resuming worker in a session; `acked` as in `RestoreSession`."""

    session: Name
    received: Position = 0
    acked: Position = 0
    jobs: Annotated[list[Name], Meta(max_length=JOBS_MAX)] = []
    """The ids of the jobs that it has and has not ended."""
    rooms: RoomPositions = []
    """The rooms that it is in for this session."""


class AppReady(Inbound, _Trimmed, tag="app_ready", frozen=True):
    """A worker's opening message, the first time (`reconnection` false) or to resume; `attempt` as in `RestoreSession`."""

    instance_id: Name
    capacity: Capacity = 1
    labels: Labels = {}
    config: Raw = Raw()
    auth: Secret | None = None
    reconnection: bool = False
    last_close_code: Annotated[int, Meta(ge=-SEQ_MAX, le=SEQ_MAX)] | None = None
    recovery_token: Secret | None = None
    sessions: Annotated[list[SessionPosition], Meta(max_length=100_000)] = []
    attempt: Position = 0
    ticket: str | None = None
    trace: str | None = None
    api: bool = False
    jobs: Annotated[list[Annotated[str, Meta(max_length=KIND_MAX)]], Meta(max_length=KINDS_MAX)] = []
    """The kinds of jobs that it takes; `*` is every kind."""


class SessionAccept(Inbound, tag="session_accept", frozen=True):
    """The worker takes the session it was assigned; `epoch` is that of the assignment it answers."""

    session: Name
    epoch: Epoch | UnsetType = UNSET


class SessionRefuse(Inbound, tag="session_refuse", frozen=True):
    """The worker does not take the session; another one will be asked. `epoch` as in `SessionAccept`."""

    session: Name
    reason: Reason = ""
    epoch: Epoch | UnsetType = UNSET
    state: Raw = NO_DATA
    """What the next worker finds in its assignment."""


class JobProgress(Inbound, tag="job_progress", frozen=True):
    """The worker says how far it is with a job: any JSON."""

    session: Name
    job: Name
    progress: Raw


class AppState(Inbound, tag="app_state", frozen=True):
    """The worker's room has changed; `leaving` asks for no more sessions, `successor` to be told when others have room for those it has."""

    capacity: Capacity
    load: Annotated[float, Meta(ge=0)] | None = None
    leaving: bool = False
    successor: bool = False


class AppTerminated(Inbound, _Trimmed, tag="app_terminated", frozen=True):
    """The answer to `terminate_app`."""

    request_id: str = ""
    status: str = "OK"
    message: str = ""


# --- from both ---------------------------------------------------------------------------------------------------


class StreamError(Struct, frozen=True, gc=False):
    """The reason for which a stream did not end well, by the word of its sender."""

    code: Annotated[str, Meta(max_length=KIND_MAX)] = ""
    message: Reason = ""


class Message(Inbound, tag="message", frozen=True):
    """An accepted-once, delivered-in-order message. `session` only from workers.

    The fields from `stream` on make it a piece of a stream. Which of them go together, `core.streams` judges: a wrong combination
    costs its sender this message only.
    """

    seq: Seq
    data: Raw = NO_DATA
    session: Name | None = None
    kind: Annotated[str, Meta(max_length=KIND_MAX)] | None = None
    history: bool | None = None
    trace: Trace | None = None
    stream: Annotated[str, Meta(max_length=STREAM_MAX)] | None = None
    attempt: Annotated[int, Meta(ge=-SEQ_MAX, le=SEQ_MAX)] | None = None
    fold: Annotated[str, Meta(max_length=KIND_MAX)] | None = None
    content_type: Annotated[str, Meta(max_length=CONTENT_TYPE_MAX)] | None = None
    end: bool = False
    outcome: Annotated[str, Meta(max_length=KIND_MAX)] | None = None
    error: StreamError | None = None
    blob: Annotated[str, Meta(max_length=BLOB_MAX)] | None = None


class Ack(Inbound, tag="ack", frozen=True):
    """Everything up to and including `seq` has been received (and, by an SDK's word, finished with)."""

    seq: Position
    session: Name | None = None


class Receipt(Inbound, tag="receipt", frozen=True):
    """The peer has everything up to `seq`; only signald has reason to send it, from a party it is ignored."""

    seq: Position
    session: Name | None = None


class Realtime(Inbound, tag="realtime", frozen=True):
    """Carried at once or not at all."""

    data: Raw = NO_DATA
    session: Name | None = None
    trace: Trace | None = None


class Ping(Inbound, tag="ping", frozen=True):
    """App-level heartbeat; answered with `pong`."""


class Pong(Inbound, tag="pong", frozen=True):
    """The answer to a `ping`."""


class Bye(Inbound, tag="bye", frozen=True):
    """End the session; from a worker without `session`: the worker leaves for good."""

    reason: Reason = ""
    session: Name | None = None


class Auth(Inbound, tag="auth", frozen=True):
    """A new credential of a connected party, of the same subject as the one it was let in with."""

    auth: Secret


class PartyError(Inbound, _Trimmed, tag="error", frozen=True):
    """Something the party wants noted; it changes nothing."""

    code: str = ""
    message: str = ""
    session: Name | None = None


Shared = Message | Ack | Receipt | Realtime | Ping | Pong | Bye | Auth | PartyError
InRooms = Join | Publish | Snapshot | Presence | Leave
ClientMessage = Connect | RestoreSession | StreamCancel | Shared | InRooms
WorkerMessage = AppReady | SessionAccept | SessionRefuse | JobProgress | AppState | AppTerminated | Shared | InRooms


# --- to a party --------------------------------------------------------------------------------------------------


class Peer(Struct, frozen=True, gc=False):
    """The other party as shown in an answer to an opening message; `id` is null while there is none."""

    state: PeerState
    id: str | None = None


JSON_DEPTH = 32
"""Nesting that a node takes which names no other bound; the object of the message itself is the first level."""


class Limits(Struct, frozen=True, gc=False):
    """The limits of what a client sends."""

    message_bytes: Position
    messages_per_s: float
    messages_burst: Position
    backlog_messages: Position
    json_depth: Position = JSON_DEPTH


class WorkerLimits(Struct, frozen=True, gc=False):
    """The limits of what a worker sends."""

    message_bytes: Position
    json_depth: Position = JSON_DEPTH


class SessionStarted(Outbound, tag="session_started", frozen=True):
    """The answer to `connect`."""

    session: str
    recovery_token: Secret
    token_ttl_ms: Millis
    peer: Peer
    next_seq: Seq
    limits: Limits
    heartbeat_ms: Millis
    api_token: ApiTokenText | UnsetType = UNSET
    api_token_ttl_ms: Millis | UnsetType = UNSET
    settings: Raw | UnsetType = UNSET
    """What the core server says for this session."""


class JobSummary(Struct, frozen=True, gc=False):
    """A job in short."""

    job: str
    state: JobState
    attempt: Position


class SessionRestored(Outbound, tag="session_restored", frozen=True):
    """The answer to `restore_session`; `replaying` messages follow."""

    session: str
    recovery_token: Secret
    token_ttl_ms: Millis
    accepted: Position
    replaying: Position
    peer: Peer
    heartbeat_ms: Millis
    chat_history: list[Raw] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    api_token: ApiTokenText | UnsetType = UNSET
    api_token_ttl_ms: Millis | UnsetType = UNSET
    jobs: list[JobSummary] | UnsetType = UNSET
    """Its jobs that have not ended, or have within the time that its token lives."""
    next_received: Seq | UnsetType = UNSET
    """The seq of the first message that follows; for a client that did not say what it has."""
    settings: Raw | UnsetType = UNSET
    """As in `SessionStarted`, or later ones: a program that starts again from what it has kept may not have kept them."""


class PeerChanged(Outbound, tag="peer", frozen=True):
    """The state of the client's worker has changed."""

    state: PeerState
    id: str | UnsetType = UNSET


class StreamState(Outbound, tag="stream_state", frozen=True):
    """signald has ended a stream of the worker."""

    stream: str
    attempt: int
    outcome: str


class StreamCancelled(Outbound, tag="stream_cancel", frozen=True):
    """The client asks this worker to end a stream."""

    session: str
    stream: str
    reason: str = ""


class Successor(Outbound, tag="successor", frozen=True):
    """Other workers have room for these sessions of a worker that leaves."""

    sessions: list[str]


class SessionEnded(Outbound, tag="session_ended", frozen=True):
    """The session is over, for good."""

    reason: str
    session: str | UnsetType = UNSET


class AppAccepted(Outbound, tag="app_accepted", frozen=True):
    """The answer to a first `app_ready`."""

    status: str
    worker: str
    recovery_token: Secret
    token_ttl_ms: Millis
    heartbeat_ms: Millis
    limits: WorkerLimits | UnsetType = UNSET
    api_token: ApiTokenText | UnsetType = UNSET
    api_token_ttl_ms: Millis | UnsetType = UNSET


class ResumedSession(Struct, frozen=True, gc=False):
    """A session of a resumed worker: the seq up to which its messages are stored, and the number to be replayed."""

    session: str
    accepted: Position
    replaying: Position


class ReconnectionAck(Outbound, tag="reconnection_ack", frozen=True):
    """The answer to an `app_ready` with `reconnection`."""

    status: str
    worker: str
    recovery_token: Secret
    token_ttl_ms: Millis
    session_restored: bool
    server_status: str
    sessions: list[ResumedSession]
    lost: list[str]
    heartbeat_ms: Millis
    limits: WorkerLimits | UnsetType = UNSET
    api_token: ApiTokenText | UnsetType = UNSET
    api_token_ttl_ms: Millis | UnsetType = UNSET


class AssignedClient(Struct, frozen=True, omit_defaults=True, gc=False):
    """The client of an assigned session; `subject` is what its credential says of it, absent when it showed none.

    `settings` is what the core server says for the session, the same that the client is told.
    """

    meta: Raw | UnsetType = UNSET
    subject: str | UnsetType = UNSET
    settings: Raw | UnsetType = UNSET


class OpenStream(Struct, frozen=True, omit_defaults=True, gc=False):
    """A stream of the worker's direction that is open: the worker goes on in it or ends it."""

    stream: str
    attempt: int
    kind: str = ""
    data: Raw | UnsetType = UNSET
    """All of its text that is kept."""
    truncated: bool = False
    """Something is missing in front of `data`."""
    cancel: bool = False
    """Its reader has asked for its end."""
    reason: str = ""
    """Why."""


class SessionAssigned(Outbound, tag="session_assigned", frozen=True):
    """A session for this worker to accept or refuse; `next_seq` is the seq of its first message in it.

    `epoch` comes back with the answer, and tells it from one to an earlier assignment that comes late.
    """

    session: str
    client: AssignedClient
    next_seq: Seq
    chat_history: list[Raw] | UnsetType = UNSET
    epoch: Epoch | UnsetType = UNSET
    state: Raw | UnsetType = UNSET
    """What the worker before has left for this one."""
    attempt: int = 0
    """How often the session has been handed out since a worker last acked something, this time included."""
    open_streams: list[OpenStream] | UnsetType = UNSET


class Job(Outbound, tag="job", frozen=True):
    """A job for this worker, in a session that it has accepted. `data` is JSON in a text frame, and else the rest of a binary one."""

    session: str
    job: str
    kind: str
    attempt: Seq
    content_type: str | UnsetType = UNSET
    """Of binary data."""
    deadline_ms: Millis | UnsetType = UNSET
    """How much time is left."""
    trace: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class JobCancel(Outbound, tag="job_cancel", frozen=True):
    """The worker works on a job without need."""

    session: str
    job: str
    reason: CancelReason


class JobStateChanged(Outbound, tag="job_state", frozen=True):
    """A job of the session has changed."""

    job: str
    state: JobState
    attempt: Position
    progress: Raw | UnsetType = UNSET
    """The last that its worker has said, any JSON."""
    error: Raw | UnsetType = UNSET
    """An object with `code` and `message`: why it has not succeeded."""


class TerminateApp(Outbound, tag="terminate_app", frozen=True):
    """Clean up and answer `app_terminated`."""

    request_id: str
    reason: str
    deadline_ms: Millis


class ErrorMessage(Outbound, tag="error", frozen=True):
    """Something was not done. `fatal` announces that the connection will be closed."""

    code: str
    message: str
    fatal: bool | UnsetType = UNSET
    session: str | UnsetType = UNSET
    expected: Position | UnsetType = UNSET
    retry_after_ms: Millis | UnsetType = UNSET
    lost_from: Position | UnsetType = UNSET
    lost_to: Position | UnsetType = UNSET
    direction: Literal["sent", "received"] | UnsetType = UNSET
    """Of `log_lost`: the direction of the lost messages, seen from its receiver."""
    seq: int | UnsetType = UNSET
    """Of `undeliverable`: the message at which every hand-out has failed."""
    stream: str | UnsetType = UNSET
    """Of `stream_over` and `stream_superseded`."""


class NewApiToken(Outbound, tag="api_token", frozen=True):
    """The next API token, before the last one runs out."""

    api_token: ApiTokenText
    api_token_ttl_ms: Millis


class GoAway(Outbound, tag="goaway", frozen=True):
    """Open a new connection, resume there, and leave this one to the server to close."""

    reason: str
    not_before_ms: Millis
    deadline_ms: Millis
    target: str | UnsetType = UNSET
    ticket: str | UnsetType = UNSET
