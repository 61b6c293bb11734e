"""A client's connection: its frames in, its session's messages out."""

from collections.abc import Sequence
from typing import ClassVar

import trio
from msgspec import UNSET, Raw

from signald.core.chat_history import shown
from signald.core.head import Party
from signald.core.jobs import Job
from signald.core.room_views import Told
from signald.dialects.v1.answers import api_fields, client_limits, heartbeat_ms
from signald.dialects.v1.link import InRoom, V1Link
from signald.dialects.v1.rooms import frames_by
from signald.errors import BadMessage, UnknownType
from signald.ids import job_id
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.service.attached import LiveSession, Restored, Started
from signald.service.parts import Parts
from signald.service.rate_limit import RateLimit
from signald.service.seats import Seat, SeatState
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import (
    Ack,
    Auth,
    Bye,
    Connect,
    JobStateChanged,
    JobSummary,
    Message,
    Peer,
    PeerChanged,
    PeerState,
    Ping,
    Realtime,
    RestoreSession,
    SessionEnded,
    SessionRestored,
    SessionStarted,
    StreamCancel,
    StreamState,
)
from signald.wire.rooms import Join, Leave, Presence, Publish, Snapshot

OTHERS_PER_S, OTHERS_BURST = 100.0, 1000
"""What a client may send that is neither a message nor an ack: each is answered, so a flood of them is work for two."""

_FRONT = records.head(b"message", None)


class ClientLink(V1Link):
    """See the module."""

    party: ClassVar[Party] = "client"

    def __init__(self, parts: Parts, conn: Connection, session: LiveSession) -> None:
        context = parts.context
        super().__init__(conn, context.writes, context.pauses)
        self._parts = parts
        self._relay = parts.relay
        self._realtime = parts.attachments.realtime
        self.session = session
        self.take(session)
        limits = context.config.limits
        self._rate = RateLimit(limits.messages_per_s, limits.messages_burst, trio.current_time())
        self._others = RateLimit(OTHERS_PER_S, OTHERS_BURST, trio.current_time())
        self._depth_max = limits.json_depth_max
        self._confirmed = False

    def __repr__(self) -> str:
        return f"<ClientLink {self.session.id}>"

    @property
    def owner(self) -> str:
        """See the base."""
        return self.session.id

    @property
    def principal(self) -> str:
        """The client's, which is the session's."""
        return self.session.principal

    def room_messages(self, told: Told) -> bool:
        """See `PartyLink`."""
        shown = told.shown
        if not self.conn.send_frames(told.frames(frames_by(self.conn.deflates_for_many)), len(shown)):
            return False
        if not self.marked:
            self.writes.mark(self)
        return True

    def take(self, session: LiveSession) -> None:
        """Give `session` the one seat of this link."""
        seat = self.seats[session.id] = Seat(session, _FRONT)
        seat.state = SeatState.ACCEPTED

    def drop(self, session: str) -> None:
        """The link ends with its session, or the session goes on without the link."""

    def clear(self) -> None:
        """There is nothing to forget but the link itself."""

    def check(self) -> None:
        """The registry knows nothing of clients."""

    def has_room(self) -> None:
        """What a room has for a new member waits for room, beside messages."""
        self._parts.rooms.has_room(self)

    def started(self, answer: Started) -> None:
        """See `ClientLike`."""
        context = self._parts.context
        self.send(
            SessionStarted(
                answer.session,
                answer.token,
                answer.ttl_ms,
                Peer(answer.peer_state, answer.worker or None),
                1,
                client_limits(context),
                heartbeat_ms(context),
                settings=Raw(answer.settings) if answer.settings else UNSET,
                **api_fields(answer.api),
            )
        )

    def restored(self, answer: Restored) -> None:
        """See `ClientLike`."""
        context = self._parts.context
        self.send(
            SessionRestored(
                answer.session,
                answer.token,
                answer.ttl_ms,
                answer.accepted,
                answer.replaying,
                Peer(answer.peer_state, answer.worker or None),
                heartbeat_ms(context),
                UNSET if answer.history is None else shown(answer.history),
                client_limits(context),
                jobs=[JobSummary(job_id(answer.session, job.n), job.state, job.attempt) for job in answer.jobs]
                or UNSET,
                next_received=UNSET if answer.next_received is None else answer.next_received,
                settings=Raw(answer.settings) if answer.settings else UNSET,
                **api_fields(answer.api),
            )
        )

    def job_changed(self, name: str, job: Job) -> None:
        """Tell the client of a change of a job."""
        progress, error = Raw(job.progress) if job.progress else UNSET, Raw(job.error) if job.error else UNSET
        self.send(JobStateChanged(name, job.state, job.attempt, progress, error))

    def stream_state(self, stream: str, attempt: int, outcome: str) -> None:
        """Tell the client of the end of a stream."""
        self.send(StreamState(stream, attempt, outcome))

    def receipt(self, acked: int) -> None:
        """Tell the client what its worker has."""
        self.send_text(codec.receipt_frame(acked, None))

    def end_session(self, _session: str, reason: str) -> None:
        """Tell the client that its session is over."""
        if self.session.pair:
            self.send(PeerChanged("gone"))
        self.send(SessionEnded(reason))

    def goodbye(self, reason: str) -> None:
        """Tell the client that its session has ended by its own `bye`."""
        self.send(SessionEnded(reason))

    def peer_changed(self, state: PeerState, worker: str) -> None:
        """Tell the client of its worker."""
        self.send(PeerChanged(state, worker) if worker else PeerChanged(state))

    def session_name(self, session: str) -> None:
        """A client has one session: it is not named."""

    def delivering(self, session: LiveSession) -> bool:
        """A client gets its messages at once."""
        return session is self.session

    def message_front(self, _session: str) -> bytes:
        """The same for every message."""
        return _FRONT

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in everything one read yielded."""
        if not self._confirmed:
            # Any frame shows that the holder has its new token: the one before is done with.
            self._confirmed = True
            self._parts.attachments.confirm_client_token(self.session)
        now = trio.current_time()
        self._rate.refill(now, self._pauses.owed_s(now))
        relay = self._relay
        offered = False
        for text, payload in batch:
            try:
                message, binary = codec.decode_client(text, payload, self._depth_max)
            except UnknownType as unknown:
                if not self._bears_another():
                    break
                self.error("unknown_type", f"unknown type: {unknown}")
                continue
            except BadMessage as bad:
                self.fail(CloseCode.BAD_MESSAGE, "bad_message", str(bad))
                break
            kind = type(message)
            if kind is Message:
                if self.session.pair and self._rate.take():
                    if not self._may_add(message.seq, len(payload)):  # type: ignore[union-attr]
                        relay.push_back(self.session, "client", self)
                        continue
                    relay.accept(self.session, "client", message, binary)  # type: ignore[arg-type]
                    offered = True
                elif not self._refuse():
                    break
            elif kind is Ack:
                if not relay.ack(self.session, "client", message.seq):  # type: ignore[union-attr]
                    self._parts.losses.refuse(self.session.id, "client", "ack")
                    self.fail(CloseCode.FORBIDDEN, "too_far_ahead", "no such messages were given out")
                    break
            elif not self._rare(message, binary):
                break
        if offered:
            relay.settle(self.session, "client")
        self._parts.rooms.settle()
        self._parts.batches.done()

    def _may_add(self, seq: int, size: int) -> bool:
        """Tell whether the address of this client may store so much more; what is offered again costs nothing."""
        return seq != self.session.up.expected or self._parts.holdings.may_add(self.session, size)

    def _refuse(self) -> bool:
        """Push back a message over the rate, or one that has no receiver; False when the connection is to end."""
        if not self.session.pair:
            return self._refuse_alone()
        if self._rate.flooding:
            return self._floods()
        log = self.session.up
        if log.tell_refusal(self._parts.context.now_ms(), self._rate.retry_after_ms):
            self.error(
                "rate",
                "over the message rate; offer this message again",
                expected=log.expected,
                retry_after_ms=self._rate.retry_after_ms,
            )
        return True

    def _floods(self) -> bool:
        """End the connection of a client that goes on after it was told to wait."""
        self.fail(CloseCode.RATE, "rate", "far over the message rate", self._rate.retry_after_ms)
        return False

    def _refuse_alone(self) -> bool:
        """Tell a client that asked for no worker that it has none; False when the connection is to end."""
        if not self._bears_another():
            return False
        self.error("no_peer", "this session has no worker", expected=self.session.up.expected)
        return True

    def _publish(self, message: Publish, binary: bytes | None) -> bool:
        """Take a publication, or refuse it for the rate; False when the connection is to end."""
        in_rate = self._rate.take()
        if not in_rate and self._rate.flooding:
            return self._floods()
        self._parts.rooms.publish(self.session, "client", message, binary, in_rate=in_rate)
        return True

    def _in_rooms(self, message: Publish | InRoom, binary: bytes | None) -> bool:
        """Handle what concerns a room; False when the connection is to end."""
        if isinstance(message, Publish):
            return self._publish(message, binary)
        if not self._bears_another():
            return False
        self.in_room(self._parts.rooms, self.session, message, binary)
        return True

    def _bears_another(self) -> bool:
        """Count a frame that is answered and costs its sender nothing; False when the connection is to end for it."""
        return self.bears(self._others, "too many frames that are no messages")

    def _rare(self, message: object, binary: bytes | None) -> bool:
        """Handle what is not a message or an ack; False when the connection is to end."""
        if isinstance(message, Publish | Join | Snapshot | Presence | Leave):
            return self._in_rooms(message, binary)
        if isinstance(message, Realtime):
            if not self.session.pair:
                return self._refuse_alone()
            if self._rate.take_quietly():
                self._realtime.carry(self.session, "client", message, binary)
        elif isinstance(message, Ping):
            if not self._bears_another():
                return False
            self.send_text(codec.PONG)
        elif isinstance(message, StreamCancel):
            if not self._bears_another():
                return False
            self._parts.attachments.streams.cancel(self.session, message.stream, message.reason)
        elif isinstance(message, Bye):
            if self.ending:
                return True
            self.ending = True
            self._parts.context.spawn(self._parts.endings.by_client, self.session, self, message.reason or "bye")
        elif isinstance(message, Auth):
            if not self._bears_another():
                return False
            self._parts.credentials.renew(self, message.auth)
        elif isinstance(message, Connect | RestoreSession):
            self.fail(CloseCode.BAD_MESSAGE, "out_of_place", "this connection has its session already")
            return False
        return True
