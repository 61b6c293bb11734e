"""What jobs are over HTTP: as they are shown, as they are asked for, and why a request for one is refused."""

from typing import Annotated, Literal

import attrs
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.core.callers import Access
from signald.ids import SessionId
from signald.wire.messages import JobState


class ShownJob(Struct, frozen=True, omit_defaults=True):
    """A job. Times are RFC 3339 texts in UTC."""

    job: str
    session: str
    kind: str
    state: JobState
    attempt: Annotated[int, Meta(description="How often it was given to a worker, the present time included.")]
    created_at: str
    progress: Annotated[Raw, Meta(description="What its worker has said last.")] | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    result_url: Annotated[str, Meta(description="Where the bytes of the result are.")] | UnsetType = UNSET
    error: Annotated[Raw, Meta(description="An object with `code` and `message`.")] | UnsetType = UNSET
    started_at: str | UnsetType = UNSET
    ended_at: str | UnsetType = UNSET
    deadline_at: str | UnsetType = UNSET

    @property
    def over(self) -> bool:
        """True when it has ended."""
        return self.state not in ("queued", "running")


class ShownJobs(Struct, frozen=True, omit_defaults=True):
    """A page of the jobs of a session, the newest first."""

    jobs: list[ShownJob]
    next: Annotated[str, Meta(description="`after` of the next page; absent on the last one.")] | UnsetType = UNSET


class Piece(Struct, frozen=True, omit_defaults=True):
    """One message of the worker."""

    seq: int
    attempt: int
    data: Raw | UnsetType = UNSET
    data_b64: str | UnsetType = UNSET
    end: bool | UnsetType = UNSET
    outcome: str | UnsetType = UNSET
    blob: Annotated[str, Meta(description="The blob that it is about.")] | UnsetType = UNSET


class Event(Struct, frozen=True):
    """One server-sent event of a job."""

    event: Literal["message", "end"]
    id: Annotated[str, Meta(description="The seq of the message, or `end`.")]
    data: Annotated[str, Meta(description="JSON: a piece of the result, or behind `end` the job as GET shows it.")]


@attrs.frozen
class Submission:
    """A request for a job, as the service is asked to store it."""

    session: SessionId
    access: Access
    key: bytes
    """Digest of the idempotency key."""
    payload: bytes
    """Digest of all that the key is used for."""
    kind: str
    data: bytes = attrs.field(repr=False)
    content_type: str
    """Empty for JSON."""
    deadline_ms: int | None
    trace: str | None


@attrs.frozen
class Submitted:
    """A job that is stored."""

    first: ShownJob
    """As it was when it was stored."""
    now: ShownJob
    replayed: bool


@attrs.frozen
class Result:
    """The bytes of a result."""

    data: bytes = attrs.field(repr=False)
    content_type: str
    blob: str = ""
    """The blob that has them instead, if there is one."""


Refusal = Literal[
    "no_session", "no_job", "gone", "key_taken", "key_in_use", "too_big", "full", "unfinished", "no_result"
]


class JobRefused(Exception):
    """An operation on jobs is not carried out. `job`: the one it is about, where there is one."""

    def __init__(self, because: Refusal, job: ShownJob | None = None) -> None:
        super().__init__(because)
        self.because = because
        self.job = job
