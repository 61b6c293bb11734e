"""A dialect for tests: lines of JSON in other words, on a path and a subprotocol of its own, with no numbers and no acks.

hello ▸ hi {token}      back {token, have} ▸ again {behind}      say ▸ the worker      the worker ▸ heard      ▸ leave, over, bad
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from msgspec import UNSET, Raw, UnsetType, json

from signald.config import Config
from signald.core.head import Party
from signald.net.connection import Connection
from signald.net.endpoints import Endpoint
from signald.net.frames import Message as Frame
from signald.service.attached import LiveSession, Restored, Started
from signald.service.client_opening import NewClient, ReturningClient, restore_session, start_session
from signald.service.dialect import Opened
from signald.service.link import Link
from signald.service.parts import Parts
from signald.service.refusals import Turned
from signald.service.seats import Seat, SeatState
from signald.wire import records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import Message, PeerState


class ToyLink(Link):
    """A client of the toy. What has been written to it counts as received: it sends no acks."""

    party: ClassVar[Party] = "client"
    dialect: ClassVar[str] = "toy"

    def __init__(self, parts: Parts, conn: Connection, session: LiveSession) -> None:
        super().__init__(conn, parts.context.writes)
        self.session, self.owner, self.principal = session, session.id, session.principal
        self._parts = parts
        self._queued = 0

    def _tell(self, word: str, about: object) -> None:
        self.conn.send_text(json.encode({word: about}) + b"\n")
        self.writes.mark(self)

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in lines; the session numbers what they say."""
        self._parts.attachments.confirm_client_token(self.session)
        for line in [line for _, payload in batch for line in payload.splitlines()]:
            message = Message(self.session.up.expected, Raw(json.encode(json.decode(line)["say"])))
            self._parts.relay.accept(self.session, "client", message, None)
        self._parts.relay.settle(self.session, "client")
        self._parts.batches.done()

    def started(self, answer: Started) -> None:
        """Say hi."""
        self._tell("hi", answer.token)

    def restored(self, answer: Restored) -> None:
        """Say how much follows."""
        self._tell("again", {"token": answer.token, "behind": answer.replaying})

    def message_front(self, session: str) -> bytes:
        """A body is transcoded, and needs only the brace that it lacks."""
        return b"{"

    def send_body(self, front: bytes, body: bytes) -> None:
        """Transcode: the slow path of a wire that is not `signald.v1`."""
        _, payload = records.frame(front, body)
        stored = json.decode(payload)
        self._queued = stored["seq"]
        self._tell("heard", stored["data"])

    def write(self) -> None:
        """Write, and take it for received."""
        super().write()
        if self._queued:
            self._parts.relay.ack(self.session, "client", self._queued)
            self._queued = 0

    def go_away(self, reason: str, deadline_ms: int, ticket: str | None) -> None:
        """Ask the client to leave."""
        self._tell("leave", reason)

    def end_session(self, session: str, reason: str) -> None:
        """The session is over."""
        self._tell("over", reason)

    def goodbye(self, reason: str) -> None:
        """It has no word for its own end: it closes."""

    def receipt(self, acked: int) -> None:
        """It has no receipts."""

    def job_changed(self, name: str, job: object) -> None:
        """It has no jobs."""

    def peer_changed(self, state: PeerState, worker: str) -> None:
        """It is told nothing of its worker."""

    def realtime(self, session: str, body: bytes) -> None:
        """It has no realtime."""

    def log_lost(self, session: str, direction: Literal["sent", "received"], lost: tuple[int, int]) -> None:
        """It counts nothing, so it has no word for it."""

    def error(
        self,
        code: str,
        message: str,
        *,
        session: str | None = None,
        expected: int | UnsetType = UNSET,
        retry_after_ms: int | UnsetType = UNSET,
        seq: int | UnsetType = UNSET,
        stream: str | UnsetType = UNSET,
    ) -> None:
        """Say what was wrong."""
        self._tell("bad", code)

    def fail(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        """Say what was wrong, and close."""
        self.error(error, message)
        self.close(code, error)

    def take(self, session: LiveSession) -> None:
        """Give the session the one seat."""
        seat = self.seats[session.id] = Seat(session, b"{")
        seat.state = SeatState.ACCEPTED

    def delivering(self, session: LiveSession) -> bool:
        """A client gets its messages at once."""
        return session is self.session

    def drop(self, session: str) -> None:
        """A client's link ends with its session."""

    def clear(self) -> None:
        """As `drop`."""

    def check(self) -> None:
        """The registry knows no clients."""

    def has_room(self) -> None:
        """Nothing but messages waits for room."""


class Toy:
    """See the module."""

    name = "toy"

    paths: Mapping[str, Party] = {"/toy": "client"}

    def endpoint(self, _path: str, _config: Config) -> Endpoint:
        """One subprotocol."""
        return Endpoint(("toy.1",))

    def arrival_code(self, code: CloseCode) -> CloseCode:
        return code

    def retry_reason(self, retry_after_ms: int) -> str:
        """In words."""
        return f"in {retry_after_ms} ms"

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """The first line says which opening it is."""
        (_, payload), *rest = await conn.receive()
        opening: dict[str, Any] = json.decode(payload)
        try:
            if "back" in opening:
                asked = ReturningClient(opening["back"], received=opening["have"])
                return await restore_session(parts, conn, None, asked, ToyLink), rest
            return await start_session(parts, conn, None, NewClient({}), ToyLink), rest
        except Turned as turned:
            conn.send_text(json.encode({"bad": turned.error}))
            conn.close(turned.code, turned.error)
            await conn.wait_finished()
            return None
