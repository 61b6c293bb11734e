"""Jobs at the nodes of their parties: handed to the worker that is here, told to the client that is here, ended in time.

The store decides, and this carries it out. `Head.jobs` grows with each change of a job; whatever reads the session from the store
finds that, so a lost wake-up costs time and never a job.

    worker here   `TakeJobs` hands out what the worker does not have, behind its acceptance and before its messages, and says which jobs
                  it works on without need
    client here   `ListChangedJobs` says what has changed since the client was last told; a change is told behind every message that was
                  stored before it

One task watches the time of the jobs of all sessions here (`run`). A job of a session without a party anywhere ends when it is
next looked at.
"""

from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Any

import attrs
import structlog
import trio

from signald.core.jobs import Job
from signald.core.pairing import Pairing
from signald.ids import job_id, job_of
from signald.service.attached import LiveSession, PartyLink
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.events import JobGiven, JobOver, JobTold, PartyReleased, SessionChanged, SessionGone
from signald.service.seats import Seat, SeatState
from signald.service.worker_like import GivenJob, WorkerLike
from signald.store.base import Behind, Fenced, Result
from signald.store.session.jobs.ops import JobList, JobProgress, JobsTaken, ListChangedJobs, SweepJobs, Swept, TakeJobs

log = structlog.get_logger(__name__)

LOT = 8
"""Jobs handed out in one step: with the longest inputs they fill a send queue that has room by a fraction of its bound."""

CHANGED_MAX = 1100
"""Changes read in one step: all jobs that a session can have, unfinished and kept."""

PROGRESS_BYTES_MAX = 4096
"""Of what a worker says about its progress: it is kept with the job and told to the client each time."""

SAY_AGAIN_S = 0.1
"""How often a change is tried that the client is to be told behind a message which it has not been sent yet."""


@attrs.define(eq=False)
class _AtWorker:
    """What the worker of a session here has of its jobs."""

    link: WorkerLike
    known: dict[int, int] = attrs.field(factory=dict)
    """Number of a job that it has → the attempt it was given here; 0: it had it before."""
    cancelled: set[int] = attrs.field(factory=set)
    """Those that it was told to end."""
    taken: int = 0
    """`Head.jobs` when it was last asked what to hand out."""
    busy: bool = False
    again: bool = False
    more: bool = False
    """There was no room for all that is to be handed out."""
    progress: dict[int, bytes] = attrs.field(factory=dict)
    """The latest that it has said and the store has not been told."""
    telling: bool = False


@attrs.define(eq=False)
class _AtClient:
    """What the client of a session here knows of its jobs."""

    link: PartyLink
    told: int = 0
    """`Head.jobs` up to which changes were read for it."""
    busy: bool = False
    again: bool = False
    """Something has changed since they were asked for."""
    waiting: dict[int, Job] = attrs.field(factory=dict)
    """Changes that it is to be told, by the number of the job, in their order."""
    unhanded: set[int] = attrs.field(factory=set)
    """Unfinished jobs that no worker has been given, as of `told`."""

    def read(self, job: Job) -> None:
        """Keep what the store says of a job."""
        if job.over or job.handed:
            self.unhanded.discard(job.n)
        else:
            self.unhanded.add(job.n)


def _life_s(job: Job) -> float:
    return max(0, job.ended_ms - job.created_ms) / 1000 if job.over else 0.0


class JobDesk:
    """See the module. One for each node."""

    def __init__(self, context: Context, attachments: Attachments) -> None:
        self._context = context
        self._attachments = attachments
        self._workers: dict[str, _AtWorker] = {}
        self._clients: dict[str, _AtClient] = {}
        self._due: dict[str, float] = {}
        """Session → when it is to be looked at (trio time)."""
        self._heap: list[tuple[float, str]] = []
        self._news = trio.Event()
        context.events.subscribe(SessionChanged, self._changed)
        context.events.subscribe(JobOver, self._over)
        context.events.subscribe(PartyReleased, self._released)
        context.events.subscribe(SessionGone, lambda event: self._forget(event.session))

    def _changed(self, event: SessionChanged) -> None:
        session = self._attachments.sessions.get(event.session)
        if session is not None and session.jobs:
            self.look(session)

    def _released(self, event: PartyReleased) -> None:
        kept: dict[str, Any] = self._clients if event.party == "client" else self._workers
        session, at = self._attachments.sessions.get(event.session), kept.get(event.session)
        if session is not None and session.pairing is Pairing.ENDED:
            return  # the worker is told of its jobs with the end of the session; see `SessionGone`
        if at is not None and (session is None or session.side(event.party).link is not at.link):
            del kept[event.session]

    def _over(self, event: JobOver) -> None:
        # The client here is told; the store has woken the node of one elsewhere.
        session = self._attachments.sessions.get(event.session)
        if session is not None:
            self._tell(session, changed=True)

    def changed(self, name: str, job: Job) -> None:
        """An operation of this node has changed `job` of the session `name`: the store wakes other nodes only."""
        if job.over:
            self._context.untold.note(name)
        session = self._attachments.sessions.get(name)
        if session is not None and job.changed > session.jobs:
            session.jobs = job.changed
            self.look(session)

    def look(self, session: LiveSession) -> None:
        """Hand out and tell what is to be handed out and told of the jobs of `session`."""
        self._serve(session)
        self._tell(session)

    def running(self) -> int:
        """Return how many jobs the workers here have."""
        return sum([len(at.known) for at in self._workers.values() if not at.link.over])

    def waiting(self) -> int:
        """Return how many unfinished jobs of the sessions whose client is here were given to no worker yet."""
        return sum([len(at.unhanded) for at in self._clients.values()])

    # --- at the worker ----------------------------------------------------------------------------------------------

    def accepted(self, seat: Seat) -> None:
        """A worker has taken a session, here or by its return: it gets the jobs before the messages."""
        if seat.session.jobs:
            seat.jobs_first = True
            self._serve(seat.session)

    def returned(self, link: WorkerLike, session: LiveSession, names: list[str]) -> None:
        """A worker that has come back says which jobs of a session it has."""
        at = self._workers[session.id] = _AtWorker(link)
        at.known = {n: 0 for name in names if (n := job_of(session.id, name))}

    def has_room(self, link: WorkerLike) -> None:
        """The send queue of `link` has room again."""
        for session in link.attached:
            at = self._workers.get(session.id)
            if at is not None and at.more:
                self._serve(session)

    def known(self, session: str, link: WorkerLike) -> list[str]:
        """Return the ids of the jobs that the worker of `link` has of a session."""
        at = self._workers.get(session)
        return [job_id(session, n) for n in at.known] if at is not None and at.link is link else []

    def said_last(self, session: LiveSession, n: int) -> None:
        """The worker has ended a job by its last piece: it does not have it any more."""
        at = self._workers.get(session.id)
        if at is not None:
            at.known.pop(n, None)
            at.cancelled.discard(n)

    def _seat(self, session: LiveSession) -> tuple[WorkerLike, Seat] | None:
        link = session.worker.link
        worker = self._attachments.workers.get(link.owner) if link is not None else None
        seat = worker.seats.get(session.id) if worker is not None and worker is link else None
        if worker is None or seat is None or seat.state is not SeatState.ACCEPTED:
            return None
        return worker, seat

    def _serve(self, session: LiveSession) -> None:
        found = self._seat(session)
        if found is None:
            return
        worker, seat = found
        at = self._workers.get(session.id)
        if at is None or at.link is not worker:
            at = self._workers[session.id] = _AtWorker(worker)
        if at.busy:
            at.again = True
        elif at.taken >= session.jobs and not at.more:
            self._let_messages(session, seat)
        elif not worker.conn.room:
            at.more = True
        else:
            at.busy, at.again = True, False
            context = self._context
            known = tuple(at.known)
            take = TakeJobs(session.id, context.node, session.worker.epoch, worker.kinds, known, LOT, context.now_ms())
            context.committer.submit(take, partial(self._taken, session, worker, at))

    def _let_messages(self, session: LiveSession, seat: Seat) -> None:
        if seat.jobs_first:
            seat.jobs_first = False
            self._attachments.relay.deliver(session, "worker")

    def _taken(self, session: LiveSession, worker: WorkerLike, at: _AtWorker, result: Result) -> None:
        at.busy = False
        found = self._seat(session)
        if found is None or found[0] is not worker or self._workers.get(session.id) is not at:
            return
        _, seat = found
        if not isinstance(result, JobsTaken):
            self._let_messages(session, seat)
            if isinstance(result, Fenced) and result.epoch > session.worker.epoch:
                self._attachments.relay.look(session)
            elif isinstance(result, Fenced | Behind):
                self._attachments.behind(session)
            else:
                self._attachments.missing(session)
            return
        at.taken, at.more = result.head_jobs, result.more
        if result.head_jobs > session.jobs:
            self._context.untold.note(session.id)  # time may have ended one of them in this step
        session.jobs = max(session.jobs, result.head_jobs)
        for job, data in result.given:
            at.known[job.n] = job.attempt
            if data is not None:
                self._give(session, worker, job, data)
        for job in result.cancels:
            self._cancel(session, worker, at, job)
        self._schedule(session.id, result.due_ms)
        if at.more or at.again:
            self._serve(session)
        if not at.more:
            self._let_messages(session, seat)
        self._tell(session)

    def _give(self, session: LiveSession, worker: WorkerLike, job: Job, data: bytes) -> None:
        left_ms = max(0, job.deadline_ms - self._context.now_ms()) if job.deadline_ms else None
        name = job_id(session.id, job.n)
        worker.give_job(GivenJob(session.id, name, job.kind, data, job.content_type, job.attempt, left_ms, job.trace))
        self._context.events.emit(JobGiven(session.id, name, job.kind, job.attempt, worker.worker))

    def _cancel(self, session: LiveSession, worker: WorkerLike, at: _AtWorker, job: Job) -> None:
        if job.n not in at.cancelled:
            worker.cancel_job(session.id, job_id(session.id, job.n), job.cancel_reason)
        at.cancelled.add(job.n)
        if job.over:
            at.known.pop(job.n, None)
            at.cancelled.discard(job.n)

    def progress(self, session: LiveSession, link: WorkerLike, name: str, said: bytes) -> None:
        """A worker says how far it is with a job. One at a time of a session is on its way to the store: the last one counts."""
        at, n = self._workers.get(session.id), job_of(session.id, name)
        if at is None or at.link is not link or n not in at.known:
            return  # it has ended meanwhile
        at.progress.pop(n, None)
        at.progress[n] = said
        self._store_progress(session, at)

    def _store_progress(self, session: LiveSession, at: _AtWorker) -> None:
        if at.telling or not at.progress or session.worker.link is not at.link:
            return
        at.telling = True
        n = next(iter(at.progress))
        context = self._context
        said = JobProgress(session.id, n, context.node, session.worker.epoch, at.progress.pop(n), context.now_ms())
        context.committer.submit(said, partial(self._progressed, session, at))

    def _progressed(self, session: LiveSession, at: _AtWorker, _result: Result) -> None:
        at.telling = False
        self._store_progress(session, at)
        if session.client.link is not None:
            self._attachments.relay.look(session)  # a client elsewhere was woken by the store

    # --- at the client ----------------------------------------------------------------------------------------------

    def restored(self, session: LiveSession, link: PartyLink, told: int, jobs: Sequence[Job]) -> None:
        """A client has come back, and was told of its `jobs`, as they were when `Head.jobs` was `told` or later."""
        at = self._clients[session.id] = _AtClient(link, max([told, *[job.changed for job in jobs]]))
        for job in jobs:
            at.read(job)

    def _tell(self, session: LiveSession, *, changed: bool = False) -> None:
        """Tell the client here what is new. `changed`: something is, although `Head.jobs` is not known to have grown."""
        link = session.client.link
        if link is None:
            return
        at = self._clients.get(session.id)
        if at is None or at.link is not link:
            at = self._clients[session.id] = _AtClient(link)
        self._say(session, at)
        at.again |= changed and at.busy
        if (changed or session.jobs > at.told) and not at.busy:
            at.busy = True
            listed = ListChangedJobs(session.id, at.told, 0, CHANGED_MAX)
            self._context.committer.submit(listed, partial(self._listed, session, at, session.jobs))

    def _listed(self, session: LiveSession, at: _AtClient, asked: int, result: Result) -> None:
        at.busy = False
        if self._clients.get(session.id) is not at or session.client.link is not at.link:
            return
        if not isinstance(result, JobList):
            return  # the session has ended, or is given back
        for job in sorted(result.jobs, key=lambda job: job.changed):
            at.read(job)
            at.waiting.pop(job.n, None)
            at.waiting[job.n] = job
        at.told = max([at.told, asked, *[job.changed for job in result.jobs]])
        session.jobs = max(session.jobs, at.told)
        self._schedule(session.id, min([job.due_ms for job in result.jobs if job.due_ms], default=0))
        again, at.again = at.again, False
        # The worker here as well: `changed` of the operation that did it comes later, and finds nothing new.
        self._serve(session)
        self._tell(session, changed=again)

    def _say(self, session: LiveSession, at: _AtClient) -> None:
        """Tell the client what stands behind nothing that it has yet to be sent."""
        while at.waiting:
            n, job = next(iter(at.waiting.items()))
            if job.behind > session.client.sent:
                self._plan(session.id, trio.current_time() + SAY_AGAIN_S)
                return
            del at.waiting[n]
            name = job_id(session.id, n)
            at.link.job_changed(name, job)
            self._context.events.emit(JobTold(session.id, name, job.state, job.attempt, _life_s(job)))

    # --- time -------------------------------------------------------------------------------------------------------

    def _schedule(self, session: str, due_ms: int) -> None:
        if due_ms:
            self._plan(session, trio.current_time() + max(0, due_ms - self._context.now_ms()) / 1000)

    def _plan(self, session: str, at: float) -> None:
        if at < self._due.get(session, inf):
            self._due[session] = at
            heappush(self._heap, (at, session))
            if self._heap[0][1] == session:
                self._news.set()

    async def run(self) -> None:
        """Look at the sessions whose time has come, until cancelled."""
        while True:
            self._news = trio.Event()
            with trio.move_on_at(self._heap[0][0] if self._heap else inf):
                await self._news.wait()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                at, name = heappop(self._heap)
                if self._due.get(name) == at:
                    del self._due[name]
                    self._look_at_time(name)
            self._context.writes.flush()

    def _look_at_time(self, name: str) -> None:
        session = self._attachments.sessions.get(name)
        if session is None:
            return
        at = self._clients.get(name)
        if at is not None and at.link is session.client.link and at.waiting:
            self._say(session, at)
        sweep = SweepJobs(name, self._context.node, self._context.now_ms())
        self._context.committer.submit(sweep, partial(self._swept, session))

    def _swept(self, session: LiveSession, result: Result) -> None:
        if isinstance(result, Swept):
            self._schedule(session.id, result.due_ms)
            self._attachments.relay.look(session)

    def _forget(self, session: str) -> None:
        for kept in (self._workers, self._clients, self._due):
            kept.pop(session, None)
