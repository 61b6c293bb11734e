"""An app's connection: a worker of one session whose wire has no acks.

signald acks in the app's place. What it has written counts as received once the app's side of the WebSocket has shown that it has
read that far: by the Pong to a Ping that was sent behind it (RFC 6455 5.5.3), or by the answer to our Close. So a message that was
in flight when a connection broke is given out again, and one that a planned stop has written is not.

What the app says has no number: the session numbers it. It is stored before it is handed on, but the app is not told so. Frames
that arrive between our Close and the app's are taken like any other.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import structlog
import trio
from msgspec import UNSET, Raw, UnsetType

from signald.core.head import Party
from signald.core.once_more import OnceMore
from signald.dialects.deepstream.events import CoreEvents
from signald.dialects.deepstream.messages import (
    PONG,
    AppAccepted,
    AppReady,
    Error,
    ReconnectionAck,
    TerminateApp,
    data_for_app,
    encode,
    read_busy,
    read_terminated,
    shown,
    type_of,
)
from signald.dialects.deepstream.proofs import Proofs
from signald.dialects.deepstream.states import AppState, Progress
from signald.errors import BadMessage
from signald.ids import WorkerId
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.service.attached import LiveSession
from signald.service.link import Link
from signald.service.parts import Parts
from signald.service.rate_limit import RateLimit
from signald.service.seats import Seat, SeatState
from signald.service.worker_like import Assignment, GivenJob, Offer, Registered
from signald.wire import records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import CancelReason, Message, PeerState

log = structlog.get_logger(__name__)

OTHERS_PER_S, OTHERS_BURST = 10.0, 100
"""What an app may send that is answered or is wrong: heartbeats, and mistakes. Beyond it the connection is closed."""

SENT_AWAY = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY})
"""Codes by which a node sends an app away."""


class AppLink(Link):
    """See the module."""

    party: ClassVar[Party] = "worker"
    dialect: ClassVar[str] = "deepstream"

    def __init__(
        self,
        parts: Parts,
        conn: Connection,
        worker: str,
        epoch: int,
        offer: Offer,
        principal: str,
        *,
        ready: AppReady,
        progress: Progress,
    ) -> None:
        """`ready` is its opening message."""
        context = parts.context
        super().__init__(conn, context.writes)
        self._parts = parts
        self._context = context
        self._ready = ready
        self._progress = progress
        self.worker = WorkerId(worker)
        self.epoch = epoch
        self._principal = principal
        self.instance = offer.instance
        self.labels = offer.labels
        self.capacity = offer.capacity
        self.kinds: tuple[str, ...] = ()
        self.granted, self.rooms = offer.granted, offer.rooms
        self.leaving = False
        self.asks_successor = False
        self.told_successor: set[str] | None = None
        self.unasked = False
        self.checks = OnceMore()
        self.updates = OnceMore()
        self.terminated = trio.Event()
        self._proofs = Proofs(self, parts.relay, context)
        self._events = CoreEvents(context, self.worker, self.instance, epoch)
        config = context.config.deepstream
        now = trio.current_time()
        self._rate = RateLimit(config.messages_per_s, config.messages_burst, now)
        self._others = RateLimit(OTHERS_PER_S, OTHERS_BURST, now)
        self._offered = 0
        """The number of the last message that the relay has taken."""
        self._depth_max = context.config.limits.json_depth_max
        conn.on_proof = self._proofs.shown
        conn.takes_late = True

    def __repr__(self) -> str:
        return f"<AppLink {self.worker} sessions={len(self.seats)}>"

    # --- what the service knows of it -------------------------------------------------------------------------------

    @property
    def state(self) -> AppState:
        """How far it is."""
        return self._progress.state

    @property
    def speaks_handover(self) -> bool:
        """An app can be sent to another node, by a close; whether it is to go there or to end, the operator has decided."""
        return self._context.config.deepstream.on_drain == "reconnect"

    @property
    def cleans_up_s(self) -> float | None:
        """See `WorkerLike`."""
        return None if self.speaks_handover else self._context.config.deepstream.terminate_timeout_s

    @property
    def owner(self) -> str:
        """See `PartyLink`."""
        return self.worker

    @property
    def principal(self) -> str:
        """The app's."""
        return self._principal

    @property
    def left_in_order(self) -> bool:
        """See `WorkerLike`."""
        closed = self.conn.closed
        sent_away = closed is not None and closed.initiator == "local" and closed.code in SENT_AWAY
        return self.leaving or self.told_to_go or self.terminated.is_set() or sent_away

    # --- seats ------------------------------------------------------------------------------------------------------

    def take(self, session: LiveSession) -> None:
        """Give `session` a seat."""
        self.seats[session.id] = Seat(session, b"{")

    def clear(self) -> None:
        """Forget all sessions: the app is elsewhere, or gone."""
        self.seats.clear()
        self._parts.terminations.over(self)
        closed = self.conn.closed
        self._progress.to(AppState.DISCONNECTED, worker=self.worker, code=0 if closed is None else int(closed.code))

    def check(self) -> None:
        """Have the registry read again for this app."""
        self._parts.assignments.check(self)

    def has_room(self) -> None:
        """The send queue has room again: go on with the session the app could not be given."""
        if self.unasked:
            self.check()

    def delivering(self, session: LiveSession) -> bool:
        """Tell whether the app has the session."""
        seat = self.seats.get(session.id)
        return seat is not None and seat.state is SeatState.ACCEPTED

    # --- out --------------------------------------------------------------------------------------------------------

    def registered(self, answer: Registered) -> None:
        """Say what the app has asked to be told. It takes every session that it is given."""
        self._progress.to(AppState.AUTHENTICATED, worker=self.worker, epoch=self.epoch, restored=answer.resumed)
        if self._ready.returns:
            self._send(encode(ReconnectionAck("ok", answer.resumed, "running")))
        elif self._ready.wants_answer:
            self._send(encode(AppAccepted("ok", self.instance)))
        for seat in list(self.seats.values()):
            self._parts.assignments.accepted(self, seat)

    def assign(self, assignment: Assignment) -> None:
        """The wire has no word for it: the app hears of its client by what that says."""
        self._parts.assignments.accepted(self, self.seats[assignment.session])

    def message_front(self, session: str) -> bytes:
        """A body is transcoded, and needs only the brace that it lacks."""
        return self.seats[session].front

    def send_body(self, front: bytes, body: bytes) -> None:  # noqa: ARG002
        """Give the app the data of a message of its client, as it is."""
        if self.conn.closing:
            return  # thrown away: the app's answer to our Close proves nothing of what would stand behind that
        stored, binary = records.parts(body)
        seq, data = data_for_app(stored)
        if data is None or binary is not None:
            self._context.counts.app_messages["withheld"] += 1
        else:
            self._send(data)
        self._proofs.wrote(seq)
        self.writes.mark(self)

    def write(self) -> None:
        """Write everything queued, with a Ping behind it that shows when the app has read it."""
        self._proofs.ask()
        super().write()

    def go_away(self, reason: str, deadline_ms: int, ticket: str | None) -> None:  # noqa: ARG002
        """Close: the app comes back to another node, in its own time."""
        self.close(CloseCode.GOING_AWAY, reason)

    def terminate(self, request: str, reason: str, deadline_ms: int) -> None:
        """Ask the app to clean up."""
        self._progress.to(AppState.TERMINATING, worker=self.worker, request=request, within_ms=deadline_ms)
        self._send(encode(TerminateApp(request, reason)))

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close behind what is queued. The fleet knows one code for a server that goes away, whether it comes back or not."""
        super().close(CloseCode.GOING_AWAY if code is CloseCode.RESTARTING else code, reason)

    def error(
        self,
        code: str,
        message: str,
        *,
        session: str | None = None,  # noqa: ARG002
        expected: int | UnsetType = UNSET,
        retry_after_ms: int | UnsetType = UNSET,
        seq: int | UnsetType = UNSET,  # noqa: ARG002
        stream: str | UnsetType = UNSET,  # noqa: ARG002
    ) -> None:
        """Say what was wrong. A program that does not know the word passes over it."""
        if isinstance(expected, int):
            # The app keeps nothing that it could offer again: what was passed over is dropped.
            self._context.counts.app_messages["backlog"] += max(0, self._offered - (expected - 1))
            self._offered = min(self._offered, expected - 1)
        self._send(encode(Error(code, message, retry_after_ms=retry_after_ms)))

    def fail(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        """Say what was wrong, and close."""
        self._send(encode(Error(error, message, fatal=True, retry_after_ms=retry_after_ms)))
        self.close(code, error)

    def _send(self, payload: bytes) -> None:
        self.conn.send_text(payload)
        self.writes.mark(self)

    def end_session(self, session: str, reason: str) -> None:  # noqa: ARG002
        """The session is over for the app, which knows of none."""
        self.drop(session)

    def goodbye(self, reason: str) -> None:
        """A client is told of its end, never an app."""

    def peer_changed(self, state: PeerState, worker: str) -> None:
        """An app is told nothing of its client's connection."""

    def realtime(self, session: str, body: bytes) -> None:
        """The wire has no word for it."""

    def receipt(self, acked: int) -> None:
        """An app asks for none."""

    def successor(self, sessions: Sequence[str]) -> None:
        """An app cannot ask for it, so it is told nothing."""

    def give_job(self, job: GivenJob) -> None:
        """An app takes no kind of job, so it is given none."""

    def cancel_job(self, session: str, job: str, reason: CancelReason) -> None:
        """See `give_job`."""

    def job_changed(self, name: str, job: object) -> None:
        """See `give_job`."""

    def log_lost(self, session: str, direction: Literal["sent", "received"], lost: tuple[int, int]) -> None:
        """An app counts nothing, so it cannot be told. The operator is."""

    # --- in ---------------------------------------------------------------------------------------------------------

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in everything one read yielded."""
        if self.over:
            return  # superseded, or given up: its session is another's
        now = trio.current_time()
        owed_s = self._context.pauses.owed_s(now)
        self._rate.refill(now, owed_s)
        self._others.refill(now, owed_s)
        for text, payload in batch:
            try:
                kind = type_of(text, payload, self._depth_max)
            except BadMessage as bad:
                self.error("bad_message", str(bad))
                if not self._bears():
                    break
                continue
            going_on = self._message(payload) if kind not in _HANDLERS else _HANDLERS[kind](self, payload)
            if not going_on:
                break
        if (seat := self._seat) is not None:
            self._parts.relay.settle(seat.session, "worker")
        self._parts.batches.done()

    @property
    def _seat(self) -> Seat | None:
        """The app's one session, if it has one."""
        return next(iter(self.seats.values()), None)

    def _bears(self) -> bool:
        """Count a frame that is wrong or is only answered; False when the connection is to end for it."""
        if self._others.take():
            return True
        self.fail(CloseCode.RATE, "rate", "too many frames that are no messages")
        return False

    def _message(self, payload: bytes) -> bool:
        """Hand on a message: to the app's client, or to the core server. False when the connection is to end."""
        counts = self._context.counts.app_messages
        if not self._rate.take():
            counts["rate"] += 1
            if self._rate.refused == 1:
                self.error("rate", "too many messages: this one is dropped", retry_after_ms=self._rate.retry_after_ms)
            if self._rate.flooding:
                self.fail(CloseCode.RATE, "rate", "far too many messages")
                return False
            return True
        if (seat := self._seat) is None:
            if refused := self._events.tell(payload):
                self.error(refused, "this message is not told to the core server")
            return True
        expected = seat.session.down.expected
        # Not part of the chat history: a new client is told nothing of what cameras saw before.
        message = Message(expected, Raw(payload), history=False)
        counts["paired"] += 1
        self._parts.relay.accept(seat.session, "worker", message, None)
        if seat.session.down.expected == expected:
            counts["backlog"] += 1
        else:
            self._offered = expected
        return True

    def _terminated(self, payload: bytes) -> bool:
        said = read_terminated(payload)
        log.info(
            "app_terminated",
            worker=self.worker,
            instance=self.instance,
            status=shown(said.status),
            message=shown(said.message),
        )
        self.terminated.set()
        self._parts.terminations.answered(self, shown(said.request_id), shown(said.status))
        return True

    def _busy(self, payload: bytes) -> bool:
        said = read_busy(payload)
        wait_s = said.wait_s(self._context.now_ms())
        log.info(
            "app_busy", worker=self.worker, instance=self.instance, wait_s=round(wait_s, 3), reason=shown(said.reason)
        )
        self._parts.terminations.busy(self, trio.current_time() + wait_s)
        return self._bears()

    def _ping(self, _payload: bytes) -> bool:
        self._send(PONG)
        return self._bears()

    def _pong(self, _payload: bytes) -> bool:
        return self._bears()

    def _ready_again(self, _payload: bytes) -> bool:
        self.fail(CloseCode.BAD_MESSAGE, "out_of_place", "this app is registered already")
        return False


_HANDLERS = {
    "app_terminated": AppLink._terminated,
    "app_busy": AppLink._busy,
    "app_ready": AppLink._ready_again,
    "ping": AppLink._ping,
    "pong": AppLink._pong,
}
"""Type → what is done with it; every other type is a message."""
