"""The section `[jobs]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class JobsConfig:
    """Jobs: their bounds, and how long they are kept."""

    in_flight_max: int = key(
        100,
        "Unfinished jobs of one session; one more is answered 429. A client that waits for a hundred results waits for its worker.",
        unit="jobs",
        at_least=1,
        at_most=1000,
        reload=True,
    )
    input_bytes_max: int = key(
        0,
        "Longest input of a job; a longer one is answered 413. It travels to its worker in one message, so it is never more than "
        "limits.message_bytes_max less 1 KiB, and 0 is as much as that.",
        unit="bytes",
        at_least=0,
        reload=True,
    )
    result_bytes_max: int = key(
        1_048_576,
        "All that is kept of the result of one job; with more the job is failed. Larger results are blobs.",
        unit="bytes",
        at_least=1024,
        at_most=16_777_216,
        reload=True,
    )
    keep_s: float = key(
        3600.0,
        "How long a job that has ended is kept, with its result and its idempotency key, also beyond the end of its session. A program "
        "that retries for an hour makes one job.",
        unit="seconds",
        at_least=1,
        at_most=604_800,
        reload=True,
    )
    failures_max: int = key(
        3,
        "Workers that may be lost with a job before it is failed. Two may be lost by chance; a job that kills workers costs three.",
        unit="workers",
        at_least=1,
        reload=True,
    )
    cancel_timeout_s: float = key(
        10.0,
        "How long a worker has to end a job itself that is cancelled by request.",
        unit="seconds",
        at_least=0,
        reload=True,
    )
