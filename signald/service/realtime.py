"""Realtime messages: carried now, or dropped. They have no log, no number and no ack, so nothing here waits or retries.

A receiver at another node gets the message inside a wake-up of kind `r`.
"""

from signald.core.head import Party, other
from signald.service.attached import LiveSession
from signald.store.base import WAKE_REALTIME, Result
from signald.store.committer import Committer
from signald.store.registry.ops import Signal
from signald.wire import records
from signald.wire.messages import Realtime

SIGNALS_MAX = 1024
"""Realtime messages on their way to other nodes; further ones are dropped, as realtime may be."""


class RealtimeCarrier:
    """See the module."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._signals = 0

    def carry(self, session: LiveSession, party: Party, message: Realtime, binary: bytes | None) -> None:
        """Carry a realtime message of `party` to its peer now, or drop it."""
        receiver = other(party)
        side = session.side(receiver)
        body = records.realtime_body(message, binary)
        if side.link is not None:
            self._send(session, receiver, body)
        elif side.node and self._signals < SIGNALS_MAX:
            self._signals += 1
            wake = WAKE_REALTIME + receiver[0].encode() + session.id.encode() + b"\0" + body
            self._committer.submit(Signal(side.node, wake), self._signalled)

    def _signalled(self, _: Result) -> None:
        self._signals -= 1

    def _send(self, session: LiveSession, party: Party, body: bytes) -> None:
        link = session.side(party).link
        if link is not None and link.delivering(session) and link.conn.room:
            link.realtime(session.id, body)

    def from_afar(self, sessions: dict[str, LiveSession], wake: bytes) -> None:
        """Carry on a realtime message from another node (a wake-up of kind `r`)."""
        name, _, body = wake[2:].partition(b"\0")
        session = sessions.get(name.decode(errors="replace"))
        if session is not None and records.is_body(body):
            self._send(session, "client" if wake[1:2] == b"c" else "worker", body)
