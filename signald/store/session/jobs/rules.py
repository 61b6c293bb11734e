"""What the operations on jobs do (see store/rule.py). The Lua twin is operations.lua."""

from msgspec.structs import replace

from signald.core.jobs import KIND_NOT_TAKEN, Job, JobEvent, takes
from signald.store import base
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session.jobs import ops
from signald.store.session.jobs.keeping import SessionJobs, drop_over, open_jobs, result_of
from signald.store.session.ops import NoSession
from signald.store.session.rules import not_holder


@rule(ops.CreateJob)
def create_job(
    op: ops.CreateJob, rows: Rows, wakes: Wakes
) -> ops.JobMade | ops.KeyTaken | ops.JobTooBig | ops.JobsFull | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms, op.access)
    if opened is None or opened.record is None:
        return NoSession()
    opened.drop_due()
    drop_over(rows, op.now_ms)
    result = _known(op, opened) or _refused(op, opened) or _made(op, opened)
    opened.save_and_wake(op.node, wakes)
    return result


def _known(op: ops.CreateJob, opened: SessionJobs) -> ops.JobMade | ops.KeyTaken | None:
    n = opened.rows.job_of_key(op.session, op.key)
    job = opened.job(n) if n else None
    if job is None:
        return None
    job = opened.fresh(job)
    if job.gone(op.now_ms):
        opened.drop(n)
        return None
    return ops.JobMade(job, job.nonce != op.nonce) if job.payload == op.payload else ops.KeyTaken()


def _refused(op: ops.CreateJob, opened: SessionJobs) -> ops.JobTooBig | ops.JobsFull | None:
    if op.too_big:
        return ops.JobTooBig()

    def full() -> bool:
        jobs = opened.jobs
        return len(jobs.open) >= op.in_flight_max or jobs.open_bytes + len(op.data) > ops.INPUT_BYTES_MAX

    if full():
        opened.pass_time()
    return ops.JobsFull() if full() else None


def _made(op: ops.CreateJob, opened: SessionJobs) -> ops.JobMade:
    jobs = opened.jobs
    jobs.last += 1
    jobs.open = (*jobs.open, jobs.last)
    jobs.open_bytes += len(op.data)
    jobs.keep_ms = op.keep_ms
    job = Job(
        n=jobs.last,
        kind=op.kind,
        content_type=op.content_type,
        trace=op.trace,
        nonce=op.nonce,
        key=op.key,
        payload=op.payload,
        created_ms=op.now_ms,
        deadline_ms=op.deadline_ms,
        keep_ms=op.keep_ms,
        result_bytes_max=op.result_bytes_max,
        input_bytes=len(op.data),
    )
    job = opened.put(job)
    opened.rows.put_input(op.session, job.n, op.data)
    return ops.JobMade(opened.fresh(job), False)


def _find(
    op: ops.ReadJob | ops.CancelJob | ops.ReadPieces, rows: Rows
) -> tuple[SessionJobs, Job] | ops.NoJob | ops.JobGone | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms, op.access)
    if opened is None:
        return NoSession()
    job = opened.job(op.n)
    if job is None:
        return ops.JobGone() if 0 < op.n <= opened.jobs.last else ops.NoJob()
    return ops.JobGone() if job.gone(op.now_ms) else (opened, job)


@rule(ops.ReadJob)
def read_job(op: ops.ReadJob, rows: Rows, wakes: Wakes) -> ops.JobRead | ops.NoJob | ops.JobGone | NoSession:
    found = _find(op, rows)
    if not isinstance(found, tuple):
        return found
    opened, job = found
    job = opened.fresh(job)
    opened.save_and_wake(op.node, wakes)
    return ops.JobRead(job, result_of(job, rows, op.session))


@rule(ops.CancelJob)
def cancel_job(op: ops.CancelJob, rows: Rows, wakes: Wakes) -> ops.JobRead | ops.NoJob | ops.JobGone | NoSession:
    found = _find(op, rows)
    if not isinstance(found, tuple):
        return found
    opened, job = found
    job = opened.fresh(job)
    if not job.over and (not job.handed or opened.record is None or not opened.record.worker):
        job = opened.end(job, JobEvent.CANCEL)
    elif not job.over and not job.cancel_ms:
        job = opened.put(replace(job, cancel_ms=op.now_ms + op.timeout_ms))
    opened.save_and_wake(op.node, wakes)
    return ops.JobRead(job, result_of(job, rows, op.session))


@rule(ops.ListJobs)
def list_jobs(op: ops.ListJobs, rows: Rows, wakes: Wakes) -> ops.JobList | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms, op.access)
    if opened is None:
        return NoSession()
    opened.pass_time()
    opened.save_and_wake(op.node, wakes)
    found: list[Job] = []
    for job in opened.newest(op.before):
        if op.state in ("", job.state):
            if len(found) >= op.limit:
                return ops.JobList(tuple(found), True)
            found.append(job)
    return ops.JobList(tuple(found), False)


@rule(ops.ListChangedJobs)
def list_changed_jobs(op: ops.ListChangedJobs, rows: Rows, _wakes: Wakes) -> ops.JobList | NoSession:
    record, jobs = rows.session(op.session), rows.jobs(op.session)
    if record is None:
        return NoSession()
    found: list[Job] = []
    for n in jobs.open if jobs is not None else ():
        job = rows.job(op.session, n)
        if job is not None and job.changed > op.since:
            found.append(job)
    for place in range(jobs.next_place - 1, jobs.first_place - 1, -1) if jobs is not None else ():
        n = rows.job_at(op.session, place)
        job = rows.job(op.session, n) if n else None
        if job is None:
            continue
        if job.changed <= op.since or job.ended_ms <= op.ended_ms or len(found) > op.limit:
            break
        found.append(job)
    found.sort(key=lambda job: -job.n)
    return ops.JobList(tuple(found[: op.limit]), len(found) > op.limit)


@rule(ops.ReadPieces)
def read_pieces(op: ops.ReadPieces, rows: Rows, _wakes: Wakes) -> ops.Pieces | ops.NoJob | ops.JobGone | NoSession:
    record, jobs = rows.session(op.session), rows.jobs(op.session)
    if record is not None:
        allowed, last = op.access.allows(record.principal, record.worker), jobs.last if jobs is not None else 0
    elif jobs is None or (jobs.over and jobs.until_ms <= op.now_ms):
        return NoSession()
    else:
        allowed, last = op.access.allows(jobs.principal), jobs.last
    if not allowed:
        return NoSession()
    job = rows.job(op.session, op.n)
    if job is None:
        return ops.JobGone() if 0 < op.n <= last else ops.NoJob()
    if job.gone(op.now_ms):
        return ops.JobGone()
    return ops.Pieces(job, tuple(rows.pieces_after(op.session, job, op.after, op.limit)))


@rule(ops.TakeJobs)
def take_jobs(op: ops.TakeJobs, rows: Rows, wakes: Wakes) -> ops.JobsTaken | base.Fenced | base.Behind | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms)
    if opened is None or opened.record is None:
        return NoSession()
    record = opened.record
    if refused := not_holder(record.worker_side, op.epoch, op.node):
        return refused
    opened.pass_time()
    known = [opened.job(n) for n in op.known]
    cancels = tuple(job for job in known if job is not None and (job.over or job.cancel_ms))
    given: list[tuple[Job, bytes | None]] = []
    more = False
    for job in opened.unfinished():
        if job.n in op.known:
            continue
        if job.cancel_ms:
            opened.end(job, JobEvent.CANCEL)
        elif not takes(op.kinds, job.kind):
            opened.end(job, JobEvent.REJECT, KIND_NOT_TAKEN)
        elif len(given) >= op.limit:
            more = True
            break
        else:
            handed = job if job.handed else opened.put(job.hand_out(op.now_ms))
            given.append((handed, rows.input(op.session, job.n)))
    due_ms = opened.due_ms()
    opened.save_and_wake(op.node, wakes)
    return ops.JobsTaken(tuple(given), cancels, more, due_ms, record.jobs)


@rule(ops.JobProgress)
def job_progress(op: ops.JobProgress, rows: Rows, wakes: Wakes) -> base.Done | base.Fenced | base.Behind | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms)
    if opened is None or opened.record is None:
        return NoSession()
    if refused := not_holder(opened.record.worker_side, op.epoch, op.node):
        return refused
    job = opened.job(op.n)
    if job is not None:
        job = opened.fresh(job)
        if job.state == "running" and job.progress != op.progress:
            opened.put(replace(job, progress=op.progress))
        opened.save_and_wake(op.node, wakes)
    return base.Done()


@rule(ops.SweepJobs)
def sweep_jobs(op: ops.SweepJobs, rows: Rows, wakes: Wakes) -> ops.Swept | NoSession:
    opened = open_jobs(op.session, rows, op.now_ms)
    if opened is None:
        return NoSession()
    opened.pass_time()
    opened.drop_due()
    due_ms = opened.due_ms()
    opened.save_and_wake(op.node, wakes)
    return ops.Swept(due_ms)
