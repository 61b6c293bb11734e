"""Bodies of requests: bounded each by its route, and all that are kept in memory together.

A handler reads a body whole (`read_body`) or piece by piece (`pieces_of`). While it works on a piece, the socket is not read, but for the
one piece of the connection's queue: the sender waits.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from signald.http.api.requests import RequestCounts
from signald.http.api.turns import Turns
from signald.http.problem_details import HttpProblem

PIECE_BYTES = 32_768
"""Of a body that passes through: two reads of the socket. Each body holds up to three of them, so twenty uploads 2 MiB."""


def too_large(bytes_max: int) -> HttpProblem:
    """Return the problem of a body beyond its bound."""
    return HttpProblem(413, "too-large", f"the body may have {bytes_max} bytes")


def declared_length(scope: Scope) -> int:
    """Return the Content-Length of a request; 0 when it has none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else 1 << 62
    return 0


def bounded(receive: Receive, bytes_max: int, counts: RequestCounts) -> Receive:
    """Return a `receive` that raises the 413 when the body is larger than it declared, or declared nothing."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > bytes_max:
            counts.refused["body"] += 1
            raise too_large(bytes_max)
        return message

    return counted


async def read_body(request: Request) -> bytes:
    """Return the whole body, which counts in the budget until the request is over.

    Raises HttpProblem: 413 beyond the route's bound, 503 beyond the budget of all; ClientDisconnect.
    """
    pieces = []
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            # The route's bound is applied by `receive`; here it is the total of all requests.
            _hold(request, len(piece))
            pieces.append(piece)
    return b"".join(pieces)


async def pieces_of(request: Request) -> AsyncGenerator[bytes]:
    """Go through the body in pieces of at most `PIECE_BYTES`. One piece counts in the budget until the request is over.

    Raises HttpProblem as `read_body`; ClientDisconnect when the body ends before it is whole.
    """
    _hold(request, PIECE_BYTES)
    gathered = bytearray()
    turns: Turns = request.app.state.turns
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            await turns.wait()
            gathered += piece
            while len(gathered) >= PIECE_BYTES:
                with memoryview(gathered) as view:
                    whole = bytes(view[:PIECE_BYTES])
                yield whole
                del gathered[:PIECE_BYTES]
    if gathered:
        yield bytes(gathered)


def _hold(request: Request, size: int) -> None:
    """Count `size` bytes that the request makes the node keep. Raises HttpProblem 503 beyond the budget of all."""
    counts: RequestCounts = request.app.state.counts
    if counts.bodies_held + size > request.app.state.settings().bodies_bytes_max:
        counts.refused["bodies"] += 1
        raise HttpProblem(503, "busy", "too many bodies are being received").with_headers(retry_after="1")
    counts.bodies_held += size
    request.state.held_bytes = getattr(request.state, "held_bytes", 0) + size
