"""What Redis answers to the operations on jobs, read as their results."""

from collections.abc import Callable
from typing import Any, get_type_hints

from signald.core.jobs import STATES, Job
from signald.core.log import Entry
from signald.store.base import Result, SessionOp
from signald.store.damage import REPORTS, unseal
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, read_refusal
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


def _job(kept: list[Any]) -> Job:
    # A later release may have added to the end.
    fields: list[Any] = [read(value) for read, value in zip(_READERS, kept, strict=False)]
    return Job(*fields)


def _pieces(op: SessionOp, kept: list[bytes]) -> tuple[Entry, ...]:
    found = []
    for piece in kept:
        seq, _, sealed = piece.partition(b" ")
        body = unseal(sealed)
        if body is None or not seq.isdigit():
            REPORTS.tell("piece of a job", op.session)
        else:
            found.append(Entry(int(seq), body))
    return tuple(found)


def _given(op: SessionOp, kept: list[Any]) -> tuple[tuple[Job, bytes | None], ...]:
    found = []
    for job, sealed in kept:
        data = unseal(sealed)
        if data is None:
            REPORTS.tell("input of a job", op.session)
        found.append((_job(job), data))
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
            return JobMade(_job(job), replayed == 1)
        case [b"job", job, pieces]:
            kind_of = Pieces if isinstance(op, ReadPieces) else JobRead
            return kind_of(_job(job), _pieces(op, pieces))
        case [b"jobs", more, jobs]:
            return JobList(tuple([_job(job) for job in jobs]), more == 1)
        case [b"given", given, cancels, more, due_ms, number]:
            return JobsTaken(
                _given(op, given), tuple([_job(job) for job in cancels]), more == 1, _number(due_ms), _number(number)
            )
        case [b"swept", due_ms]:
            return Swept(_number(due_ms))
        case _:
            return read_refusal(reply)
