"""The worker's front."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Any, NoReturn

import anyio
from anyio.abc import TaskGroup

from signald.ids import Entropy, SystemEntropy
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.errors import SessionGone
from signald.sdk.events import Gone, LifecycleEvent
from signald.sdk.front.api import Api
from signald.sdk.front.blobs import Blobs
from signald.sdk.front.conversation import Conversation, Events, Kept
from signald.sdk.front.departure import DEFAULT_LEAVE, Departure, Leave
from signald.sdk.front.jobs import OnJob, SessionJobs, WorkerJob, kinds_of
from signald.sdk.front.party import Auth, FrontParty, Urls, log, running, url_list
from signald.sdk.front.streams import OutStream
from signald.sdk.handing import written_state
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.network import Dial, OpenStream
from signald.sdk.notices import Assigned, RoomElsewhere, SessionEvent, Taken, Terminate
from signald.sdk.party_records import DEFAULT_TIMING, Over, Timing
from signald.sdk.stream_fields import Of
from signald.sdk.streams_core import ROLL_UP_S, STREAMS_MAX, CancelRequested, FoundStream, StreamRefused
from signald.sdk.values import check_text, readable
from signald.sdk.worker_core import WorkerCore
from signald.wire.fields import REASON_MAX


class WorkerSession(Conversation):
    """A session as its worker's handler sees it."""

    def __init__(self, worker: "Worker", assigned: Assigned) -> None:
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


class Worker(FrontParty):
    """A registered worker; made by `open_worker`."""

    _core: WorkerCore

    def __init__(
        self,
        core: WorkerCore,
        handler: Handler,
        on_terminate: Callable[[str], Awaitable[None]] | None,
        on_job: OnJob,
        *,
        ssl_context: SSLContext | None,
        dial: Dial | None,
        open_stream: OpenStream | None = None,
    ) -> None:
        super().__init__(core, ssl_context=ssl_context, dial=dial)
        self._api = Api(core, ssl_context, open_stream)
        self._handler = handler
        self._on_job = on_job
        self._on_terminate = on_terminate
        self._sessions: dict[str, WorkerSession] = {}
        self._events = Events()
        self.departure = Departure()
        """How it leaves; see there."""
        self.prepared: Any = None
        """What `setup` has returned."""
        self._waiting: deque[Assigned | Terminate | Taken | SessionEvent] = deque()
        self._nursery: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"Worker(worker={self.worker!r}, sessions={len(self._sessions)}, connections={self.connections})"

    @property
    def worker(self) -> str:
        """The worker's id."""
        return self._core.worker_id or ""

    @property
    def api_token(self) -> str:
        """The newest API token, a secret; "" unless `api` asked for one. Read it for each request: it is replaced before it runs out."""
        return self._core.credentials.api_token or ""

    @property
    def connections(self) -> int:
        """How many connections were opened so far."""
        return self._core.opened_count

    @property
    def sessions(self) -> dict[str, WorkerSession]:
        """The sessions this worker has now, by id."""
        return dict(self._sessions)

    @property
    def events(self) -> Events:
        """The worker's own lifecycle events; bounded, the oldest are dropped."""
        return self._events

    def set_state(self, *, capacity: int | None = None, load: float | None = None) -> None:
        """Tell signald that there is more or less room than before."""
        self._core.set_state(capacity=capacity, load=load)

    async def drain(self, leave: Leave = DEFAULT_LEAVE, reason: str = "") -> None:
        """Hand all sessions to other workers, and leave: the deploy of the worker. Returns when it has left, within `leave.whole_s`.

        A second call makes it quicker, when its mode is; see `Leave`.

        Raises:
            ValueError: as `WorkerSession.bye`.
        """
        check_text("reason", reason, REASON_MAX)
        await self.departure.run(self, leave, reason)

    async def changed(self) -> None:
        """Wait until connections or sessions have come or gone."""
        await self._replanned.park()

    async def say_bye(self, reason: str) -> None:
        """Leave for good, and wait until signald has confirmed it. The caller bounds the wait."""
        self._core.bye(reason)
        await self._wait(lambda: self._core.over is not None)

    def finish(self, reason: str) -> None:
        """End the worker here, whatever signald has heard."""
        self._core.finish(Over(None, reason, orderly=True))

    @property
    def over(self) -> bool:
        """True when the worker has left, or was sent away."""
        return self._core.over is not None

    @property
    def connected(self) -> bool:
        """True while a connection serves it."""
        return self._core.current is not None

    @property
    def capacity(self) -> int:
        """How many sessions it takes at once, as it has told signald last."""
        return self._core.capacity

    def ask_for_successor(self) -> None:
        """Take no more sessions, and ask to be told when other workers have room for those there are."""
        self._core.set_state(leaving=True, successor=True)

    async def leave(self, reason: str = "") -> None:
        """Take no more sessions, wait until those there are have ended, and leave. The caller bounds the wait.

        When the wait is cancelled, and the block left, signald gives the remaining sessions to other workers.

        Raises:
            ValueError: as `WorkerSession.bye`.
        """
        check_text("reason", reason, REASON_MAX)
        self._core.set_state(leaving=True)
        await self._wait(lambda: not self._sessions or self._core.over is not None)
        if self._core.over is None:
            self._core.bye(reason)
            await self.wait()

    async def wait(self) -> None:
        """Wait until the worker has left or was terminated.

        Raises:
            SessionGone: signald does not want this worker any more.
        """
        await self._wait(lambda: self._core.over is not None)
        failure = self._core.failure()
        if failure is not None:
            raise failure

    # --- sessions --------------------------------------------------------------------------------------------------

    def _begin(self, nursery: TaskGroup) -> None:
        """Start what was assigned before there was a nursery for handlers."""
        self._nursery = nursery
        while self._waiting:
            self._start(self._waiting.popleft())

    def _start(self, notice: Assigned | Terminate | Taken | SessionEvent) -> None:
        if self._nursery is None:
            self._waiting.append(notice)
            return
        match notice:
            case Terminate():
                self._nursery.start_soon(self._terminate, notice)
            case Assigned():
                session = WorkerSession(self, notice)
                self._sessions[session.session] = session
                self._nursery.start_soon(self._handle, session)
            case Taken(name, reason):
                if name in self._sessions:
                    self._sessions[name]._jobs.stop("taken away")
                    self._sessions[name]._scope.cancel(reason=f"the session was taken away: {reason}")
            case SessionEvent(name, event):
                if name in self._sessions:
                    self._sessions[name]._take(event)

    def _drain(self) -> None:
        notices = self._core.notices
        while notices:
            match notices.popleft():
                case Assigned() | Terminate() | Taken() | SessionEvent() as notice:
                    self._start(notice)
                case RoomElsewhere(names):
                    self.departure.room_elsewhere(names)
                    self._replanned.unpark_all()
                case event:
                    self._events.put(event)

    async def _handle(self, session: WorkerSession) -> None:
        core = session._conversation
        try:
            with session._scope:
                try:
                    async with anyio.create_task_group() as nursery:
                        session._jobs.begin(nursery)
                        await self._handler(session)
                        if core.ended is None:
                            await session.bye("handler returned")
                        nursery.cancel_scope.cancel(reason="the session is over")
                except* SessionGone:
                    if core.ended is None:  # another one's, which the handler had no right to let out
                        log.exception("the handler of session %s failed", session.session)
                        self._core.release(core, "handler failed", anyio.current_time())
                except* Exception:  # noqa: BLE001
                    # The barrier: one session's handler never takes the others with it. Its message stays unacked, so
                    # the worker that gets the session next gets the message too.
                    log.exception("the handler of session %s failed", session.session)
                    self._core.release(core, "handler failed", anyio.current_time())
        finally:
            if self._sessions.get(session.session) is session:
                del self._sessions[session.session]
            self._replanned.unpark_all()

    async def _terminate(self, notice: Terminate) -> None:
        if self._on_terminate is not None:
            with anyio.move_on_after(notice.deadline_ms / 1000):
                await self._on_terminate(notice.reason)
        self._core.terminated(notice.request_id)
        with anyio.move_on_after(self._core.timing.answer_s):
            await self._wait(lambda: self._core.over is not None)
        self._core.finish(Over(None, notice.reason, orderly=True))


@asynccontextmanager
async def open_worker(
    urls: Urls,
    handler: Handler,
    *,
    instance_id: str,
    capacity: int = 1,
    labels: Mapping[str, str] | None = None,
    config: Any = None,
    auth: Auth = None,
    api: bool = False,
    on_job: OnJob = None,
    on_terminate: Callable[[str], Awaitable[None]] | None = None,
    prepared: Any = None,
    backoff: Backoff = DEFAULT_BACKOFF,
    timing: Timing = DEFAULT_TIMING,
    bounds: Bounds = DEFAULT_BOUNDS,
    ssl_context: SSLContext | None = None,
    entropy: Entropy | None = None,
    dial: Dial | None = None,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Worker]:
    """Register a worker and run `handler` once for every session it is given, up to `capacity` at a time.

    A handler that returns ends its session; one that raises gives it back, and its unfinished message goes to another
    worker. `on_job` does the jobs of the sessions: one handler for all kinds, or one for each kind. `api` asks for API tokens
    (`Worker.api_token`), which blobs need. `prepared` is what handlers find as `session.prepared`.

    Leaving the block cancels the handlers; signald then waits for the worker to come
    back, and reassigns.

    Raises:
        Refused: signald does not take this worker.
        ValueError: an option is what signald would refuse.
    """
    core = WorkerCore(
        url_list(urls),
        instance_id=instance_id,
        entropy=entropy or SystemEntropy(),
        capacity=capacity,
        labels=labels,
        config=config,
        jobs=kinds_of(on_job),
        backoff=backoff,
        timing=timing,
        bounds=bounds,
        auth=auth,
        api=api,
    )
    worker = Worker(core, handler, on_terminate, on_job, ssl_context=ssl_context, dial=dial, open_stream=open_stream)
    worker.prepared = prepared
    async with running(worker, lambda: core.established) as nursery:
        worker._begin(nursery)
        yield worker
