"""The jobs of a session as its client sees them. No I/O.

What is told comes by `job_state`, by the messages of the job's stream, and at a resume. The result itself is read over HTTP.
"""

from collections import deque
from typing import Any

from attrs import define, field, frozen
from msgspec import Raw

from signald.sdk.values import read, readable
from signald.wire.messages import JobStateChanged, JobSummary, Message

KEPT_MAX = 256
"""Jobs that are known; the oldest that is over is forgotten, and whatever is asked about it is asked over HTTP."""

PARTS_BYTES_MAX = 16 * 1024 * 1024
"""Of parts that wait for the application, over all jobs: sixteen of the longest results. Above it the oldest job loses its parts; its
result is read over HTTP all the same."""

OVER = frozenset({"succeeded", "failed", "cancelled", "expired"})


@frozen(match_args=False)
class JobPart:
    """A part of the result, as its worker said it. A higher attempt begins anew."""

    __match_args__ = ("attempt", "data")

    attempt: int
    _data: Any = field(repr=False)

    @property
    def data(self) -> Any:
        """A text that is to be joined with the others, any JSON value, or bytes.

        Raises:
            Unreadable: the worker sent what cannot be read here.
        """
        return readable(self._data)


@define(eq=False)
class ClientJob:
    """What is known of one job."""

    state: str = "queued"
    attempt: int = 0
    progress: Any = None
    """As `values.read` gives it."""
    said_last: bool = False
    """The worker's last message of it is here."""
    parts: deque[tuple[int, JobPart, int]] = field(factory=deque, repr=False)
    """(seq, part, bytes) of this attempt, not taken by the application."""

    @property
    def over(self) -> bool:
        """True when it has ended."""
        return self.said_last or self.state in OVER


class ClientJobs:
    """See the module."""

    __slots__ = ("_bytes", "_jobs")

    def __init__(self) -> None:
        self._jobs: dict[str, ClientJob] = {}
        self._bytes = 0

    def get(self, name: str) -> ClientJob:
        """Return what is known of a job, from now on if it is new."""
        job = self._jobs.get(name)
        if job is None:
            if len(self._jobs) >= KEPT_MAX:
                oldest = next((one for one, each in self._jobs.items() if each.over), next(iter(self._jobs)))
                self._drop(self._jobs.pop(oldest))
            job = self._jobs[name] = ClientJob()
        return job

    def _drop(self, job: ClientJob) -> None:
        self._bytes -= sum(size for _, _, size in job.parts)
        job.parts.clear()

    def message(self, name: str, message: Message, binary: bytes | None) -> None:
        """Take a message of a job's stream."""
        job, attempt = self.get(name), message.attempt or 1
        if attempt < job.attempt:
            return
        self._at(job, attempt)
        size = len(binary) if binary is not None else len(memoryview(message.data))
        if binary is not None or (bytes(message.data) not in (b"", b"null") and message.error is None):
            data = binary if binary is not None else read(message.data)
            job.parts.append((message.seq, JobPart(attempt, data), size))
            self._bytes += size
        for each in list(self._jobs.values()):
            if self._bytes <= PARTS_BYTES_MAX:
                break
            self._drop(each)
        job.said_last = job.said_last or message.end

    def _at(self, job: ClientJob, attempt: int) -> None:
        if attempt > job.attempt:
            self._drop(job)
            job.attempt, job.said_last = attempt, False

    def state(self, told: JobStateChanged | JobSummary) -> None:
        """Take what signald tells of a job. An end is never taken back."""
        job = self.get(told.job)
        if job.state in OVER:
            return
        self._at(job, told.attempt)
        job.state = told.state
        if isinstance(told, JobStateChanged) and isinstance(told.progress, Raw):
            job.progress = read(told.progress)

    def take(self, job: ClientJob) -> JobPart | None:
        """Hand the next part to the application, or None."""
        if not job.parts:
            return None
        _, part, size = job.parts.popleft()
        self._bytes -= size
        return part
