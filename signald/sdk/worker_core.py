"""A worker: many sessions over one party's connections. No I/O.

A session comes by `session_assigned`. It goes by `session_ended`, by a release, or when a `reconnection_ack` does not name it.
`WorkerCore.notices` tells the driver what to do about that; the driver's contract is in `party_core`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf

import msgspec
from msgspec import UNSET, UnsetType

from signald.ids import Entropy
from signald.sdk import worker_messages
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.core import PAUSES, STREAM_REFUSALS, SessionCore
from signald.sdk.decoding import decode_for_worker
from signald.sdk.errors import LinkBroken
from signald.sdk.events import (
    AuthExpiring,
    Disconnected,
    Gone,
    HandedOver,
    RealtimeReceived,
    ReceiptUpTo,
    Resumed,
)
from signald.sdk.link import Link
from signald.sdk.notices import Assigned, RoomElsewhere, SessionEvent, Terminate
from signald.sdk.party_records import DEFAULT_TIMING, Over, Timing
from signald.sdk.rooms_core import OfRooms
from signald.sdk.seats import Seat, SeatState
from signald.sdk.streams_core import CancelRequested, StreamRefused
from signald.sdk.values import check_number, check_text, read
from signald.sdk.worker_messages import Registration
from signald.sdk.worker_seats import WorkerSeats
from signald.sdk.writing import check_opening, payload_size
from signald.wire.fields import REASON_MAX
from signald.wire.messages import (
    CAPACITY_MAX,
    Ack,
    AppAccepted,
    ErrorMessage,
    GoAway,
    Job,
    JobCancel,
    Message,
    NewApiToken,
    Ping,
    Realtime,
    Receipt,
    ReconnectionAck,
    SessionAssigned,
    SessionEnded,
    StreamCancelled,
    Successor,
    TerminateApp,
    WorkerLimits,
)


class WorkerCore(WorkerSeats):
    """A worker: see the module."""

    path = "/v1/worker"

    def __init__(
        self,
        urls: Sequence[str],
        *,
        instance_id: str,
        entropy: Entropy,
        capacity: int = 1,
        labels: Mapping[str, str] | None = None,
        config: object = None,
        jobs: Sequence[str] = (),
        backoff: Backoff = DEFAULT_BACKOFF,
        timing: Timing = DEFAULT_TIMING,
        bounds: Bounds = DEFAULT_BOUNDS,
        auth: str | Callable[[], str] | None = None,
        api: bool = False,
    ) -> None:
        """`jobs`: the kinds of jobs that it takes. Raises ValueError when an option is what signald would refuse."""
        super().__init__(urls, entropy=entropy, backoff=backoff, timing=timing, bounds=bounds, auth=auth, api=api)
        self._registration = Registration(instance_id, labels or {}, config, jobs, bounds.json_depth_max - 1)
        check_number("capacity", capacity, CAPACITY_MAX)
        self.capacity = capacity
        self.asks_successor = False
        """signald is to tell for which sessions other workers have room."""
        self.worker_id: str | None = None
        self._bye: str | None = None
        self._terminating = False
        check_opening(self._registration.said(capacity, again=False, api=api), bounds)

    @property
    def established(self) -> bool:
        """The worker has been registered."""
        return self._ever_current

    # --- opening ---------------------------------------------------------------------------------------------------

    def _opening_message(self, link: Link) -> bytes:
        said = self._registration.said(self.capacity, again=link.token is not None, api=self.credentials.api)
        if link.token is not None:
            link.listed = frozenset(self.sessions)
            said["recovery_token"] = link.token
            said["attempt"] = self.attempts
            handed = [each.seat for each in self._handed.values()]
            said["sessions"] = [seat.position(link) for seat in [*self.sessions.values(), *handed]]
            if self.last_close_code is not None:
                said["last_close_code"] = self.last_close_code
            if self.ticket is not None:
                said["ticket"] = self.ticket
        auth = self.credentials.auth()
        if auth is not None:
            said["auth"] = auth
        return msgspec.json.encode(said)

    def _limit(self, limits: WorkerLimits | UnsetType) -> None:
        """Keep to what signald says that it takes; a release that says nothing takes what the bounds begin with."""
        if limits is UNSET:
            return
        self.bounds = self.bounds._replace(message_bytes_max=limits.message_bytes, json_depth_max=limits.json_depth)
        for seat in self.sessions.values():
            seat.core.bound(self.bounds)

    def _accepted(self, link: Link, message: AppAccepted, now: float) -> None:
        self.worker_id = message.worker
        self._limit(message.limits)
        self.credentials.keep_api_token(message.api_token)
        self._promote(link, message.heartbeat_ms, message.recovery_token, now)
        self._after_promotion(link)

    def _reconnected(self, link: Link, message: ReconnectionAck, now: float) -> None:
        hint = self._move.target if self._move is not None and self._move.target is not UNSET else None
        self.worker_id = message.worker
        self._limit(message.limits)
        self.credentials.keep_api_token(message.api_token)
        kept = {one.session: one.accepted for one in message.sessions}
        for name, accepted in kept.items():
            seat = self.sessions.get(name)
            if seat is not None:
                self._attach(link, seat, accepted)
            elif name in link.listed and name not in self._handed:
                # Released while the answer was under way: signald has to be told on this connection.
                self._refusals.setdefault(name, "released")
        lost = frozenset(message.lost)
        for name in link.listed:
            if name not in kept and name in self.sessions:
                self._take_away(name, "lost" if name in lost else "not resumed")
        handed_over = self._promote(link, message.heartbeat_ms, message.recovery_token, now)
        self.notices.append(HandedOver(hint) if handed_over else Resumed())
        self._hand_again(link, kept, now)
        self._after_promotion(link)

    def _after_promotion(self, link: Link) -> None:
        for name, reason in self._refusals.items():
            self._refuse(link, name, reason)
        self._refusals.clear()
        for seat in self.sessions.values():
            if seat.state is SeatState.ACCEPTED:
                self._accept(link, seat)
        if self._bye is not None:
            self._say(link, worker_messages.bye(self._bye))
        elif self.leaving:
            self._say_state(link)

    def _nothing_to_resume(self, _now: float) -> None:
        # The registration is gone, and its sessions with it: register again at once.
        self.token = None
        for name in list(self.sessions):
            self._take_away(name, "lost")
        self.schedule.anew(_now)

    # --- receiving -------------------------------------------------------------------------------------------------

    def _dispatch(self, link: Link, data: str | bytes, now: float) -> None:
        message, binary = decode_for_worker(data)
        if link.state == "opening" and not isinstance(message, AppAccepted | ReconnectionAck | ErrorMessage):
            raise LinkBroken("the first frame was not an answer to the opening message")
        if link.state == "retiring" and self._is_of_earlier(link, getattr(message, "session", None)):
            return
        match message:
            case Message():
                self._receive_message(link, message, binary)
            case Ack():
                self._acked(link, message)
            case SessionAssigned():
                self._assigned(link, message)
            case AppAccepted() | ReconnectionAck():
                self._answered(link, message, now)
            case Ping() | NewApiToken():
                self._of_the_connection(link, message)
            case ErrorMessage():
                self._error(link, message, now)
            case GoAway():
                self.goaway(link, message, now)
            case SessionEnded() if link.state != "retiring":  # what is left may not know where its sessions have gone
                self._session_ended(message)
            case Receipt() | Realtime():
                self._told(message, binary)
            case _ if isinstance(message, OfRooms):
                self._of_a_room(link, message, binary, len(data), now)
            case TerminateApp() | StreamCancelled() | Successor() | Job() | JobCancel():
                self._asked(link, message, binary)

    def _told(self, message: Receipt | Realtime, binary: bytes | None) -> None:
        told: ReceiptUpTo | RealtimeReceived
        if isinstance(message, Receipt):
            told = ReceiptUpTo(message.seq)
        else:
            value = binary if binary is not None else read(message.data)
            told = RealtimeReceived(value, payload_size(message, binary))
        self.notices.append(SessionEvent(message.session or "", told))

    def _asked(
        self, link: Link, message: TerminateApp | StreamCancelled | Successor | Job | JobCancel, binary: bytes | None
    ) -> None:
        if isinstance(message, Job | JobCancel):
            # Of a connection that is being left the current one says all again, and knows what has become of it.
            if link is self.current and (seat := self.sessions.get(message.session)) is not None:
                self._of_a_job(seat, message, binary)
        elif isinstance(message, StreamCancelled):
            self.notices.append(SessionEvent(message.session, CancelRequested(message.stream, message.reason)))
        elif isinstance(message, Successor):
            self.notices.append(RoomElsewhere(tuple(message.sessions)))
        elif not self._terminating:  # once is enough, however often it is said
            self._terminating = True
            self.notices.append(Terminate(message.request_id, message.reason, max(message.deadline_ms, 0)))

    def _answered(self, link: Link, message: AppAccepted | ReconnectionAck, now: float) -> None:
        if link.state != "opening" or (link.token is None) is not isinstance(message, AppAccepted):
            raise LinkBroken("an answer that was not asked for")
        if isinstance(message, AppAccepted):
            self._accepted(link, message, now)
        else:
            self._reconnected(link, message, now)

    def _assigned(self, link: Link, message: SessionAssigned) -> None:
        name = message.session
        if link is not self.current:
            return  # a node that is being left assigns nothing; the session stays in the queue of the store
        epoch = message.epoch if message.epoch is not UNSET else None
        seat = self.sessions.get(name)
        if seat is not None and seat.continues_at(message.next_seq):
            seat.core.attach(message.next_seq - 1)
            seat.epoch = seat.epoch if epoch is None else epoch
            seat.rooms.attach(frozenset())
            self._accept(link, seat)
            self.touched(seat.core)
            return
        if seat is not None:
            self._take_away(name, "assigned anew")
        if self.leaving or self.opening is not None or len(self.sessions) >= self.capacity:
            # While a move is under way the new connection's opening message does not name this session.
            handed = self._handed.get(name)
            reason = "leaving" if self.leaving else "no room"
            self._refuse(link, name, reason, epoch, handed.state if handed is not None else None)
            return
        core = SessionCore(name, self.entropy, next_seq=message.next_seq, received=None, bounds=self.bounds)
        seat = self.sessions[name] = Seat(core, epoch, tuple(self.retiring), bounds=lambda: self.bounds)
        self._accept(link, seat)
        self.notices.append(Assigned.by(message, core, seat.rooms))

    def _session_ended(self, message: SessionEnded) -> None:
        if message.session is UNSET:
            self.finish(Over(None, message.reason, orderly=True))
            return
        if self._forget(message.session, message.reason):
            self.notices.append(SessionEvent(message.session, Gone(message.reason)))

    def _error(self, link: Link, error: ErrorMessage, now: float) -> None:
        name = error.session if error.session is not UNSET else None
        seat = self.sessions.get(name or "")
        core = seat.core if seat is not None else None
        if error.code == "log_lost" and error.lost_from is not UNSET and error.lost_to is not UNSET:
            if core is not None:
                lost = core.log_lost(error.lost_from, error.lost_to, incoming=error.direction == "received")
                self.notices.append(SessionEvent(core.name or "", lost))
                self.touched(core)
            return
        if self.auth_error(link, error, now) or self.refusal(link, error):
            return
        if seat is not None and core is not None and error.code in STREAM_REFUSALS and error.expected is not UNSET:
            if core.turned_down(error) and error.stream is not UNSET:
                if error.code == "stream_over":
                    seat.jobs.dropped(error.stream)
                self.notices.append(SessionEvent(core.name or "", StreamRefused(error.stream, error.code)))
            self.touched(core)
            return
        if error.code == "gap" or error.code in PAUSES or error.retry_after_ms is not UNSET:
            for one in (seat,) if seat is not None else tuple(self.sessions.values()) if name is None else ():
                one.core.refused(error, now)
                self.touched(one.core)
        elif error.code == "not_accepted" and seat is not None:
            seat.rooms.attach(frozenset())  # it may have been a join, and tells not of which room
            self._accept(link, seat)
            seat.core.refused(error, now)
            seat.core.ack_again()
            self.touched(seat.core)
        elif error.code == "unknown_session" and seat is not None and not link.moving:
            # On a connection that is being left the session is unknown because it has moved.
            self._take_away(seat.name, error.code)

    # --- what the application does ---------------------------------------------------------------------------------

    def set_state(
        self,
        *,
        capacity: int | None = None,
        load: float | None = None,
        leaving: bool | None = None,
        successor: bool | None = None,
    ) -> None:
        """Tell signald how much room there is; `leaving` asks for no more sessions, `successor` to be told when others have room.

        Raises:
            ValueError: a capacity or a load that signald does not take.
        """
        if capacity is not None:
            check_number("capacity", capacity, CAPACITY_MAX)
        if load is not None and not (isinstance(load, int | float) and 0 <= load < inf):
            raise ValueError("`load` is a number from 0 on")
        self.capacity = self.capacity if capacity is None else capacity
        self.leaving = self.leaving if leaving is None else leaving
        self.asks_successor = self.asks_successor if successor is None else successor
        self._say_state(self.current, load)

    def _say_state(self, link: Link | None, load: float | None = None) -> None:
        said = worker_messages.app_state(self.capacity, load, leaving=self.leaving, successor=self.asks_successor)
        self._say(link, said)

    def terminated(self, request_id: str, *, status: str = "OK", message: str = "") -> None:
        """Answer a `Terminate`."""
        self.leaving = True
        self._say(self.current, worker_messages.app_terminated(request_id, status, message))

    def bye(self, reason: str) -> None:
        """Leave for good: signald gives what sessions are left to others.

        Raises:
            ValueError: `reason` is no text that signald takes.
        """
        check_text("reason", reason, REASON_MAX)
        self.leaving = True
        self._bye = reason
        self._say(self.current, worker_messages.bye(reason))

    # --- ends ------------------------------------------------------------------------------------------------------

    def _notice(self, notice: AuthExpiring) -> None:
        self.notices.append(notice)

    def _disconnected(self, code: int | None, reason: str) -> None:
        self.notices.append(Disconnected(code, reason))

    def _ended(self, over: Over) -> None:
        for name in list(self.sessions):
            self._take_away(name, over.reason)
        self.notices.append(Gone(over.reason))
