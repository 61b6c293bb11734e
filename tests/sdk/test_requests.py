"""One request of a client over HTTP: whatever the other side does, there is an answer or `NoAnswer`, in time."""

from ssl import SSLContext
from typing import Any

import pytest
import trio
import trio.testing

from signald.sdk.requests import ANSWER_BYTES_MAX, Answer, NoAnswer, ask, origin

URL = "ws://user:secret@h:81/v1/client"


def asked(said: list[bytes], *, close: bool = True) -> tuple[Answer | NoAnswer, bytes]:
    """Ask a server that says `said`; return what came of it, and what the server has read."""
    read = bytearray()

    async def serve(stream: trio.StapledStream[Any, Any]) -> None:
        read.extend(await stream.receive_some(65536))
        for part in said:
            await stream.send_all(part)
        if close:
            await stream.send_eof()

    async def main() -> Answer | NoAnswer:
        async with trio.open_nursery() as nursery:

            async def opened(_url: str, _context: SSLContext | None) -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(serve, theirs)
                return ours

            headers = {"authorization": "Bearer t"}
            try:
                return await ask(opened, origin(URL), "POST", "/v1/jobs", headers=headers, body=b"{}", timeout_s=5)
            except NoAnswer as error:
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
