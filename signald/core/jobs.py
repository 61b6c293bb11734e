"""A job: its states, their transitions, its attempts, its deadline and its end.

Theory of operation. A job is stored before its creator is answered, and has one end: the first end that is stored holds, because no
state that is an end has a transition. The store takes each step in `Rows` or in a script; what the step decides stands here.

*Attempts.* An attempt begins when the job is handed to a worker, and goes on when that worker comes back. When the session is given to
a worker again, an attempt that was handed out is over: the next one has a higher number. Only the loss of a worker makes an attempt
count as failed.

*Time.* Nothing runs in the store: each step that looks at a job first lets the time pass for it (`overdue`). So a job that nothing
has looked at ends when it is next looked at, and shows that end to whatever looks. The nodes whose clocks say the time differ by a few
milliseconds. So a job is never shown to start before its creation, or to end before its start.
"""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from signald.core.transitions import step
from signald.wire.messages import CancelReason, JobState

State = JobState
STATES: tuple[State, ...] = ("queued", "running", "succeeded", "failed", "cancelled", "expired")
ENDS: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "expired"})


class JobEvent(Enum):
    """What happens to a job."""

    HAND_OUT = "hand_out"
    """It is given to a worker."""
    REJECT = "reject"
    """It would be given to a worker that does not take its kind."""
    COMPLETE = "complete"
    """Its worker has said the last piece of its result."""
    FAIL = "fail"
    """Its worker has said that it failed, its result is too big, or too many workers were lost with it."""
    CANCEL = "cancel"
    """Its creator wants it no more and its worker has ended it or has had the time to, or its session has ended."""
    EXPIRE = "expire"
    """Its deadline has come."""


_E = JobEvent

JOB: Mapping[tuple[State, JobEvent], State] = {
    ("queued", _E.HAND_OUT): "running",
    ("queued", _E.REJECT): "failed",
    ("queued", _E.COMPLETE): "succeeded",  # a store that has lost its tail does not know that it was handed out
    ("queued", _E.FAIL): "failed",
    ("queued", _E.CANCEL): "cancelled",
    ("queued", _E.EXPIRE): "expired",
    ("running", _E.HAND_OUT): "running",
    ("running", _E.REJECT): "failed",
    ("running", _E.COMPLETE): "succeeded",
    ("running", _E.FAIL): "failed",
    ("running", _E.CANCEL): "cancelled",
    ("running", _E.EXPIRE): "expired",
}
"""(state, event) → next state. A state that is an end has no row."""

OF_OUTCOME: Mapping[str, JobEvent] = {
    "complete": _E.COMPLETE,
    "failed": _E.FAIL,
    "cancelled": _E.CANCEL,
    "interrupted": _E.FAIL,
}
"""The outcome of a stream → what its last piece does to the job of the same id."""

KIND_NOT_TAKEN = b'{"code":"kind_not_taken","message":"the worker of the session takes no jobs of this kind"}'
WORKER_LOST = b'{"code":"worker_lost","message":"too many workers were lost with this job"}'
RESULT_TOO_BIG = b'{"code":"result_too_big","message":"the result is larger than jobs.result_bytes_max"}'


class Job(Struct, array_like=True, frozen=True, gc=False):
    """A job of a session as it is kept, without its input and its pieces. Times are milliseconds since 1970; 0: not, or none.

    A field that is added stands last, with the meaning of its absence as its default.
    """

    n: int
    """Its number in the session, from 1."""
    kind: str
    content_type: str
    """Of its input; "": JSON."""
    trace: str
    nonce: str
    """Of the request that made it: the same request again is no replay."""
    key: bytes
    """Digest of its idempotency key."""
    payload: bytes
    """Digest of what the key was used for."""
    created_ms: int
    deadline_ms: int
    keep_ms: int
    """For how long it is kept after its end."""
    result_bytes_max: int
    input_bytes: int
    state: State = "queued"
    attempt: int = 0
    handed: int = 0
    """1 when the attempt was handed out."""
    failures: int = 0
    progress: bytes = b""
    error: bytes = b""
    """JSON."""
    started_ms: int = 0
    ended_ms: int = 0
    cancel_ms: int = 0
    """Until when its worker may end it itself, after its creator has asked for that; 0: it has not."""
    folded: int = 0
    """1 when the pieces of its attempt are pieces of one text."""
    said: int = 0
    """The attempt of the pieces that are kept; 0: none was said."""
    first: int = 1
    """The number of the first piece that is kept: those of earlier attempts are dropped."""
    pieces: int = 0
    """The number of the last piece."""
    size: int = 0
    """The bytes of the pieces that are kept."""
    changed: int = 0
    """`Head.jobs` at its last change that a party may see."""
    behind: int = 0
    """`down_last` at that change: the client is told of it behind that message."""
    place: int = 0
    """Its place among the ended jobs of the session, in the order of their ends; 0: it has not ended."""

    @property
    def over(self) -> bool:
        """True when it has ended."""
        return self.state in ENDS

    def gone(self, now_ms: int) -> bool:
        """Tell whether it is kept no longer."""
        return self.over and self.ended_ms + self.keep_ms <= now_ms

    @property
    def due_ms(self) -> int:
        """When time ends it, if nothing else does; 0: never."""
        dues = [due for due in (self.deadline_ms, self.cancel_ms) if due]
        return min(dues) if dues and not self.over else 0

    def overdue(self, now_ms: int) -> JobEvent | None:
        """Return how time has ended it by `now_ms`, or None. Of its deadline and its cancellation, the earlier one counts."""
        if self.over or not 0 < self.due_ms <= now_ms:
            return None
        return _E.CANCEL if self.due_ms == self.cancel_ms != self.deadline_ms else _E.EXPIRE

    @property
    def cancel_reason(self) -> CancelReason:
        """The reason that a worker is told which works on it without need."""
        return "deadline" if self.state == "expired" else "requested"

    def end(self, event: JobEvent, now_ms: int, place: int, error: bytes = b"") -> "Job":
        """Return it as `event` ends it. Raises ImpossibleTransition when it has ended before."""
        ended_ms = max(now_ms, self.created_ms, self.started_ms)
        return replace(
            self, state=step(JOB, self.state, event), ended_ms=ended_ms, place=place, error=error, cancel_ms=0
        )

    def hand_out(self, now_ms: int) -> "Job":
        """Return it as it is once a worker has it."""
        state = step(JOB, self.state, _E.HAND_OUT)
        started_ms = self.started_ms or max(now_ms, self.created_ms)
        return replace(self, state=state, attempt=max(1, self.attempt), handed=1, started_ms=started_ms)

    def move(self) -> "Job":
        """Return it as its session is given to a worker again: an attempt that was handed out is over."""
        return replace(self, attempt=self.attempt + 1, handed=0) if self.handed else self

    def keep_piece(self, attempt: int, size: int, *, folded: bool) -> "Job":
        """Return it with one more piece of `size` bytes. The first piece of a higher attempt takes the place of all before it."""
        first, kept, was_folded = self.first, self.size, self.folded
        if attempt > self.said:
            first, kept, was_folded = self.pieces + 1, 0, 0
        return replace(
            self,
            said=attempt,
            first=first,
            pieces=self.pieces + 1,
            size=kept + size,
            folded=int(folded or was_folded == 1),
        )


def takes(kinds: tuple[str, ...], kind: str) -> bool:
    """Tell whether a worker that takes `kinds` takes `kind`; `*` is every kind."""
    return "*" in kinds or kind in kinds
