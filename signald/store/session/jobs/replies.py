"""What Redis answers to the operations on jobs, read as their results."""

from collections.abc import Callable
from typing import Any, get_type_hints

from signald.core.jobs import STATES, Job
from signald.core.log import Entry
from signald.core.streams import mark_of_body
from signald.ids import job_id
from signald.store.base import Result, SessionOp
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_keys import PACKING
from signald.store.redis_replies import DONE, read_refusal
from signald.store.seals import is_sealed
from signald.store.session.jobs.ops import (
    JobGone,
    JobList,
    JobMade,
    JobRead,
    JobsFull,
    JobsTaken,
    JobTooBig,
    KeyTaken,
    NoJob,
    Pieces,
    ReadPieces,
    Swept,
)
from signald.store.session.ops import NoSession


def _state(kept: bytes) -> str:
    state = kept.decode()
    if state not in STATES:
        raise ValueError("no state of a job")
    return state


def _number(kept: object) -> int:
    if type(kept) is not int:
        raise ValueError("no number")
    return kept


def _bytes(kept: object) -> bytes:
    if type(kept) is not bytes:
        raise ValueError("no text")
    return kept


_BY_TYPE: dict[Any, Callable[[Any], object]] = {int: _number, str: bytes.decode, bytes: _bytes}
_READERS = [
    _state if name == "state" else _BY_TYPE[hint]
    for name, hint in get_type_hints(Job).items()
    if name in Job.__struct_fields__
]
_PROGRESS = Job.__struct_fields__.index("progress")


def _job(op: SessionOp, kept: list[Any]) -> Job:
    # A later release may have added to the end.
    fields: list[Any] = [read(value) for read, value in zip(_READERS, kept, strict=False)]
    if is_sealed(fields[_PROGRESS]):
        progress = PACKING.get().seals.uncover(fields[_PROGRESS], b"progress", op.session, fields[0])
        if progress is None:
            REPORTS.tell("progress of a job", op.session)
        fields[_PROGRESS] = progress or b""
    return Job(*fields)


def _pieces(op: SessionOp, n: int, kept: list[bytes]) -> tuple[Entry, ...]:
    """Return the pieces of the result of job `n`.

    They stand in the order of their seqs and are of its stream. A sealed one that is not was put there by no script.
    """
    found: list[Entry] = []
    for piece in kept:
        said, _, sealed = piece.partition(b" ")
        seq = int(said) if said.isdigit() else 0
        body = PACKING.get().seals.unwrap(sealed, b"down", op.session, seq) if seq else None
        mark = mark_of_body(body) if body is not None and is_sealed(sealed) else None
        is_of_job = mark is None or mark.stream == job_id(op.session, n)
        if body is None or not is_of_job or (found and is_sealed(sealed) and seq <= found[-1].seq):
            REPORTS.tell("piece of a job", op.session)
        else:
            found.append(Entry(seq, body))
    return tuple(found)


def _given(op: SessionOp, kept: list[Any]) -> tuple[tuple[Job, bytes | None], ...]:
    found = []
    for fields, sealed in kept:
        job = _job(op, fields)
        data = PACKING.get().seals.unwrap(sealed, b"input", op.session, name=job.key)
        if data is None:
            REPORTS.tell("input of a job", op.session)
        found.append((job, data))
    return tuple(found)


_PLAIN: dict[bytes, Result] = {
    b"done": DONE,
    b"no_session": NoSession(),
    b"taken": KeyTaken(),
    b"too_big": JobTooBig(),
    b"full": JobsFull(),
    b"no_job": NoJob(),
    b"gone": JobGone(),
}


def read_jobs(op: SessionOp, reply: Reply) -> Result:
    """What operations.lua answers: a list that begins with its kind."""
    match reply:
        case [kind] if kind in _PLAIN:
            return _PLAIN[kind]
        case [b"made", replayed, job]:
            return JobMade(_job(op, job), replayed == 1)
        case [b"job", job, pieces]:
            kind_of = Pieces if isinstance(op, ReadPieces) else JobRead
            made = _job(op, job)
            return kind_of(made, _pieces(op, made.n, pieces))
        case [b"jobs", more, jobs]:
            return JobList(tuple([_job(op, job) for job in jobs]), more == 1)
        case [b"given", given, cancels, more, due_ms, number]:
            return JobsTaken(
                _given(op, given),
                tuple([_job(op, job) for job in cancels]),
                more == 1,
                _number(due_ms),
                _number(number),
            )
        case [b"swept", due_ms]:
            return Swept(_number(due_ms))
        case _:
            return read_refusal(reply)
