"""What other wires tell a client, and a canvas has no word for: its session has no worker, and is never resumed."""

from typing import ClassVar, Literal

from signald.core.head import Party
from signald.core.jobs import Job
from signald.service.attached import LiveSession, Restored, Started
from signald.service.link import Link
from signald.service.seats import Seat, SeatState
from signald.wire.messages import PeerState


class SilentLink(Link):
    """See the module."""

    party: ClassVar[Party] = "client"
    session: LiveSession

    def goodbye(self, reason: str) -> None:
        """Nothing: the wire has no `bye`."""

    def take(self, session: LiveSession) -> None:
        """Give `session` the one seat of this link."""
        seat = self.seats[session.id] = Seat(session, b"")
        seat.state = SeatState.ACCEPTED

    def drop(self, session: str) -> None:
        """The link ends with its session."""

    def check(self) -> None:
        """The registry knows nothing of clients."""

    def delivering(self, session: LiveSession) -> bool:
        """There are no messages; so with the next ones, which have no word on this wire."""
        return session is self.session

    def message_front(self, _session: str) -> bytes:
        """See `delivering`."""
        return b""

    def send_body(self, front: bytes, body: bytes) -> None:
        """See `delivering`."""

    def realtime(self, session: str, body: bytes) -> None:
        """See `delivering`."""

    def started(self, answer: Started) -> None:
        """Nothing is told before the socket is in its room."""

    def restored(self, answer: Restored) -> None:
        """No session of this wire is resumed."""

    def peer_changed(self, state: PeerState, worker: str) -> None:
        """See `delivering`."""

    def job_changed(self, name: str, job: Job) -> None:
        """See `delivering`."""

    def receipt(self, acked: int) -> None:
        """See `delivering`."""

    def log_lost(self, session: str, direction: Literal["sent", "received"], lost: tuple[int, int]) -> None:
        """See `delivering`."""
