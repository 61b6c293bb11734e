"""The operations on the jobs of a session and their results.

What other operations do to jobs: `ClaimWorkerSide` with `assign` begins the next attempt of each unfinished job that was handed out;
`UnpairFailed` counts a failure of those that are with a worker; `EndSession` and `ExpireSession` cancel all that are unfinished, and
jobs are kept and readable for their `keep_ms` after that. Each change of a job that a party may see raises `Head.jobs` and wakes
the nodes of both parties.

An operation with an `access` answers `NoSession` for a session that its caller may not touch, as for one that is unknown.
"""

from signald.core.callers import Access
from signald.core.jobs import Job
from signald.core.log import Entry
from signald.store.base import Behind, Done, Fenced, Result, SessionOp, traits
from signald.store.session.ops import NoSession

KEPT_MAX = 1000
"""How many ended jobs of one session are kept; of more, those that ended first are kept no longer, and neither are their keys. A client
within its rate makes as many in 50 s, and an answer that was lost is asked for again within seconds."""

KEPT_BYTES_MAX = 32 << 20
"""How many bytes the pieces of the ended jobs of one session may have: 32 of the largest results. Those that ended first give way."""

PIECE_BYTES = 64
"""What a piece counts for beside its body, so that a million empty ones are no small result."""

INPUT_BYTES_MAX = 16 << 20
"""How many bytes the inputs of the unfinished jobs of one session may have. An input is dropped with the end of its job."""

DUE_MAX = 32
"""How many jobs that are kept no longer one step removes: more than one step can add, so that they never gather."""

Digest32 = bytes


# --- results ------------------------------------------------------------------------------------------------------


class JobMade(Result, frozen=True):
    """The job is stored. `replayed`: it was made by an earlier request with the same key."""

    job: Job
    replayed: bool


class KeyTaken(Result, frozen=True):
    """The key was used for another payload."""


class JobTooBig(Result, frozen=True):
    """The input is larger than the caller takes, and its key is new."""


class JobsFull(Result, frozen=True):
    """The session has as many unfinished jobs as it may have, or as many bytes of their inputs."""


class JobRead(Result, frozen=True):
    """The job; when it has succeeded also the pieces that its result is made of."""

    job: Job
    result: tuple[Entry, ...] = ()


class NoJob(Result, frozen=True):
    """The session never had the job."""


class JobGone(Result, frozen=True):
    """The job was, and is kept no longer."""


class JobList(Result, frozen=True):
    """Jobs, the newest first. `more`: there are others behind the last one."""

    jobs: tuple[Job, ...]
    more: bool


class Pieces(Result, frozen=True):
    """The job and pieces of it, in the order of their seqs."""

    job: Job
    pieces: tuple[Entry, ...]


class JobsTaken(Result, frozen=True):
    """What the worker of the session is to be told. `head_jobs` is `Head.jobs` now."""

    given: tuple[tuple[Job, bytes | None], ...]
    """The jobs that are its own from now on, each with its input; None: the input is damaged."""
    cancels: tuple[Job, ...]
    """Jobs that it has, and is to end."""
    more: bool
    """There are more to give."""
    due_ms: int
    """When time ends the next unfinished job; 0: never."""
    head_jobs: int


class Swept(Result, frozen=True):
    """What time had ended has ended. `due_ms`: when it ends the next one; 0: never."""

    due_ms: int


# --- operations ---------------------------------------------------------------------------------------------------


@traits(damaged=NoSession())
class CreateJob(SessionOp[JobMade | KeyTaken | JobTooBig | JobsFull | NoSession], frozen=True):
    """Store a job, unless its idempotency key is known. The key is judged before all bounds.

    A request that is repeated with its `nonce` gets the same answer. `too_big`: the input is larger than an input may be, and
    `data` is empty. `deadline_ms` is a moment; 0: none. `JobsFull` from `in_flight_max` unfinished jobs on.
    """

    node: str
    access: Access
    nonce: str
    key: Digest32
    payload: Digest32
    kind: str
    data: bytes
    content_type: str
    trace: str
    too_big: bool
    deadline_ms: int
    in_flight_max: int
    result_bytes_max: int
    keep_ms: int
    now_ms: int


@traits(damaged=NoSession())
class ReadJob(SessionOp[JobRead | NoJob | JobGone | NoSession], frozen=True):
    """Read a job as it is at `now_ms`."""

    n: int
    access: Access
    node: str
    now_ms: int


@traits(damaged=NoSession())
class ListJobs(SessionOp[JobList | NoSession], frozen=True):
    """Read up to `limit` jobs with a number below `before` (0: all), of `state` ("": any), as they are at `now_ms`."""

    access: Access
    node: str
    state: str
    before: int
    limit: int
    now_ms: int


@traits(reads=True, damaged=NoSession())
class ListChangedJobs(SessionOp[JobList | NoSession], frozen=True):
    """Read up to `limit` jobs that have changed after `since` (`Head.jobs`): those that are unfinished or ended after `ended_ms`."""

    since: int
    ended_ms: int
    limit: int


@traits(reads=True, damaged=NoSession())
class ReadPieces(SessionOp[Pieces | NoJob | JobGone | NoSession], frozen=True):
    """Read up to `limit` pieces of a job with a seq above `after`: those of its last attempt that has said something."""

    n: int
    access: Access
    after: int
    limit: int
    now_ms: int


@traits(damaged=NoSession())
class CancelJob(SessionOp[JobRead | NoJob | JobGone | NoSession], frozen=True):
    """Cancel a job: at once when no worker has it, otherwise its worker has `timeout_ms` to end it. Nothing changes when it has ended."""

    n: int
    access: Access
    node: str
    timeout_ms: int
    now_ms: int


@traits(damaged=Behind(0))
class TakeJobs(SessionOp[JobsTaken | Fenced | Behind | NoSession], frozen=True):
    """Hand unfinished jobs to the worker attached at `node` under `epoch`, in the order of their creation, and mark them running.

    `known` are the numbers of the jobs that it has: they are not handed out again, and those that have ended or are being cancelled are
    told as `cancels`. A job whose kind is not in `kinds` fails. Up to `limit` are handed out in one step.
    """

    node: str
    epoch: int
    kinds: tuple[str, ...]
    known: tuple[int, ...]
    limit: int
    now_ms: int


@traits(damaged=Done())
class JobProgress(SessionOp[Done | Fenced | Behind | NoSession], frozen=True):
    """Keep what a worker says about the progress of a job, any JSON. The last one counts; a job that does not run ignores it."""

    n: int
    node: str
    epoch: int
    progress: bytes
    now_ms: int


@traits(damaged=NoSession())
class SweepJobs(SessionOp[Swept | NoSession], frozen=True):
    """End what time has ended, and remove what is kept no longer."""

    node: str
    now_ms: int
