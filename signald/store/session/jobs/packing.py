"""The operations on jobs as RESP commands, and the scripts they call. See session/packing.py."""

from msgspec import Struct

from signald.core.jobs import KIND_NOT_TAKEN, RESULT_TOO_BIG, WORKER_LOST, Job
from signald.store import lua
from signald.store.base import SessionOp
from signald.store.lua import Value
from signald.store.redis_codec import call, codec
from signald.store.redis_connection import Word
from signald.store.redis_keys import PACKING
from signald.store.session import head
from signald.store.session.events import records as events
from signald.store.session.jobs.ops import (
    DUE_MAX,
    INPUT_BYTES_MAX,
    KEPT_BYTES_MAX,
    KEPT_MAX,
    PIECE_BYTES,
    CancelJob,
    CreateJob,
    JobProgress,
    ListChangedJobs,
    ListJobs,
    ReadJob,
    ReadPieces,
    SweepJobs,
    TakeJobs,
)
from signald.store.session.jobs.records import Jobs
from signald.store.session.jobs.replies import read_jobs
from signald.store.session.ops import OVER_MS
from signald.store.session.streams import records as streams
from signald.wire.fields import SEQ_MAX


def _places(name: str, kind: type[Struct], *left_out: str) -> dict[str, Value]:
    fields = [field for field in kind.__struct_fields__ if field not in left_out]
    return {f"{name}_COUNT": len(fields), **{f"{name}.{field}": place for place, field in enumerate(fields, 1)}}


CONSTANTS: dict[str, Value] = {
    **_places("JOB", Job),
    **_places("JOBS", Jobs, "session"),
    "DUE_MAX": DUE_MAX,
    "KEPT_BYTES_MAX": KEPT_BYTES_MAX,
    "KEPT_MAX": KEPT_MAX,
    "OVER_MS": OVER_MS,
    "PIECE_BYTES": PIECE_BYTES,
    "RESULT_TOO_BIG": RESULT_TOO_BIG.decode(),
    "WORKER_LOST": WORKER_LOST.decode(),
}
"""What jobs.lua and session.lua need of Python: above all where each field stands in the list that is kept of a record."""

FILES = ("session/head.lua", "session/events/queue.lua", "session/jobs/jobs.lua")

JOBS = lua.cold(
    *FILES,
    "session/jobs/pieces.lua",
    "session/streams/streams.lua",
    "session/jobs/operations.lua",
    constants={
        **head.CONSTANTS,
        **events.CONSTANTS,
        **{name: value for name, value in CONSTANTS.items() if name != "WORKER_LOST"},
        **streams.CONSTANTS,
        **head.SEAL_CONSTANTS,
        "INPUT_BYTES_MAX": INPUT_BYTES_MAX,
        "KIND_NOT_TAKEN": KIND_NOT_TAKEN.decode(),
        "SAFETY_MIN_MS": head.SAFETY_MIN_MS,
        "SEQ_MAX": SEQ_MAX,
    },
)


def pack_jobs(op: SessionOp, operation: str, *words: Word, node: str = "") -> bytes:
    """Call the function of operations.lua named `operation` with `words`. `node` is the caller, where the rule needs it."""
    space = PACKING.get()
    return call(space.script(JOBS[operation]), space.session_keys(op.session), operation, node, *words)


def pack_create_job(op: CreateJob) -> bytes:
    """Call `create_job`; the input has its seal."""
    data = PACKING.get().seals.wrap(op.data, b"input", op.session, name=op.key)
    return pack_jobs(
        op, "create_job", *op.access.words, op.nonce, op.key, op.payload, op.kind, data, op.content_type,
        op.trace, int(op.too_big), op.deadline_ms, op.in_flight_max, op.result_bytes_max, op.keep_ms, op.now_ms,
        len(op.data), node=op.node,
    )  # fmt: skip


def _progress(op: JobProgress) -> bytes:
    # The script compares it with the last one.
    return PACKING.get().seals.cover(op.progress, b"progress", op.session, op.n, stable=True)


codec(CreateJob, pack_create_job, read_jobs)
codec(ReadJob, lambda op: pack_jobs(op, "read_job", op.n, *op.access.words, op.now_ms, node=op.node), read_jobs)
codec(
    CancelJob,
    lambda op: pack_jobs(op, "cancel_job", op.n, *op.access.words, op.timeout_ms, op.now_ms, node=op.node),
    read_jobs,
)
codec(
    ListJobs,
    lambda op: pack_jobs(op, "list_jobs", *op.access.words, op.state, op.before, op.limit, op.now_ms, node=op.node),
    read_jobs,
)
codec(
    ListChangedJobs,
    lambda op: pack_jobs(op, "list_changed_jobs", op.since, op.ended_ms, op.limit),
    read_jobs,
)
codec(
    ReadPieces,
    lambda op: pack_jobs(op, "read_pieces", op.n, *op.access.words, op.after, op.limit, op.now_ms),
    read_jobs,
)
codec(
    TakeJobs,
    lambda op: pack_jobs(
        op, "take_jobs", op.epoch, op.limit, op.now_ms, len(op.kinds), len(op.known), *op.kinds, *op.known, node=op.node
    ),
    read_jobs,
)
codec(
    JobProgress,
    lambda op: pack_jobs(op, "job_progress", op.n, op.epoch, _progress(op), op.now_ms, node=op.node),
    read_jobs,
)
codec(SweepJobs, lambda op: pack_jobs(op, "sweep_jobs", op.now_ms, node=op.node), read_jobs)
