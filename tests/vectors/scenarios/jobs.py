"""Jobs at a worker, and as their client sees them."""

from typing import Any

from tests.vectors.scenarios.words import (
    Step,
    binary,
    call,
    closed,
    error,
    got,
    message,
    opened,
    reconnected,
    restored,
    talking,
    vector,
    wait,
    working,
)

JOB = "j_1_1"


def given(at: int, on: int = 1, attempt: int = 1, **fields: object) -> Step:
    """A job for the worker."""
    usual = {"session": "s_1", "job": JOB, "kind": "tts", "attempt": attempt, "data": {"text": "Hello"}}
    return got(at, on, "job", **{**usual, **fields})


def part(at: int, seq: int, data: object, on: int = 1, **fields: object) -> Step:
    """A message of the job for its client."""
    return message(at, on, seq, data, **{"stream": JOB, "attempt": 1, **fields})


def look(at: int) -> Step:
    """The client looks at the job."""
    return call(at, "job", job=JOB)


WORKER: dict[str, Any] = {"party": "worker", "jobs": ["tts"]}

JOBS = [
    vector(
        "a job is done",
        "Progress, and the result as the last message of its stream.",
        [
            working(),
            given(50, deadline_ms=9000, content_type="text/plain"),
            call(60, "job_progress", session="s_1", job=JOB, attempt=1, progress=50),
            call(70, "send", session="s_1", data="sound", stream=JOB, attempt=1, end=True, outcome="complete"),
            call(71, "job_ended", session="s_1", job=JOB, attempt=1, seq=1),
            call(80, "job_progress", session="s_1", job=JOB, attempt=1, progress=99),
            got(90, 1, "ack", session="s_1", seq=1),
            closed(100, 1, None),
            wait(500),
            opened(510, 2),
            reconnected(520, 2, {"s_1": 1}),
        ],
        **WORKER,
    ),
    vector(
        "a job through a break",
        "The opening message names it; its attempt is not given twice, and the last progress is said again.",
        [
            working(),
            given(50),
            call(60, "job_progress", session="s_1", job=JOB, attempt=1, progress={"percent": 10}),
            closed(100, 1, None),
            wait(500),
            opened(510, 2),
            reconnected(520, 2, {"s_1": 0}),
            given(530, 2),
            given(540, 2, attempt=2),
        ],
        **WORKER,
    ),
    vector(
        "a job with bytes",
        "Its data is the rest of a binary frame.",
        [working(), binary(50, 1, b"\x01\x02", "job", session="s_1", job=JOB, kind="tts", attempt=1)],
        **WORKER,
    ),
    vector(
        "a job is cancelled",
        "`requested` leaves it with the worker, another reason takes it away.",
        [
            working(),
            given(50),
            got(60, 1, "job_cancel", session="s_1", job=JOB, reason="requested"),
            closed(100, 1, None),
            wait(500),
            opened(510, 2),
            reconnected(520, 2, {"s_1": 0}),
            got(530, 2, "job_cancel", session="s_1", job=JOB, reason="deadline"),
            closed(9000, 2, None),
            wait(9500),
            opened(9510, 3),
        ],
        **WORKER,
    ),
    vector(
        "a job whose stream is over",
        "A piece was refused: the job is not this worker's any more.",
        [
            working(),
            given(50),
            call(60, "send", session="s_1", data="p", stream=JOB, attempt=1),
            error(70, 1, "stream_over", session="s_1", fatal=False, expected=1, stream=JOB),
            closed(100, 1, None),
            wait(500),
            opened(510, 2),
        ],
        **WORKER,
    ),
    vector(
        "a job of another session", "The connection is cut.", [working(), given(50, job="j_1_0"), wait(60)], **WORKER
    ),
    vector(
        "as the client sees it",
        "Its messages do not come out of the conversation; an end is never taken back.",
        [
            talking(),
            call(30, "read", count=9),
            got(40, 1, "job_state", job=JOB, state="running", attempt=1, progress={"percent": 10}),
            look(50),
            part(60, 1, "So"),
            part(61, 2, "und"),
            message(62, 1, 3, "a word"),
            look(70),
            part(80, 4, None, end=True, outcome="complete"),
            got(90, 1, "job_state", job=JOB, state="succeeded", attempt=1),
            got(91, 1, "job_state", job=JOB, state="running", attempt=2),
            look(100),
        ],
        jobs=True,
    ),
    vector(
        "a second attempt",
        "It begins anew.",
        [
            talking(),
            call(30, "read", count=9),
            part(60, 1, "half"),
            part(70, 2, "all", attempt=2, end=True),
            part(71, 3, "late"),
            look(80),
        ],
        jobs=True,
    ),
    vector(
        "jobs at a resume",
        "The answer lists them.",
        [
            talking(),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0, jobs=[{"job": JOB, "state": "failed", "attempt": 2}]),
            look(330),
        ],
        jobs=True,
    ),
]
