"""The sessions of a worker, in its core: what comes and is written for each, and how it is given back. No I/O."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from signald.ids import Entropy
from signald.sdk import worker_messages
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.core import NEVER, SessionCore
from signald.sdk.errors import LinkBroken
from signald.sdk.handing import Handed
from signald.sdk.link import Link
from signald.sdk.notices import Notice, SessionEvent, Taken
from signald.sdk.party_core import PartyCore, Writer
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.rooms_core import OfRooms
from signald.sdk.seats import Seat, SeatState
from signald.sdk.values import check_text
from signald.sdk.writing import Batch
from signald.wire.fields import REASON_MAX
from signald.wire.messages import Ack, Job, JobCancel, Message

_REFUSALS_MAX = 1000
"""Refusals that wait for a connection. A refusal that is not said costs a moment: the node finds the session missing at the resume."""


class WorkerSeats(PartyCore):
    """A worker with seats; `WorkerCore` is the whole of it."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        entropy: Entropy,
        backoff: Backoff = DEFAULT_BACKOFF,
        timing: Timing = DEFAULT_TIMING,
        bounds: Bounds = DEFAULT_BOUNDS,
        auth: str | Callable[[], str] | None = None,
        api: bool = False,
    ) -> None:
        super().__init__(urls, entropy=entropy, backoff=backoff, timing=timing, bounds=bounds, auth=auth, api=api)
        self.leaving = False
        """It takes no more sessions."""
        self.sessions: dict[str, Seat] = {}
        """The sessions this worker has, by id; at most its capacity."""
        self.notices: deque[Notice] = deque()
        """Drained by the driver after every call: bounded by what one frame can say."""
        self._to_write: dict[str, Seat] = {}
        """A queue: the sessions with something to write, longest first, so that none is starved."""
        self._refusals: dict[str, str] = {}
        """Sessions → reasons, to be said after the next promotion, because no connection could say them. At most _REFUSALS_MAX."""
        self._handed: dict[str, Handed] = {}
        """Sessions that were handed over since the worker leaves, by id: those that it had then, at most its capacity."""

    @abstractmethod
    def _say_state(self, link: Link | None, load: float | None = None) -> None:
        """Tell signald how much room there is, and whether the worker leaves."""

    def _seat_of(self, core: SessionCore) -> Seat | None:
        """Return the seat of a session that is still this worker's."""
        seat = self.sessions.get(core.name or "")
        return seat if seat is not None and seat.core is core else None

    def _is_of_earlier(self, link: Link, session: str | None) -> bool:
        seat = self.sessions.get(session or "")
        return seat is not None and any(before is link for before in seat.left)

    # --- receiving -------------------------------------------------------------------------------------------------

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

    def _of_a_room(self, link: Link, message: OfRooms, binary: bytes | None, size: int, now: float) -> None:
        seat = self.sessions.get(message.session or "")
        if seat is not None and link is self.current:
            seat.rooms.receive(message, binary, size, now)
            self.touched(seat.core)

    def _of_a_job(self, seat: Seat, message: Job | JobCancel, binary: bytes | None) -> None:
        if isinstance(message, JobCancel):
            self.notices.append(SessionEvent(seat.name, seat.jobs.cancelled(message)))
            return
        seat.jobs.forget(seat.core)
        given = seat.jobs.given(message, binary)
        if given is not None:
            self.notices.append(SessionEvent(seat.name, given))

    # --- what the application does ---------------------------------------------------------------------------------

    def touched(self, core: SessionCore) -> None:
        """There may be something to write for this session."""
        seat = self._seat_of(core)
        if seat is not None:
            self._to_write[seat.name] = seat
            self.changed()

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

    # --- what is said of a session ---------------------------------------------------------------------------------

    def _accept(self, link: Link, seat: Seat) -> None:
        seat.state = SeatState.ACCEPTED
        self._say(link, worker_messages.session_accept(seat.name, seat.epoch))

    def _refuse(self, link: Link, name: str, reason: str, epoch: int | None = None, state: bytes | None = None) -> None:
        self._say(link, worker_messages.session_refuse(name, reason, epoch, state))

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

    # --- ends ------------------------------------------------------------------------------------------------------

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
