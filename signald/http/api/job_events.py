"""The events of a job: what its worker says, as server-sent events that a reader can go on with at any node.

    retry: 1000                                      when to come again, should the stream end early

    event: message                                   each piece, `id` its seq
    id: 7
    data: {"seq":7,"attempt":1,"data":"Hello"}

    event: end                                       the job as GET shows it
    id: end
    data: {"job":"j_…","state":"succeeded",…}

A browser's `EventSource` gives up for ever on any other status than 200. So a node that drains, has no place, or cannot read the store
answers 200 with `retry`, and ends; a reader that has the end is told 204, the one status that stops it on purpose.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec
import trio
from msgspec import Struct
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from signald.core.callers import Access
from signald.errors import StoreUnavailable
from signald.http.api.job_views import JobRefused, Piece, ShownJob
from signald.ids import SessionId

EVENTS_MEDIA = "text/event-stream"

END = "end"
"""The `id` of the last event; every other one is a number."""

RETRY_MS = 1000

POLL_S, POLL_MAX_S = 0.1, 1.0
"""How long a stream waits for the store to have more: a new piece is shown within a second, and a quiet job costs a read a second."""

KEEPALIVE_S = 15.0
"""After so much silence a comment is sent: proxies cut what is silent for a minute. Reads that the store is slow to answer count."""

PIECES_MAX = 64
"""Pieces of one read."""


class Follow(Protocol):
    """What a stream of events asks of the service. Raises JobRefused and StoreUnavailable."""

    async def pieces(
        self, session: SessionId, n: int, access: Access, after: int, limit: int
    ) -> tuple[bool, Sequence[Piece]]:
        """Return whether the job has ended, and pieces of it with a seq above `after`."""

    async def read(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Show the job."""

    def stream_begins(self) -> bool:
        """Take a place for a stream of events; False when there is none."""

    def stream_ends(self) -> None:
        """Give the place back."""


def _event(kind: str, name: str, body: Struct) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), name.encode(), msgspec.json.encode(body))


async def events_answer(
    jobs: Follow, session: SessionId, n: int, access: Access, after: str, draining: trio.Event
) -> Response:
    """Return the answer to a reader whose last event was `after`. Raises JobRefused."""
    if after == END:
        return Response(status_code=204)
    last = int(after) if after.isascii() and after.isdigit() and len(after) < 17 else 0
    retry = b"retry: %d\n\n" % RETRY_MS
    if draining.is_set() or not jobs.stream_begins():
        return Response(retry, media_type=EVENTS_MEDIA)
    try:
        over, pieces = await jobs.pieces(session, n, access, last, PIECES_MAX)
    except StoreUnavailable:
        jobs.stream_ends()
        return Response(retry, media_type=EVENTS_MEDIA)
    except BaseException:
        jobs.stream_ends()
        raise

    events = _follow(jobs, session, n, access, last, (over, pieces), draining)
    return _Events(events, jobs.stream_ends)


class _Events(StreamingResponse):
    """An answer of events; its generator and its place end with it, however it ends."""

    def __init__(self, events: AsyncGenerator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(events, media_type=EVENTS_MEDIA, headers={"x-accel-buffering": "no"})
        self._events = events
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def _follow(
    jobs: Follow,
    session: SessionId,
    n: int,
    access: Access,
    last: int,
    read: tuple[bool, Sequence[Piece]],
    draining: trio.Event,
) -> AsyncGenerator[bytes]:
    over, pieces = read
    pause_s = POLL_S
    yield b"retry: %d\n\n" % RETRY_MS
    said_at = trio.current_time()
    while True:
        for piece in pieces:
            last = max(last, piece.seq)
            yield _event("message", str(piece.seq), piece)
        try:
            if not pieces and over:
                yield _event("end", END, await jobs.read(session, n, access))
                return
            if draining.is_set():
                return
            if pieces:
                pause_s, said_at = POLL_S, trio.current_time()
            else:
                with trio.move_on_after(pause_s):
                    await draining.wait()
                pause_s = min(POLL_MAX_S, pause_s * 1.5)
                if trio.current_time() - said_at >= KEEPALIVE_S:
                    said_at = trio.current_time()
                    yield b":\n\n"
            over, pieces = await jobs.pieces(session, n, access, last, PIECES_MAX)
        except (JobRefused, StoreUnavailable):
            return  # it comes again, and is told
