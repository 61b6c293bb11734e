"""How the refusals of the service become problem documents. No operation of the service knows HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

from signald.errors import OperationRefused, RefusedBecause, StoreUnavailable
from signald.http.problem_details import HttpProblem

STATUSES: dict[RefusedBecause, int] = {
    "invalid": 400,
    "forbidden": 403,
    "unknown": 404,
    "state": 409,
    "share": 429,
    "large": 413,
    "full": 503,
    "reused": 422,
}
"""The status of an `OperationRefused`."""

RETRY_S = 1
"""When a request is worth repeating that met a store without an answer, or too many sessions: a store that fails over needs a few
seconds, and sessions end every second."""


@contextmanager
def as_problems() -> Iterator[None]:
    """Within the block, a refusal and a store that does not answer become an HttpProblem."""
    try:
        yield
    except OperationRefused as error:
        problem = HttpProblem(STATUSES[error.because], error.kind, str(error), **error.members)
        raise problem.with_headers(retry_after=str(RETRY_S)) if problem.status in (409, 429, 503) else problem from None
    except StoreUnavailable as error:
        problem = HttpProblem(503, "store-unavailable", str(error))
        raise problem.with_headers(retry_after=str(RETRY_S)) from None
