"""A socket of a canvas: a client with a session of its own, in the room of its canvas.

    OUT ──restore_session, an edit, a chat──▸ ENTERING ──`room_joined`──▸ IN
     ▲                                           │
     └───────────── it may not be ───────────────┘

Its session lives as long as the connection: the wire has no word for resuming. After a reconnection the room has everything, and
`restore_session` asks for it. The wire has no GOAWAY either, so a drain closes with 1001, and takes what comes before the client's Close.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache, partial
from typing import ClassVar

import trio
from msgspec import UNSET, UnsetType

from signald.core.room_names import of_principal
from signald.core.room_views import Answer, Shown, Told
from signald.core.rooms import Publication, Right, fault_of, room_of
from signald.dialects.canvas import views
from signald.dialects.canvas.chats import RECENT, Chats, Kept
from signald.dialects.canvas.closing import GENTLE, close_code
from signald.dialects.canvas.messages import (
    Auth,
    CanvasUpdate,
    ChatMessage,
    Other,
    Ping,
    RestoreSession,
    Said,
    WrongError,
    read,
)
from signald.dialects.canvas.outbox import WHY_NOT, Outbox
from signald.dialects.canvas.silent import SilentLink
from signald.errors import StoreUnavailable
from signald.net.compression import Deflater
from signald.net.connection import Connection
from signald.net.frames import Message as Frame
from signald.net.frames import text_header
from signald.service.attached import LiveSession
from signald.service.parts import Parts
from signald.service.rate_limit import RateLimit
from signald.service.rooms.guest import Guest, State
from signald.service.rooms.rights import rights_of
from signald.wire.close_codes import CloseCode
from signald.wire.rooms import Join

NAME = "canvas"
"""What the wire is called: as a subprotocol, and where connections are counted."""

PART_BYTES = 60_000
"""Of one frame of a long answer: below 64 KiB. A queue that has room takes one more."""

HELD_MAX = 1000
"""What is held back behind such an answer: more than the heartbeats and errors of the half minute that it may take. Beyond it the
connection is closed, as one that does not read."""

PONG = b'{"type":"pong"}'

OTHERS_PER_S, OTHERS_BURST = 100.0, 1000
"""Heartbeats, and frames that are answered with an error, as on `signald.v1`: each is answered, so a flood of them is work for two."""

RIGHTS_TEXT = "this canvas needs the rights join, publish and state"


class Place(Enum):
    """How far the socket is in its room."""

    OUT = "out"
    ENTERING = "entering"
    IN = "in"


class CanvasLink(SilentLink):
    """See the module."""

    dialect: ClassVar[str] = NAME

    def __init__(self, parts: Parts, conn: Connection, session: LiveSession, *, canvas: str) -> None:
        """`canvas` is the `session_id` of the path."""
        super().__init__(conn, parts.context.writes)
        self._parts = parts
        self.session = session
        self.owner, self.principal = session.id, session.principal
        self._canvas = canvas
        self._room = room_of(NAME, canvas)
        self._stored = of_principal(self._room, session.principal)
        self._place = Place.OUT
        self._restores = 0
        """How often it has asked for what the session has."""
        self._reads = False
        """The chat is being read for an answer."""
        self._kept: Kept | None = None
        """The chat as it was read for an answer that is to come."""
        self._is_slow = False
        self._held: list[bytes] | None = None
        """What is to be said behind an answer that is being written; None: none is."""
        self._ended = False
        """Its session has an end that was not the end of the connection."""
        self._chats = Chats(parts, session, canvas)
        self.take(session)
        self._outbox = Outbox(parts, session, self._stored, self._wrong)
        now, limits = trio.current_time(), parts.context.config.limits
        self._rate = RateLimit(limits.messages_per_s, limits.messages_burst, now)
        self._others = RateLimit(OTHERS_PER_S, OTHERS_BURST, now)
        self._depth_max = limits.json_depth_max

    def __repr__(self) -> str:
        return f"<CanvasLink {self.session.id}>"

    def begin(self) -> None:
        """The socket is let in: it must have all rights in its room, because its wire has no word for a part of them."""
        if not {"join", "publish", "state"} <= self._rights():
            self.fail(CloseCode.FORBIDDEN, "forbidden", RIGHTS_TEXT)

    def _rights(self) -> frozenset[Right]:
        return rights_of(self._parts.context.config, self.session, "client").of(self._room)

    # --- what the socket says ---------------------------------------------------------------------------------------

    def frames(self, batch: Sequence[Frame]) -> None:
        """Take in everything one read yielded."""
        now = trio.current_time()
        owed_s = self._parts.context.pauses.owed_s(now)
        self._rate.refill(now, owed_s)
        self._others.refill(now, owed_s)
        for text, payload in batch:
            try:
                said = read(text, payload, self._depth_max)
                self._take_in(said)
            except WrongError as wrong:
                if not self._others.take():
                    self._flood()
                    break
                self._wrong(wrong)
            if self.conn.closing and not self.conn.takes_late:
                break
        self._parts.batches.done()

    def _take_in(self, said: Said) -> None:
        if isinstance(said, Ping):
            if self._others.take():
                self._say(PONG)
            else:
                self._flood()
            return
        if not self._bears(said):
            return
        if isinstance(said, RestoreSession):
            self._restore(said)
        elif isinstance(said, CanvasUpdate):
            self._edit(said)
        elif isinstance(said, ChatMessage):
            self._publish(views.chat(said.message), said.id)
        elif isinstance(said, Auth):
            self._parts.credentials.renew(self, said.auth)
        else:
            self._pass_on(said)

    def _bears(self, said: Said) -> bool:
        """Count a message in the rate of the client. Beyond it the sender is told; a flood ends the connection."""
        if self._rate.take():
            return True
        if self._rate.flooding:
            self._flood()
            return False
        id_ = getattr(said, "id", None) or ""
        self._say(views.error("rate", "over the message rate; send it again later", id_, self._rate.retry_after_ms))
        return False

    def _flood(self) -> None:
        self.fail(CloseCode.RATE, "rate", "far over the message rate", self._rate.retry_after_ms)

    def _restore(self, said: RestoreSession) -> None:
        if said.session_id is not UNSET and said.session_id != self._canvas:
            raise WrongError("other_session", "this socket is at the path of another session_id")
        if self._held is None:  # else the answer to an earlier one is being written, and is the answer to this one
            self._restores += 1
            self._enter()

    def _edit(self, said: CanvasUpdate) -> None:
        if not said.patch:
            return
        publication = views.edit(said.patch)
        fault = fault_of(publication)
        if fault:
            raise WrongError(fault, WHY_NOT.get(fault, "too many keys in one patch"), said.id or "")
        self._publish(publication, said.id)

    def _publish(self, publication: Publication, id: str | None) -> None:  # noqa: A002
        self._need("publish" if publication.body else "state", id)
        self._outbox.put(publication, id)
        if self._place is Place.OUT:
            self._enter()

    def _need(self, right: Right, id: str | None) -> None:  # noqa: A002
        """Raise WrongError when the right was withdrawn."""
        if right not in self._rights():
            raise WrongError("forbidden", RIGHTS_TEXT, id or "")

    def _pass_on(self, said: Other) -> None:
        self._need("publish", said.id)
        if said.id is None:
            self._parts.rooms.casting.cast(self._stored, self.session.id, said.payload)
            return
        self._outbox.put(views.passed_on(said.payload), said.id)
        if self._place is Place.OUT:
            self._outbox.send()

    # --- its place in the room --------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """Join the room, or join it again for its content."""
        if self._place is Place.OUT:
            self._place = Place.ENTERING
        if self._restores:
            if not self._reads:
                self._reads = True
                self._parts.context.spawn(self._enter_with_chat)
        else:
            self._parts.rooms.join(self.session, "client", Join(self._room))

    async def _enter_with_chat(self) -> None:
        """Read the copies of the chat, then join: what is stored between the two stands in the log of the room.

        A socket that asks again meanwhile is answered once.
        """
        try:
            kept = await self._chats.read()
        except StoreUnavailable:
            self.room_left(self.session.id, self._room, "unavailable")
            self._parts.context.writes.flush()
            return
        finally:
            self._reads = False
        if not self.over:
            self._kept = kept
            self._parts.rooms.join(self.session, "client", Join(self._room, state=True, history=RECENT))

    def room_joined(self, session: str, answer: Answer) -> Iterator[None]:
        """Tell what the session has, if that was asked; then what has waited is stored."""
        kept, self._kept = self._kept, None
        if kept is not None and answer.records is not None:
            log = [shown.entry for shown in answer.history or ()]
            chats, uncopied = kept.with_log(answer.epoch, log)
            yield from self._answer(views.restored(answer.records, chats, session, answer.position))
            for entry in uncopied:
                self._chats.keep(answer.epoch, entry)
        elif self._restores and not answer.recovered:
            # The store has lost the room: it is another one, and the socket is told all of it.
            self._enter()
        self._place, self._is_slow = Place.IN, False
        self._outbox.go_on()
        yield

    def _answer(self, whole: bytes) -> Iterator[None]:
        """Queue an answer, in as many frames as the queue has room for one after the other."""
        if len(whole) <= PART_BYTES:
            self._say(whole)
            return
        self._held, last = [], range(0, len(whole), PART_BYTES)[-1]
        try:
            for start in range(0, len(whole), PART_BYTES):
                part = whole[start : start + PART_BYTES]
                self.conn.send_part(part, first=start == 0, last=start == last)
                self.writes.mark(self)
                if start < last:
                    yield
        except GeneratorExit:
            # The room was lost, or it takes too long: half an answer cannot be taken back.
            self._held = None
            self.close(CloseCode.REFUSED, "the answer was cut; come again")
            raise
        held, self._held = self._held, None
        for payload in held:
            self._say(payload)

    def room_left(self, _session: str, _room: str, reason: str) -> None:
        """The socket is not in its room, or gets nothing of it: it is told why, or comes in again."""
        if reason == "slow":
            self._is_slow = True
            return
        self._place = Place.OUT
        if reason == "forbidden":
            self.fail(CloseCode.FORBIDDEN, "forbidden", RIGHTS_TEXT)
        else:
            code = reason if reason in WHY_NOT else "unavailable"
            self._say(views.error(code, WHY_NOT[code]))
        self._outbox.drop(reason)

    def has_room(self) -> None:
        """What the room has for this socket waits for room; one that was too slow is told everything anew."""
        self._parts.rooms.has_room(self)
        if self._is_slow:
            self._is_slow = False
            self._restores += 1
            self._enter()

    # --- what the room says -----------------------------------------------------------------------------------------

    def room_messages(self, told: Told) -> bool:
        """Tell several at once, in frames that are the same for all sockets."""
        shown = told.shown
        whole = told.frames(_frames_by(self.conn.deflates_for_many))
        if whole and not self.conn.send_frames(whole, len(shown)):
            return False
        self._keep_chats(shown)
        self.writes.mark(self)
        return True

    def room_message(self, session: str, shown: Shown, *, own: bool = False) -> None:  # noqa: ARG002
        """Tell one; the sender of an edit is told nothing."""
        entry = shown.entry
        if entry.member != session or views.is_echoed(entry):
            payload = views.told(entry)
            if payload:
                self._say(payload)
        self._keep_chats([shown])

    def room_cast(self, _session: str, _room: str, payload: bytes) -> None:
        """Pass on what another socket has said, as it is."""
        self._say(payload)

    def _keep_chats(self, shown: Sequence[Shown]) -> None:
        """Copy the chat, if this is the first socket of its canvas here."""
        here = self._parts.rooms.hall.rooms.get(self._stored)
        if here is None:
            return
        entries = [one.entry for one in shown if views.is_echoed(one.entry)]
        if entries and _is_first(self, here.guests.values()):
            for entry in entries:
                self._chats.keep(here.epoch, entry)

    # --- what the node says ------------------------------------------------------------------------------------------

    def _say(self, payload: bytes) -> None:
        if self._held is None:
            self.conn.send_text(payload)
            self.writes.mark(self)
        elif len(self._held) < HELD_MAX:
            self._held.append(payload)
        else:
            self.conn.fail_slow_consumer("too much waits behind an answer")

    def _wrong(self, wrong: WrongError) -> None:
        self._say(views.error(wrong.code, wrong.text, wrong.id))
        self.writes.mark(self)

    def error(
        self,
        code: str,
        message: str,
        *,
        session: str | None = None,  # noqa: ARG002
        expected: int | UnsetType = UNSET,  # noqa: ARG002
        retry_after_ms: int | UnsetType = UNSET,
        seq: int | UnsetType = UNSET,  # noqa: ARG002
        stream: str | UnsetType = UNSET,  # noqa: ARG002
    ) -> None:
        """See `PartyLink`."""
        self._say(views.error(code, message, retry_after_ms=retry_after_ms if isinstance(retry_after_ms, int) else 0))

    def fail(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        """Say what was wrong, then close."""
        self.error(error, message, retry_after_ms=retry_after_ms)
        self.close(code, error)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close behind what is queued, with a code that the programs of this wire know."""
        self.write()
        if not self.conn.closing:
            self.conn.takes_late = code in GENTLE
        self.conn.close(close_code(code), reason)

    def go_away(self, reason: str, _deadline_ms: int, _ticket: str | None) -> None:
        """Close: the wire has no other word for it. A new connection finds everything at another node."""
        self.close(CloseCode.GOING_AWAY, reason)

    def end_session(self, _session: str, reason: str) -> None:
        """The session was ended: by an operator, over HTTP, or by its core server."""
        self._ended = True
        self._say(views.error("session_ended", reason))

    def clear(self) -> None:
        """The connection is over: what has arrived is stored, and the session ends."""
        self._outbox.finish()
        if not self._ended and not self.ending:
            self._ended = True
            self._parts.holdings.forget(self.session.id)
            self._parts.endings.with_connection(self.session)


@lru_cache(maxsize=16)
def _frames_by(deflater: Deflater | None) -> Callable[[Sequence[Shown]], bytes]:
    return partial(_frames_of, deflater=deflater)


def _frames_of(shown: Sequence[Shown], deflater: Deflater | None) -> bytes:
    """Return what sockets are told of several publications, as whole frames."""
    payloads = [views.told(one.entry) for one in shown]
    if deflater is not None:
        return b"".join([part for payload in payloads if payload for part in deflater.parts(payload, text=True)])
    return b"".join([text_header(len(payload)) + payload for payload in payloads if payload])


def _is_first(link: CanvasLink, guests: Iterable[Guest]) -> bool:
    """Tell whether `link` is the first socket of its room here that gets what is published."""
    return next((one.link for one in guests if one.state is State.LIVE and one.link.dialect == NAME), None) is link
