"""A client's connection: its frames in, its session's messages out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import trio

from signald.core.head import Party
from signald.errors import BadMessage, UnknownType
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.service.link import Link
from signald.service.rate_limit import RateLimit
from signald.service.relay import LiveSession
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import Ack, Bye, Connect, Message, Ping, Realtime, RestoreSession

if TYPE_CHECKING:
    from signald.service.hub import Hub

OTHERS_PER_S, OTHERS_BURST = 100.0, 1000
"""What a client may send that is neither a message nor an ack: each is answered, so a flood of them is work for two."""

_FRONT = records.head(b"message", None)


class ClientLink(Link):
    """See the module."""

    party: ClassVar[Party] = "client"

    def __init__(self, hub: "Hub", conn: Connection, session: LiveSession) -> None:
        super().__init__(conn, hub.outbox)
        self._hub = hub
        self.session = session
        limits = hub.config.limits
        self._rate = RateLimit(limits.messages_per_s, limits.messages_burst, trio.current_time())
        self._others = RateLimit(OTHERS_PER_S, OTHERS_BURST, trio.current_time())
        self._depth_max = limits.json_depth_max
        self._confirmed = False
        self.ending = False

    def __repr__(self) -> str:
        return f"<ClientLink {self.session.id}>"

    @property
    def owner(self) -> str:
        """See the base."""
        return self.session.id

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
            self._hub.confirm_client_token(self.session)
        now = trio.current_time()
        self._rate.refill(now, self._hub.pauses.owed_s(now))
        relay = self._hub.relay
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
                if self._rate.take():
                    if not self._may_add(message.seq, len(payload)):  # type: ignore[union-attr]
                        relay.push_back(self.session, "client", self)
                        continue
                    relay.accept(self.session, "client", message, binary)  # type: ignore[arg-type]
                    offered = True
                elif not self._refuse():
                    break
            elif kind is Ack:
                if not relay.ack(self.session, "client", message.seq):  # type: ignore[union-attr]
                    self._hub.losses.refuse(self.session.id, "client", "ack")
                    self.fail(CloseCode.FORBIDDEN, "too_far_ahead", "no such messages were given out")
                    break
            elif not self._rare(message, binary):
                break
        if offered:
            relay.settle(self.session, "client")
        self._hub.batch_done()

    def _may_add(self, seq: int, size: int) -> bool:
        """Tell whether the address of this client may store so much more; what is offered again costs nothing."""
        return seq != self.session.up.expected or self._hub.holdings.may_add(self.session, size)

    def _refuse(self) -> bool:
        """Push back a message over the rate; False when the connection is to end."""
        if self._rate.flooding:
            self.fail(CloseCode.RATE, "rate", "far over the message rate", self._rate.retry_after_ms)
            return False
        log = self.session.up
        if log.tell_refusal(self._hub.store.now_ms(), self._rate.retry_after_ms):
            self.error(
                "rate",
                "over the message rate; offer this message again",
                expected=log.expected,
                retry_after_ms=self._rate.retry_after_ms,
            )
        return True

    def _bears_another(self) -> bool:
        """Count a frame that is answered and costs its sender nothing; False when the connection is to end for it."""
        now = trio.current_time()
        self._others.refill(now, self._hub.pauses.owed_s(now))
        if self._others.take():
            return True
        self.fail(CloseCode.RATE, "rate", "too many frames that are no messages", self._others.retry_after_ms)
        return False

    def _rare(self, message: object, binary: bytes | None) -> bool:
        """Handle what is not a message or an ack; False when the connection is to end."""
        if isinstance(message, Realtime):
            if self._rate.take_quietly():
                self._hub.relay.realtime(self.session, "client", message, binary)
        elif isinstance(message, Ping):
            if not self._bears_another():
                return False
            self.send_text(codec.PONG)
        elif isinstance(message, Bye):
            if self.ending:
                return True
            self.ending = True
            self._hub.spawn(self._hub.endings.by_client, self.session, self, message.reason or "bye")
        elif isinstance(message, Connect | RestoreSession):
            self.fail(CloseCode.BAD_MESSAGE, "out_of_place", "this connection has its session already")
            return False
        return True
