"""What the service needs of a party's connection, whatever wire the party speaks.

The relay, the attachments and the drain know a party by `PartyLink` alone, and a worker by `worker_like.WorkerLike`. A class
that speaks a wire (`ClientLink` and `WorkerLink` speak `signald.v1`) has these attributes; none of them appears here.
"""

from collections.abc import Collection, Iterator, Sequence, Sized
from typing import ClassVar, Literal, Protocol

import attrs
from msgspec import UNSET, UnsetType

from signald.core.chat_history import HistoryEntry
from signald.core.head import Party
from signald.core.jobs import Job
from signald.core.room_views import Answer, Came, Shown, Told
from signald.core.session import Session
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.service.auth import Verified
from signald.wire.close_codes import CloseCode
from signald.wire.messages import PeerState
from signald.wire.rooms import RoomErrorCode


class PartyLink(Protocol):
    """A party on a connection of this node: one client, or one worker with all its sessions."""

    party: ClassVar[Party]
    dialect: ClassVar[str]
    """The name of the wire that it speaks (`service.dialect`)."""
    conn: Connection
    told_to_go: bool
    """GOAWAY was sent: the close to come is `moved`."""
    told_at: float
    """When it was (trio time)."""
    over: bool
    """The link has been detached; nothing may be attached to it any more."""
    ending: bool
    """The party has said `bye`, or its end is under way for another reason."""
    credential: Verified | None
    """What the party has shown last; None until it is attached."""
    expires_by: float
    """Its credential has run out and must be renewed by then (seconds since 1970); 0: it has not."""
    rooms: bytes
    """What the core server lets a worker do in rooms, as JSON; empty: nothing is said, or it is a client, whose session has it."""

    @property
    def blocked(self) -> Sized:
        """The sessions with more to deliver than the send queue had room for."""

    @property
    def owner(self) -> str:
        """The session of a client, or the worker."""

    @property
    def principal(self) -> str:
        """The name that the party has shown at its opening."""

    @property
    def attached(self) -> "Collection[LiveSession]":
        """The sessions that are attached to this link, in the order of their attachment."""

    @property
    def how_over(self) -> str:
        """How the connection ended, in a few words; empty while it has not."""

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in everything one read yielded."""

    def serves(self, session: str) -> bool:
        """Tell whether `session` is attached to this link."""

    def take(self, session: "LiveSession") -> None:
        """`session` is attached to this link from now on."""

    def drop(self, session: str) -> None:
        """Forget a session that is over here, has moved or was refused."""

    def clear(self) -> None:
        """Forget all sessions: the link is done."""

    def end_session(self, session: str, reason: str) -> None:
        """Tell the party that a session is over for it, unless it has been dropped; a worker drops it."""

    def goodbye(self, reason: str) -> None:
        """Tell a client that its session has ended by its own `bye`."""

    def delivering(self, session: "LiveSession") -> bool:
        """Tell whether messages of `session` may be sent here now."""

    def message_front(self, session: str) -> bytes:
        """Return what the link puts in front of each message of `session`: it is asked for once for many messages."""

    def send_body(self, front: bytes, body: bytes) -> None:
        """Queue a message, as the store keeps it (`wire.records`), behind `front`."""

    def realtime(self, session: str, body: bytes) -> None:
        """Queue a realtime message, in the form of a stored one."""

    def go_away(self, reason: str, deadline_ms: int, ticket: str | None) -> None:
        """Ask the party to come to another node within `deadline_ms`; `ticket` spares it the wait for a set-up there.

        The node closes this connection when the party has. A wire without such a word closes it at once.
        """

    def ack_later(self, session: str, seq: int) -> None:
        """Ack up to `seq` with the next write, or soon."""

    def block(self, session: str) -> None:
        """`session` has more to deliver than the send queue has room for."""

    def unblock(self) -> "list[LiveSession]":
        """Return the sessions that are blocked, in the order in which they came to be; none is blocked any more."""

    def has_room(self) -> None:
        """The send queue has room again: go on with what had to wait for it."""

    def check(self) -> None:
        """Have the registry read again for the worker of this link; nothing happens for a client."""

    def peer_changed(self, state: PeerState, worker: str) -> None:
        """Tell a client of its worker; `worker` is empty when it has none."""

    def job_changed(self, name: str, job: Job) -> None:
        """Tell a client of a change of a job."""

    def receipt(self, acked: int) -> None:
        """Tell a client that its worker has everything up to `acked`."""

    def api_token(self, token: "ApiToken") -> None:
        """Give the party its next API token."""

    def error(
        self,
        code: str,
        message: str,
        *,
        session: str | None = None,
        expected: int | UnsetType = UNSET,
        retry_after_ms: int | UnsetType = UNSET,
        seq: int | UnsetType = UNSET,
        stream: str | UnsetType = UNSET,
    ) -> None:
        """Queue an `error` that is not fatal."""

    def stream_state(self, stream: str, attempt: int, outcome: str) -> None:
        """Tell a client that signald has ended a stream of its worker."""

    def stream_cancel(self, session: str, stream: str, reason: str) -> None:
        """Tell a worker that its client asks for the end of a stream."""

    def room_joined(self, session: str, answer: Answer) -> Iterator[None]:
        """Tell a party that it is a member of a room: each step queues one frame."""

    def room_snapshot(
        self,
        session: str,
        room: str,
        position: int,
        data: bytes,
        fields: bytes,
        *,
        update: bool = False,
        more: bool = False,
    ) -> None:
        """Give a new member the snapshot of a room, or one `update` behind it; its `fields` are JSON.

        `more`: the next piece of the same snapshot follows.
        """

    def room_message(self, session: str, shown: Shown, *, own: bool = False) -> None:
        """Give a member a publication; `own`: it is its own, and replayed."""

    def room_messages(self, told: Told) -> bool:
        """Give a member all of several publications, in the frames that are the same for all clients.

        False: nothing is queued, because a link of this kind has no such frames, or because the queue would be full with them.
        """

    def room_published(self, session: str, room: str, seq: int, position: int) -> None:
        """Tell a member that all its publications up to `seq` are stored or refused, the last at `position`."""

    def room_refused(self, session: str, room: str, seq: int, code: RoomErrorCode, expected: int = 0) -> None:
        """Tell a party that one publication is refused."""

    def room_presence(self, session: str, came: Came) -> None:
        """Tell a member who has come, changed his presence, and left."""

    def room_left(self, session: str, room: str, reason: str) -> None:
        """Tell a party that it is no member of a room, or gets nothing of it any more."""

    def log_lost(self, session: str, direction: Literal["sent", "received"], lost: tuple[int, int]) -> None:
        """Say that the store has lost messages this party has sent or was to receive."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close behind what is queued."""

    def fail(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        """Say what was wrong, then close."""


LiveSession = Session[PartyLink]


@attrs.frozen
class ApiToken:
    """An API token for the party of a link."""

    text: str = attrs.field(repr=False)
    """In the clear: for this party alone."""
    ttl_ms: int
    """How long it is good from now on."""


@attrs.frozen
class Started:
    """The answer to a new client."""

    session: str
    token: str = attrs.field(repr=False)
    """The recovery token, in the clear: for this client alone."""
    ttl_ms: int
    """How long the session, and with it the token, outlives the connection."""
    peer_state: PeerState
    worker: str
    """Empty while there is none."""
    api: ApiToken | None = attrs.field(default=None, kw_only=True)
    """None: the client has not asked for one."""
    settings: bytes = attrs.field(default=b"", kw_only=True)
    """What the core server says for the session, as JSON; empty for nothing."""


@attrs.frozen
class Restored(Started):
    """The answer to a client that resumes."""

    accepted: int
    """The number of the last message of the client that is stored."""
    replaying: int
    """How many messages of the worker follow at once."""
    history: Sequence[HistoryEntry] | None
    """The chat as stored, oldest first; None when it was not asked for."""
    jobs: Sequence[Job] = ()
    """Its jobs that have not ended, or not long ago, oldest first."""
    next_received: int | None = None
    """The number of the first message that follows; None for a client that has said what it has."""


class ClientLike(PartyLink, Protocol):
    """A client on a connection of this node, with its one session."""

    def started(self, answer: Started) -> None:
        """Answer the opening of a new client: the first that it is told."""

    def restored(self, answer: Restored) -> None:
        """Answer the opening of a client that resumes: the first that it is told."""
