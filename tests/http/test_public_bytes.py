"""Hostile bytes on the public listener: whatever comes, answers are well formed, nothing fails, and other peers are served."""

import random
import re
from itertools import takewhile

import structlog.testing
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.http.publicly import GET, public

REQUESTS = [
    GET,
    b"GET /hello?a=b%20c HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
    b"HEAD /hello HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /size HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\ntrailer: z\r\n\r\n",
    b"POST /size HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /nowhere HTTP/1.0\r\n\r\n",
    b"GET /v1/client HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
]
SPICES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b"\xff", b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n",
    b"0\r\n\r\n", b"HTTP/1.1", b"ffffffffffffffffffff", b"-1", b"GET / ", b"%", b"host: b\r\n", b"connection: close\r\n", b"x" * 9000,
]  # fmt: skip
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n")


def mutated(seed: int) -> bytes:
    """Return one to three requests, of which up to four places are damaged."""
    chance = random.Random(seed)
    data = bytearray(b"".join(chance.choices(REQUESTS, k=chance.randint(1, 3))))
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + chance.randint(1, 4)] = b""
            case 1:
                data[at:at] = chance.choice(SPICES)
            case 2 if at < len(data):
                data[at] = chance.randrange(256)
            case _:
                data[at : at + 8] = data[at : at + 8] * 2
    return bytes(data)


async def answers_to(data: bytes, pieces: list[bytes]) -> list[bytes]:
    """Return the statuses that are answered, until the peer is let go or nothing more comes."""
    async with public() as port:
        with structlog.testing.capture_logs() as logs:
            peer = port.dial()
            for piece in pieces:
                try:
                    await peer.send(piece)
                except trio.BrokenResourceError:
                    break
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(200):
                await peer.ended()
        assert [line for line in logs if line["log_level"] in ("error", "critical")] == [], data
        assert (await port.dial("198.51.100.1").ask(GET)).status == 200
        return STATUS_LINE.findall(bytes(peer._buffer))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32))
@example(50177)
def test_damaged_requests_hurt_nobody_and_are_answered_alike_however_they_are_cut(seed: int) -> None:
    """The same bytes have the same answers in one segment and in many, no error is logged, and the next peer is served."""
    data = mutated(seed)
    chance = random.Random(seed + 1)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(1, 12)))
    pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if begin < end]

    async def both() -> None:
        whole, cut = await answers_to(data, [data]), await answers_to(data, pieces)
        # Bytes behind an early end may meet a connection that is closed; what was answered before is the same.
        alike = len([*takewhile(lambda pair: pair[0] == pair[1], zip(whole, cut, strict=False))])
        if alike < min(len(whole), len(cut)):
            # A refusal may come before the damage in its body does. Nothing is answered behind either of them.
            assert {len(whole), len(cut)} == {alike + 1}, (data, pieces)
            assert b"400" in {whole[-1], cut[-1]}, (data, pieces)
            assert {whole[-1][:1], cut[-1][:1]} == {b"4"}, (data, pieces)

    trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0))


def test_most_of_them_are_answered() -> None:
    """The damage leaves enough of a request for an answer: the property above compares something."""

    async def all_of_them() -> int:
        answered = 0
        for seed in range(20):
            data = mutated(seed)
            answered += bool(await answers_to(data, [data]))
        return answered

    assert trio.run(all_of_them, clock=trio.testing.MockClock(autojump_threshold=0)) > 12
