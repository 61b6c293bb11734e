"""Jobs for the HTTP API: see `signald.http.api.jobs`, whose protocol this implements.

Each answer comes from the store, so that any node gives it; a request that changes a job lets a party here know at once, and the store
wakes the nodes of parties elsewhere.
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import msgspec
import trio
from msgspec import UNSET, Raw, Struct, UnsetType

from signald.core.callers import Access
from signald.core.jobs import Job
from signald.core.log import Entry
from signald.errors import StoreUnavailable
from signald.http.api.job_views import (
    JobRefused,
    Piece,
    Refusal,
    Result,
    ShownJob,
    ShownJobs,
    Submission,
    Submitted,
)
from signald.http.api.times import rfc3339
from signald.ids import SessionId, job_id, new_nonce
from signald.service.events import JobStored
from signald.service.parts import Parts
from signald.store.base import Result as StoreResult
from signald.store.base import SessionOp
from signald.store.session.jobs.ops import (
    CancelJob,
    CreateJob,
    JobGone,
    JobList,
    JobMade,
    JobRead,
    JobsFull,
    JobTooBig,
    KeyTaken,
    ListJobs,
    NoJob,
    Pieces,
    ReadJob,
    ReadPieces,
)
from signald.store.session.ops import NoSession, ReadSession, SessionRead
from signald.wire import records

STREAMS_MAX = 1000
"""Streams of events at one node. Each reads the store once a second while its job is quiet: a thousand are a few per cent of a store."""

POLL_S, POLL_MAX_S = 0.05, 0.5
"""How often a request that waits reads its job: soon at first, for short jobs, then twice a second."""

R = TypeVar("R", bound=StoreResult)

_BECAUSE: dict[type[StoreResult], Refusal] = {
    NoSession: "no_session",
    NoJob: "no_job",
    JobGone: "gone",
    KeyTaken: "key_taken",
    JobTooBig: "too_big",
    JobsFull: "full",
}


class _Body(Struct):
    """What a kept message says, as far as a result is made of it."""

    seq: int
    data: Raw | UnsetType = UNSET
    attempt: int = 1
    fold: str | None = None
    content_type: str | None = None
    end: bool = False
    outcome: str | None = None
    blob: str | None = None


_body = msgspec.json.Decoder(_Body).decode
_text = msgspec.json.Decoder(str).decode


class HttpJobs:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._context = parts.context
        self._storing: set[tuple[str, bytes]] = set()
        """(session, key) of requests whose job is being stored here."""
        self._streams = 0

    @property
    def json_depth_max(self) -> int:
        """As deep as a message may be: the input travels to its worker in one."""
        return self._context.config.limits.json_depth_max

    @property
    def input_bytes_max(self) -> int:
        """See `jobs.input_bytes_max`."""
        config = self._context.config
        most = max(1, config.limits.message_bytes_max - 1024)
        return min(config.jobs.input_bytes_max or most, most)

    async def exists(self, session: SessionId, access: Access) -> bool:
        """Tell whether there is such a session for this caller."""
        return isinstance(await self._context.committer.call(ReadSession(session, access)), SessionRead)

    async def submit(self, asked: Submission) -> Submitted:
        """Store a job, or find the one that was stored with the same key."""
        context, config = self._context, self._context.config.jobs
        place = (asked.session, asked.key)
        if place in self._storing:
            raise JobRefused("key_in_use")
        now_ms, began = context.now_ms(), trio.current_time()
        too_big = len(asked.data) > self.input_bytes_max
        create = CreateJob(
            asked.session,
            context.node,
            asked.access,
            new_nonce(context.entropy),
            asked.key,
            asked.payload,
            asked.kind,
            b"" if too_big else asked.data,
            asked.content_type,
            asked.trace or "",
            too_big,
            now_ms + asked.deadline_ms if asked.deadline_ms is not None else 0,
            config.in_flight_max,
            config.result_bytes_max,
            round(config.keep_s * 1000),
            now_ms,
        )
        self._storing.add(place)
        try:
            made = await self._change(create)
        finally:
            self._storing.discard(place)
        if not isinstance(made, JobMade):
            _refuse(made)
        job = made.job
        if not made.replayed:
            name = job_id(asked.session, job.n)
            context.events.emit(JobStored(asked.session, name, job.kind, trio.current_time() - began))
        return Submitted(_first(asked.session, job), await self._shown_now(asked, job), made.replayed)

    async def _shown_now(self, asked: Submission, job: Job) -> ShownJob:
        if not job.over:
            return _shown(asked.session, job)
        return await self.read(asked.session, job.n, asked.access)

    async def read(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Show a job, with its result."""
        read = await self._read(session, n, access)
        return _shown(session, read.job, read.result)

    async def _read(self, session: SessionId, n: int, access: Access) -> JobRead:
        read = await self._change(ReadJob(session, n, access, self._context.node, self._context.now_ms()))
        return read if isinstance(read, JobRead) else _refuse(read)

    async def wait(self, session: SessionId, n: int, access: Access, wait_s: float, until: trio.Event) -> ShownJob:
        """Show a job as soon as it has ended, `wait_s` are over, or `until` is set."""
        job = await self.read(session, n, access)
        deadline, pause_s = trio.current_time() + wait_s, POLL_S
        while not job.over and not until.is_set() and trio.current_time() < deadline:
            with trio.move_on_after(min(pause_s, deadline - trio.current_time())):
                await until.wait()
            pause_s = min(POLL_MAX_S, pause_s * 1.5)
            job = await self.read(session, n, access)
        return job

    async def listed(self, session: SessionId, access: Access, state: str, before: int, limit: int) -> ShownJobs:
        """Show jobs of a session with numbers below `before` (0: all). Results stand at their own addresses."""
        now_ms = self._context.now_ms()
        listed = await self._change(ListJobs(session, access, self._context.node, state, before, limit, now_ms))
        if not isinstance(listed, JobList):
            _refuse(listed)
        shown = [_shown(session, job) for job in listed.jobs]
        return ShownJobs(shown, str(listed.jobs[-1].n) if listed.more else UNSET)

    async def result(self, session: SessionId, n: int, access: Access) -> Result:
        """Return the bytes of a result."""
        read = await self._read(session, n, access)
        if not read.job.over:
            raise JobRefused("unfinished", _shown(session, read.job))
        if read.job.state != "succeeded":
            raise JobRefused("no_result", _shown(session, read.job))
        return _result(read.job, read.result)

    async def cancel(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Cancel a job."""
        context = self._context
        timeout_ms = round(context.config.jobs.cancel_timeout_s * 1000)
        read = await self._change(CancelJob(session, n, access, context.node, timeout_ms, context.now_ms()))
        return _shown(session, read.job, read.result) if isinstance(read, JobRead) else _refuse(read)

    async def pieces(
        self, session: SessionId, n: int, access: Access, after: int, limit: int
    ) -> tuple[bool, Sequence[Piece]]:
        """Return whether the job has ended, and pieces of it with a seq above `after`."""
        read = await self._context.committer.call(ReadPieces(session, n, access, after, limit, self._context.now_ms()))
        if not isinstance(read, Pieces):
            _refuse(read)
        due = read.job.overdue(self._context.now_ms()) is not None
        return read.job.over or due, [piece for entry in read.pieces if (piece := _piece(entry)) is not None]

    def stream_begins(self) -> bool:
        """Take a place for a stream of events; False when there is none."""
        if self._streams >= STREAMS_MAX:
            return False
        self._streams += 1
        return True

    def stream_ends(self) -> None:
        """Give the place back."""
        self._streams -= 1

    async def _change(self, op: SessionOp[R]) -> R:
        """Have `op` done, and let a party here know what it may have changed: the store wakes other nodes only."""
        result = await self._context.committer.call(op)
        job = getattr(result, "job", None)
        if job is not None:
            self._parts.jobs.changed(op.session, job)
        elif isinstance(op, ListJobs):
            # Time may have ended some of them in this step, of a session without a party as well.
            self._context.untold.note(op.session)
            if (session := self._parts.attachments.sessions.get(op.session)) is not None:
                self._parts.relay.look(session)
        return result


def _refuse(result: StoreResult) -> NoReturn:
    because = _BECAUSE.get(type(result))
    if because is None:
        raise StoreUnavailable("the store has given no answer for this job")
    raise JobRefused(because)


def _raw(data: bytes) -> Raw | UnsetType:
    return Raw(data) if data else UNSET


def _time(ms: int) -> str | UnsetType:
    return rfc3339(ms) if ms else UNSET


def _first(session: str, job: Job) -> ShownJob:
    """Return a job as it was when it was stored: that is what a request is answered, however often it is made."""
    name = job_id(session, job.n)
    return ShownJob(name, session, job.kind, "queued", 0, rfc3339(job.created_ms), deadline_at=_time(job.deadline_ms))


def _shown(session: str, job: Job, result: Sequence[Entry] | None = None) -> ShownJob:
    """Return a job as it is now. Without its `result` pieces only the address of its result is shown."""
    name = job_id(session, job.n)
    value: Raw | UnsetType = UNSET
    url: str | UnsetType = UNSET
    if job.state == "succeeded":
        found = _result(job, result) if result is not None else None
        if found is not None and found.content_type == _JSON:
            value = Raw(found.data)
        else:
            url = f"/v1/blobs/{found.blob}" if found is not None and found.blob else f"/v1/jobs/{name}/result"
    return ShownJob(
        job=name,
        session=session,
        kind=job.kind,
        state=job.state,
        attempt=job.attempt,
        created_at=rfc3339(job.created_ms),
        progress=_raw(job.progress),
        result=value,
        result_url=url,
        error=_raw(job.error),
        started_at=_time(job.started_ms),
        ended_at=_time(job.ended_ms),
        deadline_at=_time(job.deadline_ms),
    )


_JSON = "application/json"

_NOTHING = (UNSET, Raw(b"null"))
"""The `data` of a last piece that says no more than which blob is the result."""


def _result(job: Job, pieces: Sequence[Entry]) -> Result:
    """Return the result that `pieces` make: one text, or the data of the last, or its blob."""
    read = [found for entry in pieces if (found := _read(entry)) is not None]
    if job.folded:
        text = "".join([_text(said.data) for said, _ in read if said.fold is not None and said.data is not UNSET])
        return Result(msgspec.json.encode(text), _JSON)
    if not read:
        return Result(b"null", _JSON)
    said, binary = read[-1]
    if said.blob is not None and binary is None and said.data in _NOTHING:
        return Result(b"", "", said.blob)
    if binary is not None:
        return Result(binary, said.content_type or "application/octet-stream")
    return Result(bytes(said.data) if said.data is not UNSET else b"null", _JSON)


def _read(entry: Entry) -> tuple[Any, bytes | None] | None:
    """Return what a kept message says, and its binary data; None when it cannot be read."""
    text, binary = records.parts(entry.body)
    try:
        return _body(text), binary
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # halves of surrogate pairs, which no JSON document can show


def _piece(entry: Entry) -> Piece | None:
    read = _read(entry)
    if read is None:
        return None
    said, binary = read
    return Piece(
        entry.seq,
        said.attempt,
        said.data if binary is None else UNSET,
        b64encode(binary).decode() if binary is not None else UNSET,
        True if said.end else UNSET,
        (said.outcome or "complete") if said.end else UNSET,
        UNSET if said.blob is None else said.blob,
    )
