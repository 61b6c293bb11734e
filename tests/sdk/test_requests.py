"""One request of a client over HTTP: whatever the other side does, there is an answer or `NoAnswer`, in time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import pytest
import trio
import trio.testing

from signald.sdk.api_core import Answer, NoAnswer, origin
from signald.sdk.requests import ANSWER_BYTES_MAX, PIECE_BYTES, Body, Bytes, Pieces, ask

URL = "ws://user:secret@h:81/v1/client"


def asked(
    said: list[bytes], *, close: bool = True, body: Body | None = None, least: int = 2
) -> tuple[Answer | Exception, bytes]:
    """Ask a server that says `said` after so many bytes of the body; return what came of it, and what the server has read."""
    read = bytearray()
    content = body or Bytes(b"{}")

    async def serve(stream: trio.StapledStream[Any, Any]) -> None:
        while len(read.partition(b"\r\n\r\n")[2]) < least:
            read.extend(await stream.receive_some(65536))
        for part in said:
            await stream.send_all(part)
        if close:
            await stream.send_eof()

    async def main() -> Answer | Exception:
        async with trio.open_nursery() as nursery:

            async def opened(_url: str, _context: SSLContext | None) -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(serve, theirs)
                return ours

            headers = {"authorization": "Bearer t"}
            try:
                return await ask(opened, origin(URL), "POST", "/v1/jobs", headers=headers, body=content, timeout_s=5)
            except (NoAnswer, OSError) as error:
                return error
            finally:
                nursery.cancel_scope.cancel(reason="over")
        raise AssertionError

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)), bytes(read)


def test_an_answer_is_read_whole() -> None:
    """In any pieces, with a length or in chunks; the URL's name and password are not said."""
    answer, read = asked(
        [b"HTTP/1.1 202 Acc", b"epted\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"]
    )
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.retry_after_s, answer.json()) == (202, b"{}", 7.0, {})
    assert b"host: h:81\r\n" in read.lower()
    assert b"secret" not in read
    assert read.endswith(b"content-length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    "said",
    [
        [], [b"\x00\xff\r\n\r\n"], [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"], [b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000], [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000_000] * 22],
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 400_000], [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
    ],
    ids=lambda said: str(said)[:40],
)  # fmt: skip
def test_no_answer_is_an_error(said: list[bytes]) -> None:
    """Nothing, bytes that are none of HTTP, a part, and one without an end."""
    answer, _ = asked(said)
    assert isinstance(answer, NoAnswer)
    assert 16 * 1024 * 1024 < ANSWER_BYTES_MAX < 22_000_000


def test_silence_ends() -> None:
    """A server that says nothing more costs the time of one request."""
    answer, _ = asked([b"HTTP/1.1 200 OK\r\n"], close=False)
    assert isinstance(answer, NoAnswer)
    assert "within 5 s" in str(answer)


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b"\xff", b"1e999", b"{"])
def test_a_body_that_is_no_object_is_an_empty_one(body: bytes) -> None:
    """What a proxy says for itself is no problem document."""
    assert Answer(502, {"retry-after": "1e9"}, body).json() == {}
    assert Answer(502, {"retry-after": "1e9"}, body).retry_after_s is None


class Endless:
    """A body that goes on and on; a node that refuses it does not read it to its end."""

    length = 1 << 40

    def __init__(self, breaks_after: int = 1 << 30) -> None:
        self._breaks_after = breaks_after

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[Pieces]:
        """Yield it."""
        count = 0

        async def piece() -> bytes:
            nonlocal count
            count += 1
            if count > self._breaks_after:
                raise FileNotFoundError("the file is gone")
            await trio.lowlevel.checkpoint()
            return bytes(PIECE_BYTES)

        yield piece


REFUSAL = b'HTTP/1.1 413 Too Large\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"type":"x#too-long"'


@pytest.mark.parametrize("close", [True, False])
def test_a_refusal_in_the_middle_of_a_body_is_heard(close: bool) -> None:
    """A node that does not want the rest answers at once: the answer counts, and the rest is not written."""
    answer, read = asked([REFUSAL[:30], REFUSAL[30:]], close=close, body=Endless(), least=50_000)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (413, REFUSAL[-20:])
    assert len(read) < 1_000_000


def test_a_refusal_whose_words_are_lost_counts_by_its_status() -> None:
    """A connection with a body that nothing reads is reset by the system, and the end of the answer goes with it."""
    answer, _ = asked([REFUSAL[:-5]], body=Endless(), least=20_000)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (413, b"")
    answer, _ = asked([REFUSAL[:-5].replace(b"413", b"201")], body=Endless(), least=20_000)
    assert isinstance(answer, NoAnswer)


def test_a_body_that_cannot_be_read_is_the_callers_matter() -> None:
    """The error of the file comes out as it is, and nothing waits for the answer of a node that waits for the rest."""
    answer, _ = asked([], close=False, body=Endless(breaks_after=3))
    assert isinstance(answer, FileNotFoundError)
    answer, read = asked([b"HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n"], body=Bytes(bytes(100_000)), least=100_000)
    assert isinstance(answer, Answer)
    assert read.count(0) == 100_000
