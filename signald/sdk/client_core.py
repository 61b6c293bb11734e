"""A client: one session over one party's connections. No I/O."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import UNSET, Raw, UnsetType

from signald.ids import Entropy, job_of
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds, Pace
from signald.sdk.client_jobs import ClientJobs
from signald.sdk.core import PAUSES, STREAM_REFUSALS, SessionCore
from signald.sdk.decoding import decode_for_client
from signald.sdk.errors import LinkBroken
from signald.sdk.events import (
    AuthExpiring,
    Disconnected,
    Gone,
    HandedOver,
    LifecycleEvent,
    Paired,
    PeerAway,
    PeerGone,
    RealtimeReceived,
    ReceiptUpTo,
    Replaced,
    Resumed,
    Waiting,
)
from signald.sdk.link import Link
from signald.sdk.party_core import PartyCore, Writer
from signald.sdk.party_records import DEFAULT_TIMING, Over, Timing
from signald.sdk.rooms_core import OfRooms, Rooms
from signald.sdk.streams_core import StreamText, StreamTexts
from signald.sdk.values import check_labels, check_number, check_text, read, read_history, write
from signald.sdk.writing import Batch, check_opening, payload_size
from signald.wire.fields import HISTORY_MAX, REASON_MAX
from signald.wire.messages import (
    SECRET_MAX,
    STREAM_MAX,
    Ack,
    ErrorMessage,
    GoAway,
    JobStateChanged,
    JobSummary,
    Limits,
    Message,
    NewApiToken,
    Peer,
    PeerChanged,
    PeerState,
    Ping,
    Realtime,
    Receipt,
    SessionEnded,
    SessionRestored,
    SessionStarted,
    StreamState,
)

ATTEMPTS_UNKNOWN = 1 << 20
"""More opening messages than a process sends after it has last said its state."""

EVENTS_MAX = 1000
"""Lifecycle events that wait for the application; beyond that the oldest are dropped: they tell, they do not carry."""


@frozen
class ClientState:
    """The state with which another process continues a session: as secret as the token in it."""

    session: str
    recovery_token: str = field(repr=False)
    received: int
    next_seq: int
    unacked: tuple[bytes, ...] = field(default=(), repr=False)
    limits: Limits | None = None
    attempts: int = 0
    """Opening messages that the client has sent; the next process continues well above it."""


class ClientCore(PartyCore):
    """A client: its session over one party's connections."""

    path = "/v1/client"

    def __init__(
        self,
        urls: Sequence[str],
        *,
        entropy: Entropy,
        backoff: Backoff = DEFAULT_BACKOFF,
        timing: Timing = DEFAULT_TIMING,
        bounds: Bounds = DEFAULT_BOUNDS,
        auth: str | Callable[[], str] | None = None,
        api: bool = False,
        jobs: bool = False,
        want: Mapping[str, str] | None = None,
        meta: object = None,
        receipts: bool = False,
        pair: bool = True,
        history: int = 0,
        state: ClientState | None = None,
        recovery_token: str | None = None,
    ) -> None:
        """With `jobs` the core reads the messages of jobs. Raises ValueError when an option is what signald would refuse."""
        api = api or jobs
        super().__init__(urls, entropy=entropy, backoff=backoff, timing=timing, bounds=bounds, auth=auth, api=api)
        self._want = dict(want or {})
        check_labels("want", self._want)
        self._meta = None if meta is None else Raw(write(meta, bounds.json_depth_max - 1))
        check_number("history", history, HISTORY_MAX)
        check_text("recovery_token", recovery_token, SECRET_MAX, 1)
        self._own_bounds = bounds
        self._receipts = receipts
        self._pair = pair
        self._history = history
        self.session_id: str | None = None
        self.settings: Any = None
        """What the core server says for the session, as `values.read` gives it."""
        self.peer = Peer("waiting")
        self._told_peer = False
        self._limits: Limits | None = None
        self.chat_history: list[Any] = []
        self.events: deque[LifecycleEvent] = deque(maxlen=EVENTS_MAX)
        self.streams = StreamTexts()
        """The streams of the worker, as far as they have come."""
        self.stream_news: deque[StreamText] = deque(maxlen=EVENTS_MAX)
        self.session = SessionCore(None, entropy, bounds=bounds)
        if state is not None:
            self._restore(state)
        elif recovery_token is not None:
            self.token = recovery_token
            self.session = SessionCore(None, entropy, received=None, bounds=bounds)
            self.attempts = None
        else:
            check_opening(self._said(None), self.bounds)
        self.rooms = Rooms(self.session, lambda: self.bounds)
        """The rooms that it is in."""
        self.jobs = ClientJobs()
        """What is known of its jobs."""
        self.reads_jobs = jobs
        if jobs:
            self.session.is_own = self._is_of_a_job

    def _restore(self, state: ClientState) -> None:
        """Take up the session of a client that was there before."""
        self.token = state.recovery_token
        self.session_id = state.session
        first = state.next_seq - len(state.unacked)
        self.session = SessionCore(None, self.entropy, next_seq=first, received=state.received, bounds=self._own_bounds)
        for body in state.unacked:
            self.session.restore_unacked(body)
        if state.limits is not None:
            self._limit(state.limits)
        self.attempts = state.attempts + ATTEMPTS_UNKNOWN

    @property
    def established(self) -> bool:
        """The session exists and this process has been attached to it."""
        return self._ever_current

    def state(self) -> ClientState:
        """Return what another process needs to go on from here.

        Raises:
            ValueError: there is no session yet.
        """
        if self.session_id is None or self.token is None:
            raise ValueError("no session has been started yet")
        core = self.session
        return ClientState(
            self.session_id,
            self.token,
            core.finished,
            core.next_seq,
            tuple(core.unacked_bodies()),
            self._limits,
            self.attempts or 0,
        )

    # --- opening ---------------------------------------------------------------------------------------------------

    def _opening_message(self, link: Link) -> bytes:
        said = self._said(link.token)
        if link.token is not None and (rooms := self.rooms.positions()):
            said["rooms"] = rooms
            link.rooms[""] = frozenset([str(each["room"]) for each in rooms])
        auth = self.credentials.auth()
        if auth is not None:
            said["auth"] = auth
        return msgspec.json.encode(said)

    def _said(self, token: str | None) -> dict[str, object]:
        said: dict[str, object]
        if token is None:
            said = {"type": "connect"}
            if self._want:
                said["want"] = self._want
            if self._meta is not None:
                said["meta"] = self._meta
            if self._receipts:
                said["receipts"] = True
            if not self._pair:
                said["pair"] = False
        else:
            said = {
                "type": "restore_session",
                "recovery_token": token,
                "received": self.session.finished,
                "acked": self.session.accepted,
            }
            if self.attempts is not None:
                said["attempt"] = self.attempts
            if self._history:
                said["history"] = self._history
            if self.ticket is not None:
                said["ticket"] = self.ticket
        if self.credentials.api:
            said["api"] = True
        return said

    def _started(self, link: Link, message: SessionStarted, now: float) -> None:
        self.session_id = message.session
        self._learn(message.settings)
        self._limit(message.limits)
        self.credentials.keep_api_token(message.api_token)
        self.session.begin(message.next_seq, self.bounds)
        self._promote(link, message.heartbeat_ms, message.recovery_token, now)
        self.rooms.attach(frozenset())
        self._peer_is(message.peer.state, message.peer.id)

    def _limit(self, limits: Limits) -> None:
        self._limits = limits
        self.bounds = self.bounds._replace(
            message_bytes_max=limits.message_bytes,
            json_depth_max=limits.json_depth,
            unacked_messages_max=min(self._own_bounds.unacked_messages_max, max(1, limits.backlog_messages)),
        )
        self.session.bound(self.bounds)
        self.session.pace = Pace(limits.messages_per_s, limits.messages_burst)

    def _restored(self, link: Link, message: SessionRestored, now: float) -> None:
        hint = self._move.target if self._move is not None and self._move.target is not UNSET else None
        self.session_id = message.session
        self._learn(message.settings)
        self.session.attach(message.accepted)
        if message.limits is not UNSET:
            self._limit(message.limits)
        if message.chat_history is not UNSET:
            self.chat_history = read_history(message.chat_history)
            for entry in self.chat_history:
                if isinstance(entry, dict):
                    self._grown(self.streams.entry(entry))
        self.credentials.keep_api_token(message.api_token)
        for each in message.jobs if message.jobs is not UNSET else ():
            self._job_is(each)
        handed_over = self._promote(link, message.heartbeat_ms, message.recovery_token, now)
        self.rooms.attach(link.rooms.get("", frozenset()))
        self.events.append(HandedOver(hint) if handed_over else Resumed())
        self._peer_is(message.peer.state, message.peer.id)

    def _learn(self, settings: Raw | UnsetType) -> None:
        if isinstance(settings, Raw):  # an answer without them takes nothing back
            self.settings = read(settings)

    def _nothing_to_resume(self, _now: float) -> None:
        self.finish(Over(4404, "nothing_to_resume", orderly=False))

    # --- receiving -------------------------------------------------------------------------------------------------

    def _dispatch(self, link: Link, data: str | bytes, now: float) -> None:
        message, binary = decode_for_client(data)
        if link.state == "opening" and not isinstance(message, SessionStarted | SessionRestored | ErrorMessage):
            raise LinkBroken("the first frame was not an answer to the opening message")
        match message:
            case Message():
                self._receive_message(message, binary)
            case Ack():
                if self.session.acked(message.seq):
                    self.changed()
            case _ if isinstance(message, OfRooms):
                self._of_a_room(link, message, binary, len(data), now)
            case SessionStarted() | SessionRestored():
                self._answered(link, message, now)
            case Ping() | NewApiToken():
                self._of_the_connection(link, message)
            case ErrorMessage():
                self._error(link, message, now)
            case GoAway():
                self.goaway(link, message, now)
            case StreamState() | JobStateChanged():
                self._state_of(message)
            case PeerChanged() if link is self.current:
                self._peer_is(message.state, message.id if message.id is not UNSET else None)
            case Receipt() | Realtime():
                self._told(message, binary)
            case SessionEnded() if link.state != "retiring":  # if it has ended, the current connection says so too
                self.finish(Over(None, message.reason, orderly=True))

    def _of_a_room(self, link: Link, message: OfRooms, binary: bytes | None, size: int, now: float) -> None:
        if link is self.current:
            self.rooms.receive(message, binary, size, now)
            self.changed()

    def _answered(self, link: Link, message: SessionStarted | SessionRestored, now: float) -> None:
        if link.state != "opening" or (link.token is None) is not isinstance(message, SessionStarted):
            raise LinkBroken("an answer that was not asked for")
        if isinstance(message, SessionStarted):
            self._started(link, message, now)
        else:
            self._restored(link, message, now)

    def _receive_message(self, message: Message, binary: bytes | None) -> None:
        if not self.session.receive(message, binary):
            self.changed()  # an ack is due again
            return
        if self.reads_jobs and self._is_of_a_job(message):
            self.jobs.message(message.stream or "", message, binary)
            self.changed()
            if self.session.full:
                self.full.append(self.session)
            return
        text = read(message.data) if message.fold is not None and binary is None else None
        self._grown(self.streams.message(message, text if isinstance(text, str) else None))
        if self.session.full:
            self.full.append(self.session)

    def _told(self, message: Receipt | Realtime, binary: bytes | None) -> None:
        if isinstance(message, Receipt):
            self.events.append(ReceiptUpTo(message.seq))
        else:
            value = binary if binary is not None else read(message.data)
            self.events.append(RealtimeReceived(value, payload_size(message, binary)))

    def _state_of(self, message: StreamState | JobStateChanged) -> None:
        if isinstance(message, StreamState):
            self._grown(self.streams.state(message))
        else:
            self._job_is(message)

    def _job_is(self, told: JobStateChanged | JobSummary) -> None:
        if job_of(self.session_id or "", told.job):
            self.jobs.state(told)

    def _is_of_a_job(self, message: Message) -> bool:
        return message.stream is not None and job_of(self.session_id or "", message.stream) > 0

    def _grown(self, text: StreamText | None) -> None:
        if text is not None:
            self.stream_news.append(text)

    def cancel(self, stream: str, reason: str) -> None:
        """Ask the worker to end a stream.

        Raises:
            ValueError: a text that signald does not take.
        """
        check_text("stream", stream, STREAM_MAX, 1)
        check_text("reason", reason, REASON_MAX)
        self._say(self.current, msgspec.json.encode({"type": "stream_cancel", "stream": stream, "reason": reason}))

    def _error(self, link: Link, error: ErrorMessage, now: float) -> None:
        if error.code == "log_lost" and error.lost_from is not UNSET and error.lost_to is not UNSET:
            incoming = error.direction == "received"
            self.events.append(self.session.log_lost(error.lost_from, error.lost_to, incoming=incoming))
            self.changed()
        elif error.code in STREAM_REFUSALS and error.fatal is not True and error.expected is not UNSET:
            self.session.turned_down(error)
            self.changed()
        elif (
            not self.auth_error(link, error, now)
            and not self.refusal(link, error)
            and (error.code == "gap" or error.code in PAUSES or error.retry_after_ms is not UNSET)
        ):
            self.session.refused(error, now)
            link.changed()

    def realtime(self, data: object, session: str | None = None) -> bool:
        """See the base. Raises ValueError also when the session has no worker, and will have none."""
        self.session.check_peer()
        return super().realtime(data, session)

    def _peer_is(self, state: PeerState, worker: str | None) -> None:
        before = self.peer
        # Without a worker the last one is remembered: the next worker replaces it.
        self.peer = Peer(state, worker if worker is not None else before.id)
        if self.peer == before and self._told_peer:
            return
        self._told_peer = True
        self.session.alone = state == "none"
        another = before.id is not None and self.peer.id != before.id
        if state == "replaced" or (state == "paired" and another):
            self.events.append(Replaced(self.peer.id or ""))
        elif state == "paired":
            self.events.append(Paired(self.peer.id or ""))
        elif state == "waiting":
            self.events.append(Waiting())
        elif state == "away":
            self.events.append(PeerAway())
        elif state != "none":
            self.events.append(PeerGone())

    # --- writing ---------------------------------------------------------------------------------------------------

    def _writers(self) -> Sequence[Writer]:
        return (self.session, self.rooms)

    def _write_sessions(self, now: float, batch: Batch) -> None:
        self.session.write(now, batch)
        self.rooms.write(now, batch)

    def _notice(self, notice: AuthExpiring) -> None:
        self.events.append(notice)

    # --- ends ------------------------------------------------------------------------------------------------------

    def _disconnected(self, code: int | None, reason: str) -> None:
        self.events.append(Disconnected(code, reason))

    def _ended(self, over: Over) -> None:
        self.stream_news.extend(self.streams.end())
        self.session.end(over.reason)
        self.rooms.end(over.reason)
        self.events.append(Gone(over.reason))
