"""The jobs of one session as its worker has them. No I/O.

A worker has a job from the moment it is given until signald has stored the end of it. What it has stands in the next opening message, so
signald does not give it again; an attempt that comes twice all the same is dropped.
"""

from typing import Any

import msgspec
from attrs import define, field, frozen
from msgspec import UNSET, Raw

from signald.ids import job_of
from signald.sdk.core import SessionCore
from signald.sdk.errors import LinkBroken
from signald.sdk.values import read, write
from signald.wire.messages import JOBS_MAX, STREAM_MAX, Job, JobCancel

PROGRESS_BYTES_MAX = 4096
"""Bytes of what a worker says about its progress; signald refuses more."""


@frozen
class JobGiven:
    """Work at an attempt of a job; an earlier attempt of it is over."""

    job: str
    kind: str
    attempt: int
    data: Any = field(repr=False)
    """As `values.read` gives it, or bytes."""
    content_type: str | None = None
    deadline_ms: int | None = None
    """How much time is left."""
    trace: str | None = None


@frozen
class JobCancelled:
    """The work at a job is without need. `reason`: `requested`, `deadline` or `session_ended`."""

    job: str
    reason: str


@define
class _Held:
    """A job that the worker has."""

    attempt: int
    progress: bytes | None = None
    """The last that was said of it."""
    due: bool = False
    """`progress` has not been written on this connection."""
    ended_at: int | None = None
    """The seq of its last message; None while the worker works on it."""


class HeldJobs:
    """The jobs that a worker has of one session."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def given(self, message: Job, binary: bytes | None) -> JobGiven | None:
        """Take a job; None when the worker has this attempt, or a later one.

        Raises:
            LinkBroken: it is no job of the session, or there are more than signald gives.
        """
        held = self._held.get(message.job)
        if held is not None and held.attempt >= message.attempt:
            return None
        if job_of(message.session, message.job) == 0 or len(message.job) > STREAM_MAX:
            raise LinkBroken("a job that is none of its session")
        if held is None and sum(each.ended_at is None for each in self._held.values()) >= JOBS_MAX:
            raise LinkBroken("more jobs than a session has")
        self._held[message.job] = _Held(message.attempt)
        data = binary if binary is not None else read(message.data) if isinstance(message.data, Raw) else None
        return JobGiven(
            message.job,
            message.kind,
            message.attempt,
            data,
            message.content_type if message.content_type is not UNSET else None,
            max(message.deadline_ms, 0) if message.deadline_ms is not UNSET else None,
            message.trace if message.trace is not UNSET else None,
        )

    def listed(self, core: SessionCore) -> list[str]:
        """Return the ids for an opening message: those of which signald may not have the end."""
        self.forget(core)
        return list(self._held)[-JOBS_MAX:]

    def forget(self, core: SessionCore) -> None:
        """Forget those of which signald has stored the end."""
        over = [job for job, held in self._held.items() if held.ended_at is not None and held.ended_at <= core.accepted]
        for job in over:
            del self._held[job]

    def ended(self, job: str, attempt: int, seq: int) -> None:
        """Note that message `seq` is the last one of an attempt."""
        held = self._held.get(job)
        if held is not None and held.attempt == attempt:
            held.ended_at = seq

    def cancelled(self, message: JobCancel) -> JobCancelled:
        """Return the event of a cancellation. When the reason is not `requested`, the job has ended: it is dropped."""
        if message.reason != "requested":
            self.dropped(message.job)
        return JobCancelled(message.job, message.reason)

    def dropped(self, job: str) -> None:
        """Note that signald does not want a job from this worker any more."""
        self._held.pop(job, None)

    def progress(self, job: str, attempt: int, value: object, depth_max: int) -> bool:
        """Note how far the worker is with an attempt; False when it is over. Of several that wait for a writer the last one is written.

        Raises:
            ValueError: longer or deeper than signald takes, or not JSON.
        """
        said = write(value, depth_max)
        if len(said) > PROGRESS_BYTES_MAX:
            raise ValueError(f"the progress of a job may have at most {PROGRESS_BYTES_MAX} bytes, not {len(said)}")
        held = self._held.get(job)
        if held is None or held.attempt != attempt or held.ended_at is not None:
            return False
        held.progress, held.due = said, True
        return True

    def attach(self) -> None:
        """Another connection: what was written last on the one before may have been lost with it."""
        for held in self._held.values():
            held.due = held.progress is not None and held.ended_at is None

    def due(self, session: str) -> list[bytes]:
        """Return the messages that are to be written now."""
        said = []
        for job, held in self._held.items():
            if held.due and held.progress is not None:
                held.due = False
                one = {"type": "job_progress", "session": session, "job": job, "progress": Raw(held.progress)}
                said.append(msgspec.json.encode(one))
        return said
