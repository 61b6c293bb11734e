"""What an app has shown to have read: the acks of a wire that has none.

Behind messages goes a Ping with the number of the proof; its Pong shows that the app's side has read what was before it. One Ping is
in flight at a time, and the next follows no sooner than `PAUSE_S` behind the last: an app must not be taken for one that floods us with
the Pongs that we have asked for.

    wrote(seq) ─▸ ask: a Ping ─▸ shown(Pong) ─▸ the relay has the ack
                       ▴              │
                       └── PAUSE_S ───┘ if more was written meanwhile
"""

from typing import Protocol

import trio

from signald.net.connection import Connection
from signald.service.context import Context
from signald.service.relay import Relay
from signald.service.seats import Seat

PAUSE_S = 0.05
"""Between two Pings: twenty a second, a fifth of the control frames that a peer may send."""


class Prover(Protocol):
    """The link of the app."""

    conn: Connection
    over: bool
    seats: dict[str, Seat]


class Proofs:
    """See the module. One for each connection, which has one session at a time."""

    def __init__(self, link: Prover, relay: Relay, context: Context) -> None:
        self._link = link
        self._relay = relay
        self._context = context
        self._number = 0
        """Of the last Ping."""
        self._written: tuple[str, int, int] | None = None
        """The session, the epoch of the app's side, and the seq that was written last."""
        self._asked: tuple[str, int, int] | None = None
        """What the Ping in flight proves; None: there is none."""
        self._not_before = 0.0
        """When the next Ping may go (trio time)."""
        self._waiting = False
        """A task waits for that."""

    def wrote(self, seq: int) -> None:
        """A message of the app's one session is queued."""
        for seat in self._link.seats.values():
            self._written = seat.session.id, seat.session.worker.epoch, seq

    def ask(self) -> None:
        """Queue a Ping behind what is queued, if something is to be proved."""
        if self._written is None or self._asked is not None or self._waiting:
            return
        if trio.current_time() < self._not_before:
            self._waiting = True
            self._context.spawn(self._ask_later)
            return
        self._asked, self._written = self._written, None
        self._number += 1
        self._link.conn.send_ping(b"%d" % self._number)

    async def _ask_later(self) -> None:
        await trio.sleep_until(self._not_before)
        self._waiting = False
        if not self._link.over:
            self.ask()
            self._link.conn.flush()

    def shown(self, payload: bytes | None) -> None:
        """The app has answered a Ping, or with None our Close, which was behind everything."""
        if payload is None:
            for proved in (self._asked, self._written):
                self._ack(proved)
            self._asked = self._written = None
        elif self._asked is not None and payload == b"%d" % self._number:
            self._ack(self._asked)
            self._asked = None
            self._not_before = trio.current_time() + PAUSE_S
            self.ask()
            self._link.conn.flush()

    def _ack(self, proved: tuple[str, int, int] | None) -> None:
        if proved is None or self._link.over:
            return
        name, epoch, seq = proved
        seat = self._link.seats.get(name)
        if seat is not None and seat.session.worker.epoch == epoch:
            self._relay.ack(seat.session, "worker", seq)
