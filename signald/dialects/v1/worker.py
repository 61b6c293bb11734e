"""A worker's connection: many sessions over one socket."""

from collections.abc import Sequence
from typing import ClassVar

import structlog
import trio
from msgspec import UNSET, Raw
from msgspec.structs import replace

from signald.core.chat_history import shown
from signald.core.exits import Cause
from signald.core.head import Party
from signald.core.once_more import OnceMore
from signald.core.pairing import Pairing
from signald.dialects.v1.answers import api_fields, heartbeat_ms, open_streams, worker_limits
from signald.dialects.v1.link import V1Link
from signald.errors import PeerError, UnknownType
from signald.ids import WorkerId, job_of
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.service.attached import LiveSession
from signald.service.jobs import PROGRESS_BYTES_MAX
from signald.service.parts import Parts
from signald.service.rate_limit import RateLimit
from signald.service.seats import Seat, SeatState
from signald.service.worker_like import Assignment, GivenJob, Offer, Registered
from signald.store.session.ops import HandOn
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.fields import NO_DATA
from signald.wire.messages import (
    STATE_BYTES_MAX,
    Ack,
    AppAccepted,
    AppReady,
    AppState,
    AppTerminated,
    AssignedClient,
    Auth,
    Bye,
    CancelReason,
    Job,
    JobCancel,
    JobProgress,
    Message,
    PeerState,
    Ping,
    Realtime,
    ReconnectionAck,
    SessionAccept,
    SessionAssigned,
    SessionEnded,
    SessionRefuse,
    StreamCancelled,
    Successor,
    TerminateApp,
)
from signald.wire.rooms import Join, Leave, Presence, Publish, Snapshot

log = structlog.get_logger(__name__)

WRONG_PER_S, WRONG_BURST = 10.0, 1000
"""Wrong frames of a worker that cost only their session: one for each session at once, as when a new release of it errs in all of
them, and then as many as a node can give to others without work that is felt. Beyond it the connection is closed."""

OTHERS_PER_S, OTHERS_BURST = 1000.0, 10_000
"""What a worker may send that concerns no session or is of no known type, and is answered or noted: ten times what a client may.
A worker of 1,000 sessions that says such a frame once a second for each, as after an update of its SDK, is within it, and so are
ten for each at once. It is a hundredth of the frames that one core carries. Beyond it the connection is closed."""

LEFT_MAX = 1000
"""Sessions remembered as over on this connection: as many as a worker may have, 100 KiB at most."""

_OF_ROOMS = frozenset({Join, Publish, Snapshot, Presence, Leave})
_OF_A_SESSION = frozenset({Message, Ack, Realtime, SessionAccept, SessionRefuse, JobProgress, *_OF_ROOMS})
"""Messages that name their session."""

_AFTER_ACCEPTANCE = frozenset({Message, Ack, JobProgress, *_OF_ROOMS})
"""Those that count only in a session the worker has accepted."""


_SENT_AWAY = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.RESTARTING})
"""Codes by which a node sends a worker away."""


class WorkerLink(V1Link):
    """See the module."""

    party: ClassVar[Party] = "worker"

    def __init__(
        self,
        parts: Parts,
        conn: Connection,
        worker: str,
        epoch: int,
        offer: Offer,
        principal: str,
        *,
        reconnecting: bool = False,
    ) -> None:
        """`reconnecting`: it has said that it was here before, and expects an answer to that."""
        context = parts.context
        super().__init__(conn, context.writes, context.pauses)
        self._parts = parts
        self._relay = parts.relay
        self._realtime = parts.attachments.realtime
        self.worker = WorkerId(worker)
        self.epoch = epoch
        self._principal = principal
        self.instance = offer.instance
        self.labels = offer.labels
        self.capacity = offer.capacity
        self.kinds = offer.kinds
        self.granted, self.rooms = offer.granted, offer.rooms
        self._reconnecting = reconnecting
        self.leaving = False
        self.asks_successor = False
        self.told_successor: set[str] | None = None
        self.unasked = False
        """It has sessions that it was not asked to take, because its send queue was full."""
        self.checks = OnceMore()
        """Looks at the registry for it."""
        self.updates = OnceMore()
        """Updates of its record in the registry."""
        self.terminated = trio.Event()
        """`app_terminated` has come."""
        self._bytes_max = context.config.limits.message_bytes_max
        self._depth_max = context.config.limits.json_depth_max
        self._confirmed = False
        self._left: dict[str, None] = {}
        """Sessions that are over here, the latest last: a wrong frame for them may have been on its way."""
        self._wrong = RateLimit(WRONG_PER_S, WRONG_BURST, trio.current_time())
        self._others = RateLimit(OTHERS_PER_S, OTHERS_BURST, trio.current_time())

    def __repr__(self) -> str:
        return f"<WorkerLink {self.worker} sessions={len(self.seats)}>"

    @property
    def speaks_handover(self) -> bool:
        """Programs that offer no subprotocol are of a time before GOAWAY: they are ended with `terminate_app`."""
        return self.conn.subprotocol is not None

    @property
    def cleans_up_s(self) -> float | None:
        """A program that is ended is asked when all others have gone: what it does for its clients it may do until then."""
        return None

    @property
    def owner(self) -> str:
        """See the base."""
        return self.worker

    @property
    def principal(self) -> str:
        """The worker's."""
        return self._principal

    @property
    def left_in_order(self) -> bool:
        """True when the connection ended because the worker leaves, or because this node sent it away."""
        closed = self.conn.closed
        sent_away = closed is not None and closed.initiator == "local" and closed.code in _SENT_AWAY
        return self.leaving or self.told_to_go or self.terminated.is_set() or sent_away

    def take(self, session: LiveSession) -> None:
        """Give `session` a seat."""
        self.seats[session.id] = Seat(session, records.head(b"message", session.id))

    def clear(self) -> None:
        """Forget all sessions: the worker is elsewhere, or gone. Acks that wait are still written."""
        self.seats.clear()

    def check(self) -> None:
        """Have the registry read again for this worker."""
        self._parts.assignments.check(self)

    def has_room(self) -> None:
        """The send queue has room again: go on with the sessions the worker could not be asked to take, and with jobs."""
        if self.unasked:
            self.check()
        self._parts.jobs.has_room(self)
        self._parts.rooms.has_room(self)

    def goodbye(self, reason: str) -> None:
        """A worker is told of each session by `end_session`."""

    def peer_changed(self, _state: PeerState, _worker: str) -> None:
        """A worker is told nothing of its clients' connections."""

    def session_name(self, session: str) -> str:
        """A worker has many sessions: each frame names its own."""
        return session

    def delivering(self, session: LiveSession) -> bool:
        """Messages follow the acceptance, never the assignment."""
        seat = self.seats.get(session.id)
        return seat is not None and seat.state is SeatState.ACCEPTED and not seat.jobs_first

    def message_front(self, session: str) -> bytes:
        """Kept for each session, because it is needed for each message."""
        return self.seats[session].front

    def drop(self, session: str) -> None:
        """Forget a session that is over, has moved or was refused."""
        super().drop(session)
        self._left.pop(session, None)
        self._left[session] = None
        if len(self._left) > LEFT_MAX:
            del self._left[next(iter(self._left))]

    def registered(self, answer: Registered) -> None:
        """See `WorkerLike`."""
        context, worker, token, ttl_ms = self._parts.context, self.worker, answer.token, answer.ttl_ms
        beat_ms, limits, api = heartbeat_ms(context), worker_limits(context), api_fields(answer.api)
        if answer.resumed or self._reconnecting:
            restored, lost = list(answer.restored), list(answer.lost)
            resumed = answer.resumed
            self.send(
                ReconnectionAck("ok", worker, token, ttl_ms, resumed, "running", restored, lost, beat_ms, limits, **api)
            )
        else:
            self.send(AppAccepted("ok", worker, token, ttl_ms, beat_ms, limits, **api))

    def assign(self, assignment: Assignment) -> None:
        """See `WorkerLike`."""
        meta, subject, state, settings = assignment.meta, assignment.subject, assignment.state, assignment.settings
        self.send(
            SessionAssigned(
                assignment.session,
                AssignedClient(Raw(meta) if meta else UNSET, subject or UNSET, Raw(settings) if settings else UNSET),
                assignment.next_seq,
                shown(assignment.history) if assignment.history else UNSET,
                assignment.epoch,
                Raw(state) if state else UNSET,
                assignment.hand_outs,
                open_streams(assignment) or UNSET,
            )
        )

    def give_job(self, job: GivenJob) -> None:
        """See `WorkerLike`."""
        left = UNSET if job.deadline_ms is None else job.deadline_ms
        said = Job(job.session, job.job, job.kind, job.attempt, job.content_type or UNSET, left, job.trace or UNSET)
        if job.content_type:
            self.conn.send_binary(codec.encode_binary(said, job.data))
            self.writes.mark(self)
        else:
            self.send(replace(said, data=Raw(job.data)))

    def cancel_job(self, session: str, job: str, reason: CancelReason) -> None:
        """See `WorkerLike`."""
        self.send(JobCancel(session, job, reason))

    def job_changed(self, _name: str, _job: object) -> None:
        """A worker is told of jobs by what it is given."""

    def terminate(self, request: str, reason: str, deadline_ms: int) -> None:
        """See `WorkerLike`."""
        self.send(TerminateApp(request, reason, deadline_ms))

    def successor(self, sessions: Sequence[str]) -> None:
        """See `WorkerLike`."""
        self.send(Successor(list(sessions)))

    def stream_cancel(self, session: str, stream: str, reason: str) -> None:
        """Tell the worker that its client asks for the end of a stream."""
        self.send(StreamCancelled(session, stream, reason))

    def receipt(self, _acked: int) -> None:
        """A worker asks for no receipts."""

    def end_session(self, session: str, reason: str) -> None:
        """Tell the worker that a session is over for it."""
        seat = self.seats.get(session)
        if seat is not None:
            if seat.session.pairing is Pairing.ENDED:
                for job in self._parts.jobs.known(session, self):
                    self.cancel_job(session, job, "session_ended")
            self.drop(session)
            self.send(SessionEnded(reason, session))

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in everything one read yielded."""
        if not self._confirmed:
            self._confirmed = True
            self._parts.attachments.confirm_worker_token(self)
        seats = self.seats
        offered: dict[str, LiveSession] = {}
        for text, payload in batch:
            try:
                message, binary = codec.decode_worker(text, payload, self._depth_max)
            except PeerError as error:
                if self._mistaken(error, text, payload):
                    continue
                break
            kind = type(message)
            if len(payload) > self._bytes_max:
                # Only an opening message may be longer, because it names every session.
                if self._spoiled(getattr(message, "session", None), "too_big", "longer than the limit of a message"):
                    continue
                break
            if kind in _OF_A_SESSION:
                name: str | None = message.session  # type: ignore[union-attr]
                if name is None:
                    self.fail(CloseCode.BAD_MESSAGE, "bad_message", "a worker names the session in each message")
                    break
                seat = seats.get(name)
                if seat is None:
                    self._unknown(name)
                elif kind in _AFTER_ACCEPTANCE and seat.state is not SeatState.ACCEPTED:
                    # It was under way when the session was taken from this worker and given to it anew: it belongs to a claim
                    # that is over. Counted for the new one, an ack would keep from the new handler what it has yet to get.
                    self.error("not_accepted", "accept the session first", session=name)
                elif kind is Message:
                    self._offer(seat.session, message, binary)  # type: ignore[arg-type]
                    offered[name] = seat.session
                elif not self._about(seat, message, binary):
                    break
            elif not self._rare(message):
                break
        self._settle(offered)

    def _offer(self, session: LiveSession, message: Message, binary: bytes | None) -> None:
        self._relay.accept(session, "worker", message, binary)
        if message.end and (job := job_of(session.id, message.stream or "")):
            self._parts.jobs.said_last(session, job)

    def _settle(self, offered: dict[str, LiveSession]) -> None:
        for session in offered.values():
            self._relay.settle(session, "worker")
        self._parts.rooms.settle()
        self._parts.batches.done()

    def _refuse_ack(self, session: LiveSession) -> bool:
        """Answer an ack of what was never handed out; False when the connection is to end for it."""
        if not self._bears_wrong():
            return False
        self._parts.losses.refuse(session.id, "worker", "ack")
        self.error("too_far_ahead", "no such messages were given out", session=session.id)
        return True

    def _mistaken(self, error: PeerError, text: bool, payload: bytes) -> bool:
        """Answer a frame that is no message; False when the connection is to end for it."""
        if isinstance(error, UnknownType):
            if not self._bears_another():
                return False
            self.error("unknown_type", f"unknown type: {error}")
            return True
        return self._spoiled(codec.session_of(text, payload), "bad_message", str(error))

    def _spoiled(self, name: str | None, error: str, why: str) -> bool:
        """A frame is wrong: it costs the session that it names, or else the connection; False when that is to end."""
        seat = self.seats.get(name) if name is not None else None
        if seat is None and name not in self._left:
            if error == "too_big":
                self.fail(CloseCode.TOO_BIG, "too_big", why)
            else:
                self.fail(CloseCode.BAD_MESSAGE, "bad_message", why)
            return False
        if not self._bears_wrong():
            return False
        if seat is None:
            # Sent before the worker could hear that its first wrong frame has cost the session.
            self._unknown(name or "")
            return True
        self.error(error, why, session=seat.session.id)
        self._parts.attachments.release(self, Cause.SPOILED, seat.session, "bad message")
        return True

    def _bears_wrong(self) -> bool:
        """Count a frame that is wrong; False when the connection is to end for it."""
        return self.bears(self._wrong, "too many frames that are wrong")

    def _bears_another(self) -> bool:
        """Count a frame that costs its sender nothing; False when the connection is to end for it."""
        return self.bears(self._others, "too many frames that are no messages")

    def _about(self, seat: Seat, message: object, binary: bytes | None) -> bool:
        """Handle what concerns one session and is not a message; False when the connection is to end."""
        if type(message) is Ack:
            return self._relay.ack(seat.session, "worker", message.seq) or self._refuse_ack(seat.session)
        if isinstance(message, Realtime):
            self._realtime.carry(seat.session, "worker", message, binary)
        elif isinstance(message, SessionAccept | SessionRefuse):
            self._answered(seat, message)
        elif isinstance(message, JobProgress):
            self._progress(seat, message)
        elif isinstance(message, Publish):
            self._parts.rooms.publish(seat.session, "worker", message, binary)
        elif isinstance(message, Join | Snapshot | Presence | Leave):
            self.in_room(self._parts.rooms, seat.session, message, binary)
        return True

    def _progress(self, seat: Seat, message: JobProgress) -> None:
        said = bytes(message.progress)
        if len(said) > PROGRESS_BYTES_MAX:
            self.error("too_big", f"progress is at most {PROGRESS_BYTES_MAX} bytes", session=seat.session.id)
        else:
            self._parts.jobs.progress(seat.session, self, message.job, said)

    def _answered(self, seat: Seat, message: SessionAccept | SessionRefuse) -> None:
        asked = seat.asked_epoch
        if asked is not None and isinstance(message.epoch, int) and message.epoch != asked:
            # It answers an earlier assignment, late. Taken for the answer to this one, it would let in what the handler
            # that is over has said behind it, under numbers that the next one gives again.
            return
        if isinstance(message, SessionAccept):
            self._parts.assignments.accepted(self, seat)
            return
        # Before it accepts, a worker has seen no message: it has no room, or leaves. One that goes gives back in good order.
        if message.state is not NO_DATA:
            self._hand_on(seat, bytes(message.state))
        had = seat.state is SeatState.ACCEPTED
        failed = had and not self.leaving and not self.told_to_go
        cause = Cause.HANDED_BACK if failed else Cause.HANDED_ON if had and self.leaving else Cause.REFUSED
        self._parts.attachments.release(self, cause, seat.session, message.reason)

    def _hand_on(self, seat: Seat, state: bytes) -> None:
        """Leave `state` for the next worker; the session is given back in any case."""
        session = seat.session
        if len(state) > STATE_BYTES_MAX:
            why = f"a state has at most {STATE_BYTES_MAX} bytes: the session is given back without it"
            self.error("too_big", why, session=session.id)
            return
        context = self._parts.context
        context.submit(HandOn(session.id, context.node, session.worker.epoch, state))

    def _bye(self, message: Bye) -> None:
        if message.session is None:
            if not self.ending:
                self.ending = True
                self._parts.context.spawn(self._parts.giving_up.worker_leaves, self, message.reason or "bye")
            return
        seat = self.seats.get(message.session)
        if seat is None:
            self._unknown(message.session)
        elif not seat.ending:
            seat.ending = True
            self._parts.context.spawn(self._parts.endings.by_worker, seat.session, message.reason or "bye")

    def _unknown(self, session: str) -> None:
        # Not fatal: a session may have ended while this frame was on its way.
        self.error("unknown_session", "not a session of this worker here", session=session)

    def _rare(self, message: object) -> bool:
        """Handle what concerns the worker as a whole; False when the connection is to end."""
        if isinstance(message, Bye):
            self._bye(message)
            return True
        if not self._bears_another():
            return False
        if isinstance(message, Ping):
            self.send_text(codec.PONG)
        elif isinstance(message, AppState):
            asks = message.leaving and message.successor
            if asks is not self.asks_successor:
                self.asks_successor, self.told_successor = asks, None
            self._parts.assignments.update(self, message.capacity, message.leaving)
        elif isinstance(message, AppTerminated):
            if not self.terminated.is_set():
                log.info("app_terminated", worker=self.worker, instance=self.instance, status=message.status)
            self.terminated.set()
        elif isinstance(message, Auth):
            self._parts.credentials.renew(self, message.auth)
        elif isinstance(message, AppReady):
            self.fail(CloseCode.BAD_MESSAGE, "out_of_place", "this worker is registered already")
            return False
        return True
