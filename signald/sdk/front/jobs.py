"""The jobs of a session at its worker: each attempt runs its handler once, in a task of the session."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from signald.sdk.errors import SessionGone, StreamOver
from signald.sdk.front.streams import OutStream
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.streams_core import ROLL_UP_S
from signald.sdk.values import check_text, readable
from signald.wire.fields import KIND_MAX, REASON_MAX

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

EVERY_KIND = "*"


class OfJobs(Protocol):
    """What a job needs of the session in which it is done."""

    session: str

    @property
    def out_streams(self) -> dict[str, OutStream]:
        """The streams that are being said, by name."""

    @property
    def ended(self) -> str | None:
        """Why the session is over, or None."""

    @property
    def moving(self) -> bool:
        """True while the worker is on its way to another node."""

    @property
    def send(self) -> Callable[..., Awaitable[int]]:
        """Sends a message."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` for as long as the worker runs."""

    def job_ended(self, job: str, attempt: int, seq: int) -> None:
        """Note the last message of an attempt."""

    def job_progress(self, job: str, attempt: int, value: Any) -> None:
        """Say how far an attempt is."""

    def idle(self) -> None:
        """A job has ended: the session may have nothing unfinished now."""


class WorkerJob:
    """An attempt of a job, as its handler sees it.

    A handler that returns ends the job with what it returns; one that raises fails it. `result`, `fail` and leaving the block of `stream`
    end it too, and the first end counts.
    """

    def __init__(self, session: OfJobs, given: JobGiven) -> None:
        self._session = session
        self._scope = anyio.CancelScope()
        self._data = given.data
        self._over = False
        self.id = given.job
        self.kind = given.kind
        """What is to be done, by the word of the client."""
        self.attempt = given.attempt
        """How often the job has been given to a worker, this time included: what an earlier attempt has done may have to be found."""
        self.content_type = given.content_type
        """Of `data` that is bytes; None for JSON."""
        self.deadline_s = None if given.deadline_ms is None else given.deadline_ms / 1000
        """How many seconds the job had left when it was given; None: it has no deadline."""
        self.trace = given.trace
        """The W3C traceparent of the request."""
        self.cancelled = anyio.Event()
        """Set when the client has asked for the end of the job: return, or raise, within ten seconds (`jobs.cancel_timeout_s`)."""
        self.reason = ""
        """Why it is without need: `requested`; in a handler that is being cancelled `deadline`, `session_ended` and the like."""

    def __repr__(self) -> str:
        return f"WorkerJob({self.id!r}, {self.kind!r}, attempt={self.attempt})"

    @property
    def data(self) -> Any:
        """The input: a decoded JSON value, or bytes.

        Raises:
            Unreadable: it cannot be read here.
        """
        return readable(self._data)

    @property
    def session(self) -> OfJobs:
        """The session of the client that wants it."""
        return self._session

    @property
    def over(self) -> bool:
        """True when the end has been said, or signald takes nothing more of this attempt."""
        return self._over

    async def progress(self, value: Any) -> None:
        """Say how far it is: any JSON of at most 4 KiB. The last word is kept with the job, and shown to the client.

        Raises:
            ValueError: longer or deeper than signald takes, or not JSON.
        """
        self._session.job_progress(self.id, self.attempt, value)
        await anyio.lowlevel.checkpoint()

    def stream(self, *, fold: str = "text", kind: str | None = None, roll_up_s: float = ROLL_UP_S) -> OutStream:
        """Return the result as a text that grows, to be said in an `async with` block; leaving it ends the job.

        Raises:
            ValueError: a `fold` that is not `text`.
        """
        if fold != "text":
            raise ValueError("`fold` is `text`")
        out = OutStream(self, self.id, self.attempt, kind, roll_up_s)
        if self.cancelled.is_set():
            out.reason = self.reason
            out.cancelled.set()
        return out

    async def part(self, data: Any) -> None:
        """Say a part of the result: any JSON, or bytes. The client gets it as it comes; without a `result` the last part is the result.

        Raises:
            SessionGone: the session has ended.
            StreamOver: the job has.
            ValueError: as `send` of a session.
        """
        self._check()
        await self.send(data, stream=self.id, attempt=self.attempt)

    async def result(self, value: Any, *, content_type: str | None = None) -> None:
        """End the job with its result: any JSON, or bytes with their `content_type`.

        Raises:
            SessionGone: the session has ended.
            StreamOver: the job has.
            ValueError: as `send` of a session; the job goes on.
        """
        self._check()
        await self.send(
            value, stream=self.id, attempt=self.attempt, end=True, outcome="complete", content_type=content_type
        )

    async def fail(self, code: str, message: str = "") -> None:
        """End the job as failed. The client is shown both texts.

        Raises:
            SessionGone: the session has ended.
            StreamOver: the job has.
            ValueError: a code above 64 characters, or a message above 512.
        """
        self._check()
        check_text("code", code, KIND_MAX, 1)
        check_text("message", message, REASON_MAX)
        error = {"code": code, "message": message}
        await self.send(None, stream=self.id, attempt=self.attempt, end=True, outcome="failed", error=error)

    def _check(self) -> None:
        if self._over:
            raise StreamOver("stream_over")

    # --- what a stream needs -----------------------------------------------------------------------------------------

    @property
    def out_streams(self) -> dict[str, OutStream]:
        """The streams of the session that are being said."""
        return self._session.out_streams

    @property
    def ended(self) -> str | None:
        """Why the session is over, or None."""
        return self._session.ended

    @property
    def moving(self) -> bool:
        """True while the worker is on its way to another node."""
        return self._session.moving

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` for as long as the worker runs."""
        self._session.spawn(work)

    async def piece_said(self, out: OutStream) -> None:
        """A job is not handed on in the middle: the next worker does it from its beginning."""

    async def send(self, data: Any, **fields: Any) -> int:
        """Send a message of the job, and note whether it is the last one."""
        seq = await self._session.send(data, **fields)
        if fields.get("end"):
            self._over = True
            self._session.job_ended(self.id, self.attempt, seq)
        return seq

    # --- at work -----------------------------------------------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """The client has asked for the end; its handler is to see to it."""
        self.reason = reason
        self.cancelled.set()
        if (out := self.out_streams.get(self.id)) is not None:
            out.reason = reason
            out.cancelled.set()

    def stop(self, reason: str) -> None:
        """Nothing of this attempt counts any more: end its handler."""
        self._over = True
        self.reason = self.reason or reason
        self._scope.cancel(reason=f"the attempt of a job is over: {reason}")

    async def run(self, handler: "JobHandler") -> None:
        """Run the handler, and end the job with what comes of it."""
        with self._scope:
            try:
                value = await handler(self)
                if not self._over:
                    await self._finish(value)
            except Exception as error:
                # The barrier: a job never takes its session with it, nor other jobs.
                if (self._over or self.ended is not None) and isinstance(error, SessionGone | StreamOver):
                    return
                log.exception("the handler of job %s failed", self.id)
                await self._give_up("handler_failed", "the worker could not do it")

    async def _finish(self, value: Any) -> None:
        if value is None and self.cancelled.is_set():
            await self.send(None, stream=self.id, attempt=self.attempt, end=True, outcome="cancelled")
            return
        try:
            await self.result(value)
        except ValueError:
            log.exception("the result of job %s cannot be sent", self.id)
            await self._give_up("bad_result", "the worker's result cannot be sent")

    async def _give_up(self, code: str, message: str) -> None:
        if not self._over and self.ended is None:
            try:
                await self.fail(code, message)
            except SessionGone:
                return  # with the session the job has ended as well


JobHandler = Callable[[WorkerJob], Awaitable[Any]]
"""Does one attempt of a job, and returns its result."""

OnJob = JobHandler | Mapping[str, JobHandler] | None
"""A handler for each kind of job (`*`: of every other), or one for all kinds."""


def kinds_of(on_job: OnJob) -> list[str]:
    """Return the kinds of jobs for which there is a handler."""
    if on_job is None:
        return []
    return list(on_job) if isinstance(on_job, Mapping) else [EVERY_KIND]


class SessionJobs:
    """The jobs of one session that are being done."""

    def __init__(self, session: OfJobs, on_job: OnJob) -> None:
        self._session = session
        self._on_job = on_job
        self._jobs: dict[str, WorkerJob] = {}
        self._waiting: deque[WorkerJob] = deque()
        """Until the session has its nursery; as many as its core takes."""
        self._nursery: TaskGroup | None = None

    def all(self) -> dict[str, WorkerJob]:
        """Return those that are being done, by id."""
        return dict(self._jobs)

    def begin(self, nursery: TaskGroup) -> None:
        """Do jobs in `nursery` from now on."""
        self._nursery = nursery
        while self._waiting:
            nursery.start_soon(self._run, self._waiting.popleft())

    def take(self, event: JobGiven | JobCancelled) -> None:
        """Begin an attempt, or tell its handler that it works without need."""
        known = self._jobs.get(event.job)
        if isinstance(event, JobGiven):
            if known is not None:
                known.stop("superseded")
            job = self._jobs[event.job] = WorkerJob(self._session, event)
            if self._nursery is None:
                self._waiting.append(job)
            else:
                self._nursery.start_soon(self._run, job)
        elif known is not None and event.reason == "requested":
            known.cancel(event.reason)
        elif known is not None:
            known.stop(event.reason)

    def refused(self, job: str) -> None:
        """The job has ended: signald has refused a piece of it."""
        if (known := self._jobs.get(job)) is not None:
            known.stop("stream_over")

    def stop(self, reason: str) -> None:
        """The session is over: nothing of its jobs counts any more."""
        for job in self.all().values():
            job.stop(reason)

    async def _run(self, job: WorkerJob) -> None:
        try:
            if (handler := self._handler(job.kind)) is not None:
                await job.run(handler)
            else:
                await job.fail("kind_not_taken", "the worker does not take this kind of job")
        finally:
            if self._jobs.get(job.id) is job:
                del self._jobs[job.id]
            self._session.idle()

    def _handler(self, kind: str) -> JobHandler | None:
        if isinstance(self._on_job, Mapping):
            return self._on_job.get(kind) or self._on_job.get(EVERY_KIND)
        return self._on_job
