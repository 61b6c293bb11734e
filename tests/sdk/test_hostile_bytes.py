"""Bytes that are no WebSocket, or a broken one, from the other end of a party's connection."""

import base64
import hashlib
from contextlib import suppress

import pytest
import trio
import trio.testing

from signald.sdk import trio_carrier as carriers
from signald.sdk.dialing import DialFailed
from signald.sdk.network import CarrierClosed
from signald.sdk.trio_carrier import WebSocketCarrier, over_stream


def answer(request: bytes) -> bytes:
    """Return the right answer to a handshake."""
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: signald.v1\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


HANDSHAKES = {
    "nothing": b"",
    "noise": bytes(range(256)) * 10,
    "no line": b"x" * 100_000,
    "endless header": b"HTTP/1.1 101 X\r\n" + b"a: b\r\n" * 20_000,
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "no upgrade": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "endless refusal": b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 1000,
    "odd retry": b"HTTP/1.1 503 X\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n",
    "no accept": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
}
FRAMES = {
    "noise": bytes(range(255, 0, -1)) * 10,
    "a masked frame": b"\x81\x82\x00\x00\x00\x00hi",
    "reserved bits": b"\xf1\x02hi",
    "an unknown opcode": b"\x83\x02hi",
    "text that is not UTF-8": b"\x81\x02\xff\xfe",
    "a fragment of nothing": b"\x80\x02hi",
    "a long ping": b"\x89\x7e\x00\xff" + b"x" * 255,
    "a fragmented ping": b"\x09\x02hi",
    "a close of one byte": b"\x88\x01x",
    "a close with a code that is none": b"\x88\x02\x00\x01",
    "a close whose reason is not UTF-8": b"\x88\x04\x03\xe8\xff\xfe",
    "a length of 2^63": b"\x82\x7f\x80" + b"\x00" * 7,
    "more than a message may have": b"\x82\x7f" + (30 * 1024 * 1024).to_bytes(8, "big") + b"x" * (21 * 1024 * 1024),
    "an end in the middle": b"\x81\x7e\xff\xff" + b"x" * 10,
}


async def closing(carrier: WebSocketCarrier) -> Exception:
    """Read until the carrier is closed; return how it says so."""
    try:
        while True:
            await carrier.receive()
    except CarrierClosed as closed:
        return closed


async def end_of(stood: bool, said: bytes) -> Exception:
    """Let a party meet these bytes; return how that ended."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await theirs.receive_some(65536)
        if stood:
            await theirs.send_all(answer(request))
        await theirs.send_all(said)
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            with trio.fail_after(60):
                async with over_stream(ours, "ws://h/v1/client") as carrier:
                    ended: Exception = await closing(carrier)
        except Exception as error:
            ended = error
        nursery.cancel_scope.cancel(reason="over")
    return ended


@pytest.mark.parametrize("name", HANDSHAKES)
def test_an_answer_that_is_none_fails_the_dial(name: str) -> None:
    """Whatever it is, and however long: `DialFailed`."""
    ended = trio.run(end_of, False, HANDSHAKES[name], clock=trio.testing.MockClock(autojump_threshold=0))
    assert type(ended) is DialFailed


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_are_none_close_the_carrier(name: str) -> None:
    """Whatever they are: `CarrierClosed` without a code, after which the core opens another connection."""
    ended = trio.run(end_of, True, FRAMES[name], clock=trio.testing.MockClock(autojump_threshold=0))
    assert type(ended) is CarrierClosed
    assert ended.code is None


def test_pongs_that_are_not_read_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that pings and reads nothing is cut before its pongs fill the memory."""
    monkeypatch.setattr(carriers, "_PENDING_MAX", 10_000)

    async def main() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()

        async def serve() -> None:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await theirs.receive_some(65536)
            await theirs.send_all(answer(request))
            for _ in range(200):
                await theirs.send_all((b"\x89\x7d" + b"x" * 125) * 100)

        async def serve_until_cut() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await serve()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_until_cut)
            async with over_stream(ours, "ws://h/v1/client") as carrier:
                with pytest.raises(CarrierClosed):
                    await carrier.receive()
            nursery.cancel_scope.cancel(reason="over")
            assert trio.current_time() < 8  # well before the write is late

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
