"""Errors of the HTTP API as RFC 9457 problem details: `application/problem+json`."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

STATUS_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request not complete in time",
    409: "Conflict",
    410: "Kept no longer",
    412: "Not the bytes that were meant",
    413: "Too large",
    414: "Request line too long",
    415: "Content type not taken",
    416: "No byte of that range",
    422: "The request cannot be carried out",
    426: "Upgrade required",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    501: "Not available",
    503: "Not available now",
    505: "HTTP version not spoken",
}


KINDS = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    414: "too-long",
    426: "upgrade-required",
    431: "too-long",
    501: "transfer-coding",
    505: "version",
}
"""The word for each status that no handler gives, where the status alone says what is wrong. Any other is `http`."""


class HttpProblem(Exception):
    """A request whose answer is a problem document.

    `kind` is a stable word that programs may compare; `detail` is a sentence for a reader. Neither holds a secret. `members` stand
    in the document, such as `errors`: a list of {"field", "message"}.
    """

    headers: Mapping[str, str] = {}
    """Headers of the answer, beside those of every problem."""

    def __init__(self, status: int, kind: str, detail: str, **members: object) -> None:
        super().__init__(f"{status} {kind}: {detail}")
        self.status = status
        self.kind = kind
        self.detail = detail
        self.members = members

    def with_headers(self, **headers: str) -> "HttpProblem":
        """Give the answer `headers` as well, whose names are written with `_` for `-`; return the problem itself."""
        self.headers = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self

    def response(self) -> JSONResponse:
        """The answer."""
        body = {
            "type": f"urn:signald:problem:{self.kind}",
            "title": STATUS_TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        headers = {"cache-control": "no-store"}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        headers.update(self.headers)
        return JSONResponse(body, self.status, headers=headers, media_type="application/problem+json")


async def answer_problem(_: Request, error: Exception) -> Response:
    """Starlette's handler for `HttpProblem`."""
    assert isinstance(error, HttpProblem)
    return error.response()


async def answer_http_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for its own refusals: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    return problem_of(error).response()


def problem_of(error: HTTPException) -> HttpProblem:
    """Return the problem of a refusal of Starlette's own."""
    problem = HttpProblem(error.status_code, KINDS.get(error.status_code, "http"), str(error.detail))
    problem.headers = error.headers or {}
    return problem
