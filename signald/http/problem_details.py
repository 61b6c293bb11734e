"""Errors of the HTTP API as RFC 9457 problem details: `application/problem+json`."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

STATUS_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    422: "The request cannot be carried out",
    500: "Internal error",
    503: "The store does not answer",
}


class HttpProblem(Exception):
    """A request whose answer is a problem document.

    `kind` is a stable word that programs may compare; `detail` is a sentence for a reader. Neither holds a secret.
    """

    def __init__(self, status: int, kind: str, detail: str, **members: object) -> None:
        super().__init__(f"{status} {kind}: {detail}")
        self.status = status
        self.kind = kind
        self.detail = detail
        self.members = members

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
        return JSONResponse(body, self.status, headers=headers, media_type="application/problem+json")


async def answer_problem(_: Request, error: Exception) -> Response:
    """Starlette's handler for `HttpProblem`."""
    assert isinstance(error, HttpProblem)
    return error.response()


async def answer_http_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for its own refusals: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    return HttpProblem(error.status_code, "http", str(error.detail)).response()
