"""A worker: many sessions over one party's connections. No I/O.

A session comes by `session_assigned`. It goes by `session_ended`, by a release, or when a `reconnection_ack` does not name it.
`WorkerCore.notices` tells the driver what to do about that; the driver's contract is in `party_core`.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf

import msgspec
from msgspec import UNSET, UnsetType

from signald.ids import Entropy
from signald.sdk import worker_messages
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.core import NEVER, PAUSES, STREAM_REFUSALS, SessionCore
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
from signald.sdk.handing import Handed
from signald.sdk.link import Link
from signald.sdk.notices import Assigned, Notice, RoomElsewhere, SessionEvent, Taken, Terminate
from signald.sdk.party_core import PartyCore, Writer
from signald.sdk.party_records import DEFAULT_TIMING, Over, Timing
from signald.sdk.rooms_core import OfRooms
from signald.sdk.seats import Seat, SeatState
from signald.sdk.streams_core import CancelRequested, StreamRefused
from signald.sdk.values import check_number, check_text, read
from signald.sdk.worker_messages import Registration
from signald.sdk.writing import Batch, check_opening, payload_size
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

_REFUSALS_MAX = 1000
"""Refusals that wait for a connection. A refusal that is not said costs a moment: the node finds the session missing at the resume."""


class WorkerCore(PartyCore):
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
        self.leaving = False
        self.asks_successor = False
        """signald is to tell for which sessions other workers have room."""
        self.worker_id: str | None = None
        self.sessions: dict[str, Seat] = {}
        """The sessions this worker has, by id; at most `capacity`."""
        self.notices: deque[Notice] = deque()
        """Drained by the driver after every call: bounded by what one frame can say."""
        self._to_write: dict[str, Seat] = {}
        """A queue: the sessions with something to write, longest first, so that none is starved."""
        self._refusals: dict[str, str] = {}
        """Sessions → reasons, to be said after the next promotion, because no connection could say them. At most _REFUSALS_MAX."""
        self._handed: dict[str, Handed] = {}
        """Sessions that were handed over since the worker leaves, by id: those that it had then, at most `capacity`."""
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

    def _hand_again(self, link: Link, kept: Mapping[str, int], now: float) -> None:
        """Hand over again what signald still has as this worker's: the connection ended before it had read it."""
        self._handed = {name: handed for name, handed in self._handed.items() if name in kept}
        if not self._handed:
            return
        self._say_state(link)  # before it: what a worker that leaves gives back is no failure
        for name, handed in self._handed.items():
            try:
                handed.seat.core.attach(kept[name])
            except LinkBroken:
                pass  # signald has other messages than these: the next worker begins with what the store has
            else:
                self._say_rest(link, handed.seat, now)
            self._refuse(link, name, handed.reason, state=handed.state)

    def _say_rest(self, link: Link, seat: Seat, now: float) -> None:
        """Say what is still to be said in a session that is given back behind it."""
        batch = Batch()
        seat.core.part(now, batch)
        link.control += batch.frames

    def _attach(self, link: Link, seat: Seat, accepted: int) -> None:
        try:
            seat.core.attach(accepted)
        except LinkBroken as broken:
            self._out_of_step(None, seat, broken)
        else:
            seat.jobs.attach()
            seat.rooms.attach(link.rooms.get(seat.name, frozenset()))
            self._to_write[seat.name] = seat

    def _out_of_step(self, link: Link | None, seat: Seat, broken: LinkBroken) -> None:
        """Give one session back, because signald's view of it contradicts this worker's. The other sessions continue.

        Without `link` it is said when the connection has been promoted. The next worker begins with what the store has.
        """
        if link is not None and link is not self.current:
            raise broken  # a connection that is being left: the current one serves the session
        if link is None:
            self._refusals[seat.name] = str(broken)[:REASON_MAX]
        else:
            self._refuse(link, seat.name, str(broken), seat.epoch)
        self._take_away(seat.name, str(broken))

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

    def _of_a_room(self, link: Link, message: OfRooms, binary: bytes | None, size: int, now: float) -> None:
        seat = self.sessions.get(message.session or "")
        if seat is not None and link is self.current:
            seat.rooms.receive(message, binary, size, now)
            self.touched(seat.core)

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

    def _of_a_job(self, seat: Seat, message: Job | JobCancel, binary: bytes | None) -> None:
        if isinstance(message, JobCancel):
            self.notices.append(SessionEvent(seat.name, seat.jobs.cancelled(message)))
            return
        seat.jobs.forget(seat.core)
        given = seat.jobs.given(message, binary)
        if given is not None:
            self.notices.append(SessionEvent(seat.name, given))

    def job_ended(self, core: SessionCore, job: str, attempt: int, seq: int) -> None:
        """Note that message `seq` is the last one of an attempt of a job: signald does not give it again."""
        seat = self._seat_of(core)
        if seat is not None:
            seat.jobs.ended(job, attempt, seq)

    def job_progress(self, core: SessionCore, job: str, attempt: int, value: object) -> None:
        """Say how far an attempt of a job is; nothing is said when it is over.

        Raises:
            ValueError: longer or deeper than signald takes, or not JSON.
        """
        seat = self._seat_of(core)
        if seat is not None and seat.jobs.progress(job, attempt, value, self.bounds.json_depth_max - 1):
            self.touched(core)

    def _is_of_earlier(self, link: Link, session: str | None) -> bool:
        seat = self.sessions.get(session or "")
        return seat is not None and any(before is link for before in seat.left)

    def _answered(self, link: Link, message: AppAccepted | ReconnectionAck, now: float) -> None:
        if link.state != "opening" or (link.token is None) is not isinstance(message, AppAccepted):
            raise LinkBroken("an answer that was not asked for")
        if isinstance(message, AppAccepted):
            self._accepted(link, message, now)
        else:
            self._reconnected(link, message, now)

    def _acked(self, link: Link, message: Ack) -> None:
        seat = self.sessions.get(message.session or "")
        if seat is not None:
            seat.state = SeatState.CONFIRMED
            try:
                more = seat.core.acked(message.seq)
            except LinkBroken as broken:
                self._out_of_step(link, seat, broken)
            else:
                if more:
                    self.touched(seat.core)

    def _receive_message(self, link: Link, message: Message, binary: bytes | None) -> None:
        seat = self.sessions.get(message.session or "")
        if seat is None:
            return  # the session was just released
        seat.state = SeatState.CONFIRMED
        core = seat.core
        try:
            new = core.receive(message, binary)
        except LinkBroken as broken:
            self._out_of_step(link, seat, broken)
            return
        if not new:
            self.touched(core)  # an ack is due again
        elif core.full:
            self.full.append(core)

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

    def _accept(self, link: Link, seat: Seat) -> None:
        seat.state = SeatState.ACCEPTED
        self._say(link, worker_messages.session_accept(seat.name, seat.epoch))

    def _refuse(self, link: Link, name: str, reason: str, epoch: int | None = None, state: bytes | None = None) -> None:
        self._say(link, worker_messages.session_refuse(name, reason, epoch, state))

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

    def touched(self, core: SessionCore) -> None:
        """There may be something to write for this session."""
        seat = self._seat_of(core)
        if seat is not None:
            self._to_write[seat.name] = seat
            self.changed()

    def _seat_of(self, core: SessionCore) -> Seat | None:
        """Return the seat of a session that is still this worker's."""
        seat = self.sessions.get(core.name or "")
        return seat if seat is not None and seat.core is core else None

    def release(self, core: SessionCore, reason: str, now: float, state: bytes | None = None) -> None:
        """Give a session back: its unacked messages go to another worker. `state`: JSON for that one.

        What the application has just said and finished with goes ahead. Without that each worker in turn would be given again
        what the one before it had done.

        Raises:
            ValueError: `reason` is no text that signald takes.
        """
        check_text("reason", reason, REASON_MAX)
        seat = self._seat_of(core)
        if seat is None:
            return
        if self.current is not None:
            self._say_rest(self.current, seat, now)
            self._refuse(self.current, seat.name, reason, seat.epoch, state)
            self.current.changed()
        self._take_away(seat.name, reason, tell=False)
        if self.leaving:
            self._handed[seat.name] = Handed(seat, reason, state)
        elif (self.current is None or self.opening is not None) and len(self._refusals) < _REFUSALS_MAX:
            self._refusals[seat.name] = reason

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

    def _take_away(self, name: str, reason: str, *, tell: bool = True) -> None:
        if tell:
            self.notices.append(Taken(name, reason))
        self._forget(name, reason)

    def _forget(self, name: str, reason: str) -> bool:
        """End a session here; False when there is none."""
        self._to_write.pop(name, None)
        seat = self.sessions.pop(name, None)
        if seat is not None:
            seat.core.end(reason)
            seat.rooms.end(reason)
        return seat is not None

    # --- writing ---------------------------------------------------------------------------------------------------

    def _writers(self) -> Sequence[Writer]:
        return tuple(self._to_write.values())

    def _write_sessions(self, now: float, batch: Batch) -> None:
        for name, seat in list(self._to_write.items()):
            if batch.left <= 0:
                return
            for said in seat.jobs.due(name):
                batch.text(said)
            more = seat.core.write(now, batch)
            more = seat.rooms.write(now, batch) or more
            del self._to_write[name]
            if more or seat.wake_at(now) != NEVER:  # over the budget, or paused: it stays, after the others
                self._to_write[name] = seat

    # --- ends ------------------------------------------------------------------------------------------------------

    def _notice(self, notice: AuthExpiring) -> None:
        self.notices.append(notice)

    def _disconnected(self, code: int | None, reason: str) -> None:
        self.notices.append(Disconnected(code, reason))

    def _ended(self, over: Over) -> None:
        for name in list(self.sessions):
            self._take_away(name, over.reason)
        self.notices.append(Gone(over.reason))
