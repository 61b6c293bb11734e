"""A session as its worker's handler sees it: what it has been given, what it says, and how it is handed over."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, Protocol

import anyio
from anyio.abc import TaskGroup

from signald.sdk.errors import SessionGone
from signald.sdk.events import Gone, LifecycleEvent
from signald.sdk.front.api import Api
from signald.sdk.front.blobs import Blobs
from signald.sdk.front.conversation import Conversation, Kept
from signald.sdk.front.jobs import OnJob, SessionJobs, WorkerJob
from signald.sdk.front.streams import OutStream
from signald.sdk.front.waiting import Lot
from signald.sdk.handing import written_state
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.notices import Assigned
from signald.sdk.stream_fields import Of
from signald.sdk.streams_core import ROLL_UP_S, STREAMS_MAX, CancelRequested, FoundStream, StreamRefused
from signald.sdk.values import check_text, readable
from signald.sdk.worker_core import WorkerCore
from signald.wire.fields import REASON_MAX

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")


class OfSessions(Protocol):
    """What a session needs of its worker."""

    _core: WorkerCore
    _room: Lot
    _api: Api
    _on_job: OnJob
    _nursery: TaskGroup | None
    prepared: Any
    """What `setup` has returned."""

    @property
    def worker(self) -> str:
        """Its id."""


class WorkerSession(Conversation):
    """A session as its worker's handler sees it."""

    def __init__(self, worker: OfSessions, assigned: Assigned) -> None:
        super().__init__(assigned.core, worker._room, Blobs(worker._api, assigned.core.name), assigned.rooms)
        self._worker = worker
        self._scope = anyio.CancelScope()
        self._events: deque[LifecycleEvent] = deque()
        self._counted = Kept()
        self.session = assigned.core.name or ""
        """The session's id."""
        self._meta = assigned.meta
        self.subject = assigned.subject
        """The subject (`sub`) of the client's credential, as the node has verified it; None: it showed none."""
        self.open_streams = assigned.open_streams
        """The streams of an earlier worker that are open: go on in each, with `attempt` + 1 and all said anew, or end it."""
        self._settings = assigned.settings
        self._state = assigned.state
        self.attempt = assigned.attempt
        """How often the session has been handed out since a worker last acked something, this time included."""
        self.out_streams: dict[str, OutStream] = {}
        """The streams that are being said, by name."""
        self._cancels: dict[str, str] = {
            stream.stream: stream.reason for stream in assigned.open_streams if stream.cancelled
        }
        self._streams_made = 0
        self.leaving = anyio.Event()
        """Set when the worker leaves and the session is to go to another one: `hand_over` it at the next good moment."""
        self._kept: bytes | None = None
        self._jobs = SessionJobs(self, worker._on_job)
        self.chat_history = assigned.chat_history
        """The messages before this worker got the session: context, not messages to be answered.

        Reading the `data` of an entry raises `Unreadable` where the peer sent what cannot be read here.
        """

    def __repr__(self) -> str:
        return f"WorkerSession({self.session!r}, ended={self.ended!r})"

    @property
    def meta(self) -> Any:
        """The client's description of itself.

        Raises:
            Unreadable: it said what cannot be read here.
        """
        return readable(self._meta)

    @property
    def settings(self) -> Any:
        """What the core server says for this session, the same that the client is told; None for nothing.

        Raises:
            Unreadable: it cannot be read here.
        """
        return readable(self._settings)

    @property
    def state(self) -> Any:
        """What the worker before has left for this one; None for nothing.

        Raises:
            Unreadable: it cannot be read here.
        """
        return readable(self._state)

    @property
    def moving(self) -> bool:
        """True while the worker is on its way to another node: what gathers leaves at once."""
        return self._worker._core.is_moving

    def stream(
        self,
        stream: str | None = None,
        *,
        kind: str | None = None,
        attempt: int = 1,
        roll_up_s: float = ROLL_UP_S,
        go_on: bool = False,
    ) -> OutStream:
        """Return a text that grows, to be said in an `async with` block.

        Pieces leave at once, or with what gathers in `roll_up_s` (seconds). Without a name the stream gets one of its own. To say one of
        `open_streams` anew, give its name, and `attempt` one higher. With `go_on` the name is one that the next worker will give as well,
        such as that of the message that is answered. Then the session is handed over between two pieces when the worker leaves. Where an
        earlier worker has left the stream open, its text is `said`, and what is written comes behind it.

        Raises:
            ValueError: the name or the attempt is none that signald takes.
        """
        if stream is None and go_on:
            raise ValueError("a stream that another worker is to go on with has a name")
        found = self._found(stream) if go_on else None
        said = ""
        if found is not None:
            # Without the beginning of its text no worker knows where it is: it is said anew.
            whole = found.text is not None and not found.truncated
            attempt, kind = found.attempt if whole else found.attempt + 1, kind or found.kind
            said = found.text or "" if whole else ""
        if stream is None:
            self._streams_made += 1
            stream = f"{self._conversation.next_seq}-{self._streams_made}"
        Of(stream, attempt).check("")
        out = OutStream(self, stream, attempt, kind, roll_up_s, said, goes_on=go_on)
        if stream in self._cancels:
            out.reason = self._cancels[stream]
            out.cancelled.set()
        return out

    def _found(self, stream: str | None) -> FoundStream | None:
        return next((each for each in self.open_streams if each.stream == stream), None)

    @property
    def prepared(self) -> Any:
        """What `setup` of the worker has returned: a model that is loaded, a pool of connections."""
        return self._worker.prepared

    @property
    def jobs(self) -> dict[str, WorkerJob]:
        """The jobs that are being done for the session, by id."""
        return self._jobs.all()

    def job_ended(self, job: str, attempt: int, seq: int) -> None:
        """Note that message `seq` is the last one of an attempt of a job."""
        self._worker._core.job_ended(self._conversation, job, attempt, seq)

    def job_progress(self, job: str, attempt: int, value: Any) -> None:
        """Say how far an attempt of a job is; see `WorkerJob.progress`."""
        self._worker._core.job_progress(self._conversation, job, attempt, value)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` for as long as the worker runs."""
        nursery = self._worker._nursery
        assert nursery is not None, "a handler runs in it"
        nursery.start_soon(work)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def keep(self, state: Any) -> None:
        """Keep `state` for the worker that gets the session after this one, if it is handed over: any JSON of at most 32 KiB.

        The last one counts; None leaves nothing. The next worker finds it as `state`.

        Raises:
            ValueError: longer or deeper than signald takes, or not JSON.
        """
        self._kept = written_state(state, self._worker._core.bounds.json_depth_max - 1)

    async def hand_over(self, state: Any = None) -> NoReturn:
        """Give the session to another worker, when all that was said is stored; the handler is cancelled then.

        `state` is for that worker, as in `keep`; None leaves what was kept. Open streams stay open, unfinished jobs and the message that is
        being answered go along. When the worker stays, signald counts a failed hand-out. So a session that is passed on without end is set
        aside.

        Raises:
            SessionGone: the session has ended.
            ValueError: as `keep`; the session goes on.
        """
        if state is not None:
            self.keep(state)
        for out in list(self.out_streams.values()):
            await out.flush()
        await self.flush()
        if self.ended is not None:
            raise self._gone()
        core = self._worker._core
        if not core.leaving and not core.is_moving:
            log.warning(
                "session %s is handed over by its handler, and the worker stays: a failed hand-out", self.session
            )
        self.hand_over_now("handed over")
        await anyio.sleep_forever()
        raise AssertionError("the scope of the handler is cancelled")

    def hand_over_now(self, reason: str) -> None:
        """Give the session to another worker without a wait: what was said, and what has gathered of streams, is sent in front.

        For the worker itself, when the time to leave is over.
        """
        core = self._conversation
        if core.ended is not None:
            return
        for out in self.out_streams.values():
            if (text := out.gathered()) and core.room:
                with suppress(ValueError):  # a piece that signald does not take, which its writer has yet to hear
                    core.send(text, kind=out.fields["kind"], of=Of(out.stream, out.attempt, "text"))
        self._jobs.stop("handed over")
        self._worker._core.release(core, reason, anyio.current_time(), self._kept)
        self._scope.cancel(reason=f"the session was given to another worker: {reason}")

    async def _boundary(self) -> None:
        if self.leaving.is_set() and self.ended is None and not self.out_streams and not self._jobs.all():
            with suppress(SessionGone):  # it has ended meanwhile
                await self.hand_over()

    async def piece_said(self, out: OutStream) -> None:
        """A piece of a stream has been said: the time to hand the session over, if the next worker can go on in it."""
        others_wait = not self._jobs.all() and all(each.goes_on for each in self.out_streams.values())
        if self.leaving.is_set() and out.goes_on and others_wait:
            await self.hand_over()

    def idle(self) -> None:
        """A job has ended: the session may have nothing unfinished now."""
        self._lot.unpark_all()

    def leave(self) -> None:
        """Begin to hand the session over at the next good moment; for the worker itself."""
        self.leaving.set()
        self._lot.unpark_all()

    @property
    def ended(self) -> str | None:
        """Why the session is over for this worker, or None."""
        return self._conversation.ended

    def events(self) -> list[LifecycleEvent]:
        """Return and forget the events so far: receipts, realtime data, losses."""
        events = list(self._events)
        self._events.clear()
        return events

    def _take(self, event: LifecycleEvent | StreamRefused | CancelRequested | JobGiven | JobCancelled) -> None:
        match event:
            case JobGiven() | JobCancelled():
                self._jobs.take(event)
            case StreamRefused(stream, "stream_superseded") if stream in self._jobs.all():
                pass  # a piece of an earlier attempt; the one that is being done here goes on
            case CancelRequested(stream, reason):
                self._cancels[stream] = reason
                while len(self._cancels) > STREAMS_MAX:
                    del self._cancels[next(iter(self._cancels))]
                if (out := self.out_streams.get(stream)) is not None:
                    out.reason = reason
                    out.cancelled.set()
            case StreamRefused(stream, code):
                if (out := self.out_streams.get(stream)) is not None:
                    out.refused = code
                    out.cancelled.set()
                self._jobs.refused(stream)
            case _:
                if isinstance(event, Gone):
                    self._jobs.stop("session_ended")
                self._tell(event)

    def _tell(self, event: LifecycleEvent) -> None:
        for _ in range(self._counted.surplus(len(self._events), event)):
            self._events.popleft()
        self._events.append(event)

    def realtime(self, data: Any) -> bool:
        """Send something that is carried now or not at all; False when it was dropped here.

        Raises:
            ValueError: as `send`.
        """
        return self.ended is None and self._worker._core.realtime(data, self.session)

    async def bye(self, reason: str = "") -> None:
        """End the session, after everything sent was stored; return when it is over.

        Raises:
            ValueError: `reason` is longer than 512 characters, or half of a surrogate pair is in it.
        """
        check_text("reason", reason, REASON_MAX)
        self._conversation.bye = reason
        self._touched()
        while self._conversation.ended is None:
            await self._lot.park()

    def _member(self) -> str:
        return f"{self.session}/worker"

    def _touched(self) -> None:
        self._worker._core.touched(self._conversation)

    def _failure(self) -> Exception | None:
        return None  # a session that is taken away cancels its handler, so no caller is left


Handler = Callable[[WorkerSession], Awaitable[None]]
"""Serves one session; `open_worker` says what its end and its errors mean."""
