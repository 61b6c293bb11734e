"""The jobs of one session during one step of the store, and what the steps on the session itself do to them.

The Lua twin is jobs.lua. A session without jobs costs such a step nothing: `Head.jobs` is 0 then.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from signald.core.callers import Access
from signald.core.jobs import OF_OUTCOME, RESULT_TOO_BIG, WORKER_LOST, Job, JobEvent
from signald.core.log import Entry
from signald.core.streams import Mark, Verdict, judge
from signald.store.rows import Rows, Wakes
from signald.store.session.events.keeping import tell_job
from signald.store.session.jobs.ops import DUE_MAX, KEPT_BYTES_MAX, KEPT_MAX, PIECE_BYTES
from signald.store.session.jobs.records import Jobs
from signald.store.session.ops import OVER_MS
from signald.store.session.records import Record
from signald.store.session.streams.keeping import close_of_job


class SessionJobs:
    """See the module. `record` is None after the session's end."""

    def __init__(self, record: Record | None, jobs: Jobs, rows: Rows, now_ms: int) -> None:
        self.record = record
        self.told = record
        """What tells of an end: the record, also in the step that ends the session."""
        self.jobs = jobs
        self.rows = rows
        self.now_ms = now_ms
        self.behind: int | None = None
        """The seq behind which a change is told; None: `down_last`."""
        self._dirty = False
        """Something is to be saved."""
        self._shown = False
        """Something has changed that a party may see."""
        jobs.seen_ms = max(jobs.seen_ms, now_ms)

    # --- one job ----------------------------------------------------------------------------------------------------

    def job(self, n: int) -> Job | None:
        """Return a job; None when it is not kept, or damaged."""
        return self.rows.job(self.jobs.session, n)

    def put(self, job: Job, *, shown: bool = True) -> Job:
        """Keep a job that has changed; `shown`: a party may see the change."""
        self._dirty = True
        if shown and self.record is not None:
            self.record.jobs += 1
            self._shown = True
            behind = self.record.down.last if self.behind is None else self.behind
            job = replace(job, changed=self.record.jobs, behind=behind)
        self.rows.save_job(self.jobs.session, job)
        return job

    def end(self, job: Job, event: JobEvent, error: bytes = b"") -> Job:
        """End a job; of those that have ended, the first ones give way."""
        jobs = self.jobs
        ended = self.put(job.end(event, self.now_ms, jobs.next_place, error))
        self.rows.drop_input(jobs.session, job.n)
        if self.record is not None:
            close_of_job(self.record, job.n, self.now_ms, self.rows)
        if self.told is not None:
            tell_job(self.told, ended, self.now_ms, self.rows)
        jobs.next_place += 1
        jobs.kept_bytes += job.size
        self._close(job.n, job.input_bytes)
        while jobs.next_place - jobs.first_place > KEPT_MAX or jobs.kept_bytes > KEPT_BYTES_MAX:
            self._drop_first()
        return ended

    def fresh(self, job: Job) -> Job:
        """Let the time pass for a job."""
        event = job.overdue(self.now_ms)
        return job if event is None else self.end(job, event)

    def _close(self, n: int, input_bytes: int) -> None:
        jobs = self.jobs
        jobs.open = tuple(other for other in jobs.open if other != n)
        jobs.open_bytes = jobs.open_bytes - input_bytes if jobs.open else 0
        self._dirty = True

    # --- all of them ------------------------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[Job]:
        """Yield the unfinished jobs, in the order of their creation. One that cannot be read is let go."""
        for n in self.jobs.open:
            job = self.job(n)
            if job is None:
                self._close(n, 0)
            else:
                yield job

    def pass_time(self) -> None:
        """End what time has ended."""
        for job in self.unfinished():
            self.fresh(job)

    def due_ms(self) -> int:
        """Return when time ends the next job; 0: never."""
        return min([job.due_ms for job in self.unfinished() if job.due_ms], default=0)

    def drop_due(self) -> None:
        """Remove some of what is kept no longer."""
        jobs = self.jobs
        for _ in range(DUE_MAX):
            if jobs.first_place == jobs.next_place:
                return
            n = self.rows.job_at(jobs.session, jobs.first_place)
            job = self.job(n) if n else None
            if job is not None and not job.gone(self.now_ms):
                return
            self._drop_first()

    def _drop_first(self) -> None:
        jobs = self.jobs
        n = self.rows.job_at(jobs.session, jobs.first_place)
        if n:
            self.drop(n)
        jobs.first_place += 1
        if jobs.first_place == jobs.next_place:
            jobs.kept_bytes = 0
        self._dirty = True

    def drop(self, n: int) -> None:
        """Remove an ended job."""
        job = self.job(n)
        if job is not None:
            self.jobs.kept_bytes -= job.size
        self.rows.drop_job(self.jobs.session, n)
        self._dirty = True

    def newest(self, before: int) -> Iterator[Job]:
        """Yield all jobs with a number below `before` (0: all), the newest first."""
        jobs = self.jobs
        places = range(jobs.first_place, jobs.next_place)
        numbers = [*jobs.open, *[self.rows.job_at(jobs.session, place) for place in places]]
        for n in sorted(numbers, reverse=True):
            job = self.job(n) if n and (not before or n < before) else None
            if job is not None and not job.gone(self.now_ms):
                yield job

    # --- the session ------------------------------------------------------------------------------------------------

    def finish(self, keep_ms: int) -> None:
        """Cancel what is unfinished and not overdue: the session has ended, and its jobs are kept for `keep_ms`."""
        jobs = self.jobs
        self.record = None
        jobs.over, jobs.until_ms = 1, self.now_ms + keep_ms
        for job in self.unfinished():
            if not self.fresh(job).over:
                self.end(job, JobEvent.CANCEL)
        self._dirty = True

    def save(self) -> bool:
        """Save what is not saved yet, but the record; tell whether that has changed."""
        if self._dirty:
            self.rows.save_jobs(self.jobs)
        return self._shown

    def save_and_wake(self, node: str, wakes: Wakes) -> None:
        """Save all, and let the nodes of both parties, other than `node`, look at a change that they may have to tell."""
        record = self.record
        if self.save() and record is not None:
            wakes.session(record, node, record.client.node, record.worker_side.node)
            self.rows.save_session(record)


def open_jobs(session: str, rows: Rows, now_ms: int, access: Access | None = None) -> SessionJobs | None:
    """Open the jobs of a session for one step.

    None when there is no such session, no job of it is kept any more after its end, or `access` does not allow it.
    """
    record, jobs = rows.session(session), rows.jobs(session)
    if record is not None and access is not None and not access.allows(record.principal, record.worker):
        return None
    if record is not None:
        if jobs is None:
            if record.jobs:
                rows.drop_jobs(session)  # what is left of them cannot be found any more
            # Where jobs were lost, their numbers are not used again: each had raised `Head.jobs`.
            jobs = Jobs(session, record.principal, record.jobs)
        jobs.over = jobs.until_ms = 0
        return SessionJobs(record, jobs, rows, now_ms)
    if jobs is None or (access is not None and not access.allows(jobs.principal)):
        return None
    if jobs.over and jobs.until_ms <= now_ms:
        return None
    opened = SessionJobs(None, jobs, rows, now_ms)
    if not jobs.over:
        opened.finish(jobs.keep_ms)  # a release without jobs has ended the session
        opened.save()
    return opened


def begin_jobs(session: str, rows: Rows) -> None:
    """A session begins: what an earlier one with its id has left is none of it."""
    if rows.jobs(session) is not None:
        rows.drop_jobs(session)


def move_jobs(record: Record, rows: Rows, now_ms: int) -> None:
    """The session is given to a worker: unfinished jobs that were handed out begin their next attempt. The caller saves and wakes."""
    opened = _opened(record, rows, now_ms)
    if opened is None:
        return
    for job in opened.unfinished():
        if job.handed:
            opened.put(job.move())
    opened.save()


def lose_worker(record: Record, failures_max: int, rows: Rows, now_ms: int) -> None:
    """The worker of the session is lost: count that for the jobs that it had. The caller saves and wakes."""
    opened = _opened(record, rows, now_ms)
    if opened is None:
        return
    for job in opened.unfinished():
        if not job.handed:
            continue
        failed = replace(job, failures=job.failures + 1)
        if failed.failures >= failures_max:
            opened.end(failed, JobEvent.FAIL, WORKER_LOST)
        else:
            opened.put(failed, shown=False)
    opened.save()


def learn_jobs(record: Record, known: int, rows: Rows) -> None:
    """A node knows `Head.jobs` to have been `known`: numbers that may have been given by then are not given again. The caller saves."""
    jobs = rows.jobs(record.session) if known > record.jobs else None
    record.jobs = max(record.jobs, known)
    if jobs is not None and jobs.last < known:
        jobs.last = known
        rows.save_jobs(jobs)


def finish_jobs(record: Record, rows: Rows, now_ms: int) -> None:
    """The session has ended. `now_ms` 0: at the time of the last operation on its jobs."""
    opened = _opened(record, rows, now_ms)
    if opened:
        opened.now_ms = opened.jobs.seen_ms
        opened.finish(opened.jobs.keep_ms)
        opened.save()
        drop_over(rows, opened.now_ms)


def drop_over(rows: Rows, now_ms: int) -> None:
    """Remove some of what is kept no longer of sessions that have ended. Redis does it by itself."""
    for session in rows.jobs_over(now_ms - OVER_MS, DUE_MAX):
        rows.drop_jobs(session)


def judge_piece(record: Record, mark: Mark, now_ms: int, rows: Rows) -> Verdict:
    """Judge a piece by its job, which may have ended, or have been given to another worker, without a word in its stream."""
    opened = _opened(record, rows, now_ms)
    job = opened.job(mark.job) if opened else None
    if opened is None or job is None:
        return Verdict.GOES_ON  # of a job that is not known it is a stream like others
    job = opened.fresh(job)
    if opened.save():
        rows.save_session(record)  # the piece may be all that is appended
    return judge(mark.attempt, highest=max(1, job.attempt), outcome=job.state if job.over else "")


def job_piece(record: Record, entry: Entry, mark: Mark, now_ms: int, rows: Rows) -> None:
    """Keep a piece with its job, in the step that appends it; its last piece ends the job. The caller saves and wakes.

    A piece that is given back, of a job that has ended or of an attempt that is over, is none of it any more.
    """
    opened = _opened(record, rows, now_ms)
    job = opened.job(mark.job) if opened else None
    if opened is None or job is None or job.over or mark.attempt < max(job.said, job.attempt):
        return
    opened.behind = entry.seq
    before, job = job, job.keep_piece(mark.attempt, len(entry.body) + PIECE_BYTES, folded=mark.fold is not None)
    session = record.session
    if job.first > before.first:
        rows.drop_pieces(session, job.n, job.first - 1)
    if job.size > job.result_bytes_max:
        rows.drop_pieces(session, job.n, job.pieces)
        opened.end(replace(job, size=0, first=job.pieces + 1), JobEvent.FAIL, RESULT_TOO_BIG)
    else:
        rows.put_piece(session, job.n, job.pieces, Entry(entry.seq, entry.body))
        if mark.end:
            opened.end(job, OF_OUTCOME.get(mark.end, JobEvent.FAIL), mark.error)
        else:
            opened.put(job, shown=False)
    opened.save()


def _opened(record: Record, rows: Rows, now_ms: int) -> SessionJobs | None:
    jobs = rows.jobs(record.session) if record.jobs else None
    return None if jobs is None else SessionJobs(record, jobs, rows, now_ms)


def result_of(job: Job, rows: Rows, session: str) -> tuple[Entry, ...]:
    """Return the pieces that the result of a job is made of: all of its attempt when they are folded, else the last one."""
    if job.state != "succeeded" or not job.pieces:
        return ()
    return tuple(rows.pieces(session, job.n, job.first if job.folded else job.pieces, job.pieces))
