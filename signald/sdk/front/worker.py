"""The worker's front."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import anyio
from anyio.abc import TaskGroup

from signald.ids import Entropy, SystemEntropy
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.errors import SessionGone
from signald.sdk.front.api import Api
from signald.sdk.front.conversation import Events
from signald.sdk.front.departure import DEFAULT_LEAVE, Departure, Leave
from signald.sdk.front.jobs import OnJob, kinds_of
from signald.sdk.front.party import Auth, FrontParty, Urls, log, running, url_list
from signald.sdk.front.worker_session import Handler, WorkerSession
from signald.sdk.network import Dial, OpenStream
from signald.sdk.notices import Assigned, RoomElsewhere, SessionEvent, Taken, Terminate
from signald.sdk.party_records import DEFAULT_TIMING, Over, Timing
from signald.sdk.values import check_text
from signald.sdk.worker_core import WorkerCore
from signald.wire.fields import REASON_MAX


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
