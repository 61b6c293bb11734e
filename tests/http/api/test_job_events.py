"""The events of a job as its reader gets them, with jobs of the test's own."""

from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise

import attrs
import pytest
import trio
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from signald.core.callers import Access
from signald.http.api.job_events import events_answer
from signald.http.api.job_views import Piece, ShownJob
from signald.ids import SessionId
from tests.http.publicly import HttpPeer, public
from tests.net.clients import simulated

ASK = b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n"


@attrs.define
class OneJob:
    """A job that says what the test puts there."""

    said: list[Piece] = attrs.field(factory=list)
    read_s: float = 0.0
    """What one read takes."""
    open: int = 0
    """Places that are taken."""

    async def pieces(
        self, session: SessionId, n: int, access: Access, after: int, limit: int
    ) -> tuple[bool, Sequence[Piece]]:
        """The pieces."""
        await trio.sleep(self.read_s)
        return False, [piece for piece in self.said if piece.seq > after][:limit]

    async def read(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Never asked for: the job does not end."""
        raise AssertionError

    def stream_begins(self) -> bool:
        """Take a place."""
        self.open += 1
        return True

    def stream_ends(self) -> None:
        """Give it back."""
        self.open -= 1

    async def follow(self, request: Request) -> Response:
        """Answer with its events."""
        return await events_answer(self, SessionId("s"), 1, Access(), "", request.app.state.draining)


async def _pieces_of(peer: HttpPeer, for_s: float) -> list[tuple[float, bytes]]:
    """Return what comes within `for_s`, and when."""
    began = trio.current_time()
    came: list[tuple[float, bytes]] = []
    with trio.move_on_after(for_s):
        while data := await peer.stream.receive_some(65536):
            came.append((trio.current_time() - began, bytes(data)))
    return came


@pytest.mark.parametrize("read_s", [0.0, 7.0])
@simulated
async def test_a_quiet_stream_says_a_comment(read_s: float) -> None:
    """Proxies cut what is silent for 90 s: there is a comment at least once in 60 s, also while the store is slow."""
    job = OneJob(read_s=read_s)
    async with public([Route("/events", job.follow)]) as port:
        peer = port.dial()
        await peer.send(ASK)
        came = await _pieces_of(peer, 600)
        comments = [at for at, data in came if b":\n\n" in data]
        assert max(after - before for before, after in pairwise([0.0, *comments, 600.0])) < 60
        await peer.stream.aclose()


@simulated
async def test_a_drain_ends_behind_a_whole_event() -> None:
    """All events that were read are sent whole, then the answer and its connection end."""
    job = OneJob()
    async with public([Route("/events", job.follow)]) as port:
        peer = port.dial()
        await peer.send(ASK)
        await trio.sleep(2)
        job.said = [Piece(seq, 1, Raw(b"1")) for seq in (1, 2, 3)]
        port.http.stop()
        answer = await peer.answer()
        blocks = answer.body.split(b"\n\n")
        assert [block.splitlines()[1] for block in blocks[1:-1]] == [b"id: 1", b"id: 2", b"id: 3"]
        assert blocks[-1] == b""
        assert await peer.ended() == b""
        assert job.open == 0


@simulated
async def test_a_stream_ends_with_its_reader() -> None:
    """When the reader goes in the middle of a write, the generator is closed and the place is free as soon as the answer is over."""
    job = OneJob(said=[Piece(1, 1, Raw(b"1"))])
    response = await events_answer(job, SessionId("s"), 1, Access(), "", trio.Event())
    gone = trio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            gone.set()
            await trio.sleep_forever()

    await response({"type": "http"}, receive, send)
    assert isinstance(response, StreamingResponse)
    assert isinstance(response.body_iterator, AsyncGenerator)
    assert job.open == 0
    with pytest.raises(StopAsyncIteration):
        await anext(response.body_iterator)
