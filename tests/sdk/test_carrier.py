"""Tests of one connection over trio-websocket: batched writes, deadlines, and ends that are noticed."""

from contextlib import suppress

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_server_stream

from signald.sdk import trio_carrier as carriers
from signald.sdk.dialing import DialFailed
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.trio_carrier import OneWriter, dial, over_stream
from tests.sdk.test_hostile_bytes import answer as right_answer

URL = "ws://signald.test/v1/client"


async def serve(nursery: trio.Nursery, stream: trio.abc.Stream) -> WebSocketConnection:
    """Accept one handshake."""
    request = await wrap_server_stream(nursery, stream)
    return await request.accept(subprotocol="signald.v1")


class Counting(trio.abc.Stream):
    """Counts what is written, and stops writing when told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.writes = 0
        self.stuck = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, or hang."""
        self.writes += 1
        if self.stuck:
            await trio.sleep_forever()
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Not used."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read."""
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self.stream.aclose()


async def test_frames_sent_together_leave_in_one_write(autojump_clock: trio.testing.MockClock) -> None:
    """Text and binary arrive as they are, and the stream is written once for all of them."""
    ours, theirs = trio.testing.memory_stream_pair()
    counting = Counting(theirs)
    async with trio.open_nursery() as nursery:
        server: list[WebSocketConnection] = []

        async def accept() -> None:
            server.append(await serve(nursery, ours))

        nursery.start_soon(accept)
        async with over_stream(counting, URL) as carrier:
            before = counting.writes
            await carrier.send([(True, '"ä"'.encode()), (False, b"\x00"), (True, b"1")])
            assert counting.writes == before + 1
            assert [await server[0].get_message() for _ in range(3)] == ['"ä"', b"\x00", "1"]
            await server[0].send_message("answer")
            assert await carrier.receive() == "answer"
        nursery.cancel_scope.cancel(reason="done")


async def test_a_write_that_hangs_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that does not read is given `write_s`; then sender and reader hear that it is over."""
    ours, theirs = trio.testing.memory_stream_pair()
    counting = Counting(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery, ours)
        before = trio.current_time()
        async with over_stream(counting, URL, Timing(write_s=3.0)) as carrier:
            counting.stuck = True
            with trio.fail_after(60), pytest.raises(CarrierClosed):
                await carrier.send([(True, b"1")])
        assert trio.current_time() - before == pytest.approx(3.0)
        nursery.cancel_scope.cancel(reason="done")


async def test_a_close_is_told_with_its_code_and_reason(autojump_clock: trio.testing.MockClock) -> None:
    """What the peer closed with is what the reader hears; a break is heard as None."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def accept_and_close() -> None:
            await (await serve(nursery, ours)).aclose(4409, "superseded")

        nursery.start_soon(accept_and_close)
        async with over_stream(theirs, URL) as carrier:
            with pytest.raises(CarrierClosed) as caught:
                await carrier.receive()
            assert (caught.value.code, caught.value.reason) == (4409, "superseded")
        nursery.cancel_scope.cancel(reason="done")


async def test_a_server_that_hangs_up_during_the_handshake_is_noticed_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """trio-websocket would wait for ever; a party that lost its node has no time for that."""
    ours, theirs = trio.testing.memory_stream_pair()
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.aclose)
        with pytest.raises(DialFailed):
            async with over_stream(theirs, URL):
                pass
    assert trio.current_time() == before


async def test_a_server_that_hangs_up_behind_the_request_is_noticed_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A proxy without a node takes the request, and answers nothing."""
    ours, theirs = trio.testing.memory_stream_pair()
    before = trio.current_time()

    async def hang_up() -> None:
        await ours.receive_some(65536)
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        with pytest.raises(DialFailed):
            async with over_stream(theirs, URL):
                pass
    assert trio.current_time() == before


async def test_an_answer_without_an_end_is_not_read(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page behind a refusal fills no memory, and costs no time."""
    monkeypatch.setattr(carriers, "_ANSWER_MAX", 10_000)
    ours, theirs = trio.testing.lockstep_stream_pair()
    sent = 0

    async def refuse() -> None:
        nonlocal sent
        await ours.receive_some(65536)
        await ours.send_all(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while sent < 200_000:
                await ours.send_all(b"1000\r\n" + bytes(4096) + b"\r\n")
                sent += 4096

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(DialFailed):
            async with over_stream(theirs, URL):
                pass
    assert sent < 20_000


@pytest.mark.parametrize("stands", [True, False])
async def test_a_stream_is_closed_behind_its_connection(autojump_clock: trio.testing.MockClock, stands: bool) -> None:
    """The other side reads its end, whether there was a handshake or not."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def answer() -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await ours.receive_some(65536)
        await ours.send_all(right_answer(request))

    async with trio.open_nursery() as nursery:
        if stands:
            nursery.start_soon(answer)
        with suppress(DialFailed):
            async with over_stream(theirs, URL):
                pass
    with trio.fail_after(60):
        while await ours.receive_some(65536):
            pass


async def test_a_server_that_never_answers_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """The handshake has its deadline."""
    _ours, theirs = trio.testing.memory_stream_pair()
    before = trio.current_time()
    with trio.fail_after(60), pytest.raises(DialFailed):
        async with over_stream(theirs, URL, Timing(connect_s=4.0)):
            pass
    assert trio.current_time() - before == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("status", "headers", "code", "hint"),
    [
        (401, [], 4401, None),
        (403, [], 4403, None),
        (503, [(b"Retry-After", b"7")], 1013, 7000),
        (503, [(b"Retry-After", b"soon")], None, None),
        (502, [], None, None),
    ],
)
async def test_a_refused_handshake_says_what_a_close_would(
    autojump_clock: trio.testing.MockClock, status: int, headers: list[tuple[bytes, bytes]], code: int, hint: int
) -> None:
    """HTTP statuses become the close codes that mean the same; Retry-After becomes a hint."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def refuse() -> None:
            request = await wrap_server_stream(nursery, ours)
            await request.reject(status, extra_headers=headers)

        nursery.start_soon(refuse)
        with pytest.raises(DialFailed) as caught:
            async with over_stream(theirs, URL):
                pass
        assert (caught.value.code, caught.value.retry_after_ms) == (code, hint)
        nursery.cancel_scope.cancel(reason="done")


async def test_a_server_without_our_subprotocol_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Something else answers at this address."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            request = await wrap_server_stream(nursery, ours)
            await request.accept()

        nursery.start_soon(accept)
        with pytest.raises(DialFailed, match="does not speak"):
            async with over_stream(theirs, URL):
                pass
        nursery.cancel_scope.cancel(reason="done")


async def test_a_sender_is_never_half_way(autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled sender cuts no frame: collecting does not block, and one task writes."""
    ours, theirs = trio.testing.memory_stream_pair()
    writer = OneWriter(theirs)
    with trio.CancelScope() as scope:
        scope.cancel(reason="the sender is cancelled")
        await writer.send_all(b"whole")
        await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write, 1.0)
        await writer.flushed()
        assert await ours.receive_some() == b"whole"
        nursery.cancel_scope.cancel(reason="done")


async def test_a_sender_on_a_broken_stream_waits_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """The end of the one task that writes is told to each task that waits for it."""
    _ours, theirs = trio.testing.memory_stream_pair()
    counting = Counting(theirs)
    counting.stuck = True
    writer = OneWriter(counting)
    await writer.send_all(b"never written")

    async def wait() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await writer.flushed()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            with pytest.raises(trio.BrokenResourceError):
                await writer.write(1.0)
        with pytest.raises(trio.BrokenResourceError):
            await writer.send_all(b"too late")


@pytest.mark.parametrize("url", [f"ws://{'a' * 64}", "ws://a..b", "ws://h:99999"])
async def test_a_host_that_is_no_name(url: str) -> None:
    """A target that no resolver can be asked for is a dial that fails, and ends no party."""
    with pytest.raises(DialFailed):
        async with dial(url, None, DEFAULT_TIMING):
            pass
