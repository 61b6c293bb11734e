"""One connection: batching, the bounds of its queue, its clock, and every way to end.

The transport is scripted here, so that each test says exactly what the network takes and when. Time is virtual.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
import trio.testing

from signald.net.connection import Connection
from signald.net.ending import CloseInfo, ConnectionClosed
from signald.net.frames import Message, encode_binary, encode_close, encode_ping, encode_pong, encode_text
from signald.net.handshake import Handshake
from signald.testing.websocket import close, frame, text
from tests.net.clients import simulated
from tests.net.settings import settings_of

HANDSHAKE = Handshake(
    path="/v1/client",
    route="/v1/client",
    headers=(),
    subprotocol="signald.v1",
    bearer="the-secret",
    origin=None,
    remainder=b"",
)


class ScriptedTransport:
    """A network that takes `allowance` bytes and then nothing until `take` is called."""

    def __init__(self) -> None:
        """Begin with a network that takes everything."""
        self.allowance: float = float("inf")
        self.writes: list[bytes] = []
        self.fin = False
        self.ended: str | None = None
        self._wake = trio.Event()
        self._inbound_out, self._inbound_in = trio.open_memory_channel[bytes](100)

    @property
    def written(self) -> bytes:
        """Everything the network took."""
        return b"".join(self.writes)

    def say(self, *chunks: bytes) -> None:
        """Let the peer's bytes arrive, one chunk per read."""
        for chunk in chunks:
            self._inbound_out.send_nowait(chunk)

    def take(self, allowance: float = float("inf")) -> None:
        """Let the network take so many bytes more."""
        self.allowance += allowance
        self._wake.set()
        self._wake = trio.Event()

    def send_nowait(self, data: bytes, /) -> int:
        self._check()
        sent = int(min(len(data), self.allowance))
        if sent:
            self.writes.append(bytes(data[:sent]))
            self.allowance -= sent
        return sent

    async def send(self, data: memoryview, /) -> int:
        while self.allowance <= 0:
            self._check()
            await self._wake.wait()
        return self.send_nowait(bytes(data))

    async def receive(self, most: int = 65536, /) -> bytes:
        self._check()
        try:
            return await self._inbound_in.receive()
        except trio.EndOfChannel:
            return b""

    def finish_writing(self) -> None:
        self.fin = True

    def close(self) -> None:
        self.ended = self.ended or "closed"
        self._inbound_in.close()
        self._wake.set()

    def abort(self) -> None:
        self.ended = self.ended or "reset"
        self.close()

    def _check(self) -> None:
        if self.ended:
            raise trio.ClosedResourceError


class Bench:
    """A connection, its transport and a reader that collects what it is given."""

    def __init__(self, connection: Connection, transport: ScriptedTransport, nursery: trio.Nursery) -> None:
        """Put `connection` on the bench."""
        self.connection = connection
        self.transport = transport
        self.nursery = nursery
        self.batches: list[list[Message]] = []
        self.reader_ended = trio.Event()

    @property
    def room(self) -> bool:
        """Say whether the connection has room, anew each time."""
        return self.connection.room

    def closing(self) -> bool:
        """Say whether an end has begun, anew each time."""
        return self.connection.closing

    def closed(self) -> CloseInfo | None:
        """Say how the connection ended, anew each time."""
        return self.connection.closed

    async def read(self) -> None:
        """Receive until the end."""
        try:
            while True:
                self.batches.append(await self.connection.receive())
        except ConnectionClosed:
            self.reader_ended.set()

    def start_reading(self) -> None:
        """Read in a task of its own."""
        self.nursery.start_soon(self.read)

    async def settle(self, *chunks: bytes) -> None:
        """Let bytes arrive, then everything happen that can without time passing."""
        self.transport.say(*chunks)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def bench(*, reading: bool = True, early: bytes = b"", **limits: float) -> AsyncIterator[Bench]:
    """Provide a connection with `limits`; at the end it is cut, and no task of it may be left."""
    transport = ScriptedTransport()
    handshake = Handshake(
        path="/v1/client",
        route="/v1/client",
        headers=(),
        subprotocol="signald.v1",
        bearer="the-secret",
        origin=None,
        remainder=early,
    )
    async with trio.open_nursery() as nursery:
        connection = Connection(
            transport,
            handshake,
            id=7,
            remote="192.0.2.1",
            settings=settings_of(**limits),
            spawn=nursery.start_soon,
        )
        under_test = Bench(connection, transport, nursery)
        if reading:
            under_test.start_reading()
        yield under_test
        connection.abort("the test is over")
        await trio.testing.wait_all_tasks_blocked()
        left = [task.name for task in nursery.child_tasks]
        nursery.cancel_scope.cancel(reason="the test is over")
    assert left == []
    assert transport.ended


class TestReceiving:
    """What `receive` returns."""

    @simulated
    async def test_one_read_is_one_batch(self) -> None:
        """All messages of one read come out of one `receive`, control frames left out."""
        async with bench() as net:
            await net.settle(text("a") + frame(9, b"?") + frame(2, b"b"), text("c"))
            assert net.batches == [[Message(True, b"a"), Message(False, b"b")], [Message(True, b"c")]]

    @simulated
    async def test_what_came_with_the_handshake_comes_first(self) -> None:
        """Frames sent together with the request are not lost."""
        async with bench(early=text("early")[:3]) as net:
            await net.settle(text("early")[3:] + text("late"))
            assert net.batches == [[Message(True, b"early"), Message(True, b"late")]]

    @simulated
    async def test_a_message_that_is_not_complete_is_kept_once(self) -> None:
        """What came is counted for its peer, so no second copy of it is kept while the rest is waited for."""
        async with bench() as net:
            part = text("x" * 60_000)[:30_000]
            before = sys.getrefcount(part)
            await net.settle(part)
            assert net.connection._decoder.held == len(part)
            assert sys.getrefcount(part) == before

    @simulated
    async def test_pings_of_one_read_are_answered_with_one_write(self) -> None:
        """Each gets its Pong, in order, at once."""
        async with bench() as net:
            await net.settle(frame(9, b"1") + frame(9, b"2"), frame(9, b"3"))
            assert net.transport.writes == [encode_pong(b"1") + encode_pong(b"2"), encode_pong(b"3")]

    @simulated
    async def test_what_a_handler_queued_goes_out_when_it_reads_again(self) -> None:
        """A handler that forgets to flush does not wait for an answer that still lies in the queue."""
        async with bench(reading=False) as net:
            net.connection.send_text(b"x")
            assert net.transport.writes == []
            net.start_reading()
            await net.settle()
            assert net.transport.writes == [encode_text(b"x")]

    @simulated
    async def test_answers_to_messages_before_a_close_go_out_before_ours(self) -> None:
        """The peer's Close is answered behind the answers to the messages that came with it."""
        async with bench(reading=False) as net:
            net.transport.say(text("q") + close(1000, b"bye"))
            assert await net.connection.receive() == [Message(True, b"q")]
            net.connection.send_text(b"a")
            with pytest.raises(ConnectionClosed) as raised:
                await net.connection.receive()
            assert raised.value.info == CloseInfo(1000, "bye", "remote")
            assert net.transport.written == encode_text(b"a") + encode_close(1000, "bye")
            assert net.transport.ended == "closed"

    @simulated
    async def test_receiving_after_the_end_says_how_it_ended(self) -> None:
        """Every `receive` after the end raises the same."""
        async with bench(reading=False) as net:
            net.connection.abort("gone")
            for _ in range(2):
                with pytest.raises(ConnectionClosed, match=r"1006 gone \(abort\)"):
                    await net.connection.receive()


class TestSending:
    """Queue and flush."""

    @simulated
    async def test_a_flush_is_one_write(self) -> None:
        """However many messages are queued, one system call takes them all, in order."""
        async with bench() as net:
            for number in range(100):
                net.connection.send_text(b"%d" % number)
                net.connection.send_binary(b"%d" % number)
            assert net.connection.queued_messages == 200
            net.connection.flush()
            assert len(net.transport.writes) == 1
            assert net.transport.written == b"".join(
                encode_text(b"%d" % number) + encode_binary(b"%d" % number) for number in range(100)
            )
            assert (net.connection.queued_bytes, net.connection.queued_messages) == (0, 0)
            assert net.nursery.child_tasks == {task for task in net.nursery.child_tasks if "read" in task.name}

    @simulated
    async def test_what_the_socket_does_not_take_is_written_later_in_order(self) -> None:
        """A short write leaves the rest to the writer task, behind which everything sent later waits its turn."""
        async with bench() as net:
            net.transport.allowance = 5
            net.connection.send_text(b"first")
            net.connection.flush()
            net.connection.send_text(b"second")
            net.connection.flush()
            await net.settle()
            assert net.transport.written == encode_text(b"first")[:5]
            assert net.connection.queued_bytes == 2 + 8
            assert net.connection.queued_messages == 2
            for _ in range(10):
                net.transport.take(1)
                await net.settle()
            assert net.transport.written == encode_text(b"first") + encode_text(b"second")
            assert (net.connection.queued_bytes, net.connection.queued_messages) == (0, 0)

    @simulated
    async def test_room_ends_at_the_bounds_and_is_told_again_at_half(self) -> None:
        """`room` falls at either bound; `on_room` is called once, from the writer, when half of both is free."""
        told: list[int] = []
        for size, messages_max, bytes_max in ((8, 4, 1000), (98, 1000, 400)):
            told.clear()
            async with bench(send_queue_messages_max=messages_max, send_queue_bytes_max=bytes_max) as net:
                net.connection.on_room = lambda: told.append(1)
                net.transport.allowance = 0
                for count in range(1, 5):
                    net.connection.send_binary(b"x" * size)
                    assert net.room == (count < 4)
                net.connection.send_binary(b"x" * size)
                net.transport.take(3 * (size + 2) - 1)  # the fourth and the fifth wait behind it
                await net.settle()
                assert (told, net.room) == ([], bytes_max == 400)
                net.transport.take(3 * (size + 2))
                await net.settle()
                assert (told, net.room) == ([1], True)

    @simulated
    async def test_frames_that_were_made_once_stand_in_order_with_others(self) -> None:
        """Whole frames count as the messages that they are, and are written between what was queued before and behind them."""
        whole = encode_text(b"one") + encode_binary(b"two")
        async with bench() as net:
            assert net.connection.send_frames(whole, 2)
            net.connection.flush()
            net.connection.send_text(b"before")
            assert net.connection.send_frames(whole, 2)
            net.connection.send_text(b"behind")
            assert net.connection.queued_messages == 4
            net.connection.flush()
            expected = encode_text(b"before") + whole + encode_text(b"behind")
            assert net.transport.writes == [whole, expected]
            net.transport.allowance = 3
            assert net.connection.send_frames(whole, 2)
            net.connection.flush()
            assert net.connection.send_frames(whole, 2)
            assert net.connection.queued_bytes == 2 * len(whole) - 3
            net.transport.take(1000)
            await net.settle()
            assert net.transport.written == whole + expected + whole + whole
            assert (net.connection.queued_bytes, net.connection.queued_messages) == (0, 0)

    @simulated
    async def test_frames_that_would_fill_the_queue_are_not_queued(self) -> None:
        """At either bound nothing of them is taken; the connection stays as it was."""
        whole = encode_text(b"x" * 98)
        for messages_max, bytes_max in ((4, 1000), (1000, 400)):
            async with bench(send_queue_messages_max=messages_max, send_queue_bytes_max=bytes_max) as net:
                net.transport.allowance = 0
                for _ in range(3):
                    assert net.connection.send_frames(whole, 1)
                    net.connection.flush()
                assert not net.connection.send_frames(whole, 1)
                assert (net.connection.queued_bytes, net.connection.queued_messages) == (300, 3)
                assert net.room
                assert not net.closing()

    @simulated
    async def test_a_queue_nobody_has_flushed_does_not_make_a_slow_consumer(self) -> None:
        """Reaching a bound flushes first: only what the network refuses counts against the peer."""
        async with bench(send_queue_messages_max=10) as net:
            for _ in range(1000):
                net.connection.send_text(b"x")
            assert not net.closing()
            assert net.connection.queued_messages < 10

    @simulated
    async def test_twice_the_bound_is_a_slow_consumer(self) -> None:
        """Beyond twice a bound the queue is dropped and a Close 4508 waits behind what is half written."""
        async with bench(send_queue_messages_max=10) as net:
            net.transport.allowance = 1
            net.connection.send_text(b"first")
            net.connection.flush()
            for _ in range(19):
                net.connection.send_text(b"x")
            assert not net.closing()
            net.connection.send_text(b"x")
            assert net.closing()
            net.transport.take()
            await net.settle()
            assert net.transport.written == encode_text(b"first") + encode_close(4508, "send queue overflow")
            assert net.transport.fin

    @simulated
    async def test_sending_after_an_end_has_begun_is_nothing(self) -> None:
        """Nothing follows a Close, and no handler has to ask first."""
        async with bench() as net:
            net.connection.close(1001, "away")
            net.connection.send_text(b"late")
            net.connection.send_binary(b"late")
            net.connection.flush()
            assert net.transport.written == encode_close(1001, "away")
            assert net.connection.queued_messages == 0

    @simulated
    async def test_an_on_room_that_raises_ends_its_connection_only(self) -> None:
        """What `on_room` raises is logged and closed with 1011; it does not reach the nursery."""

        def fail() -> None:
            raise RuntimeError("on_room failed")

        async with bench(send_queue_messages_max=2) as net:
            net.connection.on_room = fail
            net.transport.allowance = 1
            net.connection.send_text(b"1")
            net.connection.send_text(b"2")
            with structlog.testing.capture_logs() as logged:
                net.transport.take()
                await net.settle()
            assert [entry["event"] for entry in logged] == ["writer_failed"]
            assert net.transport.written.endswith(encode_close(1011, "internal error"))

    @simulated
    async def test_a_cancelled_writer_resets_the_tcp(self) -> None:
        """A frame that is half written can be continued by no later write: the TCP is reset."""
        async with bench() as net:
            writer = trio.CancelScope()

            def spawn(task: object) -> None:
                async def run() -> None:
                    with writer:
                        await task()  # type: ignore[operator]

                net.nursery.start_soon(run)

            net.connection._spawn = spawn
            net.transport.allowance = 3
            net.connection.send_text(b"cut in the middle")
            net.connection.flush()
            await net.settle()
            writer.cancel(reason="as a drain does at its end")
            await net.settle()
            assert net.closed() == CloseInfo(1006, "write cut", "abort")
            assert net.transport.ended == "reset"

    @simulated
    async def test_a_transport_that_breaks_on_writing_ends_the_connection(self) -> None:
        """A failing write is an end like any other; the reader learns of it."""
        async with bench() as net:
            net.transport.close()
            net.connection.send_text(b"x")
            net.connection.flush()
            assert net.closed() == CloseInfo(1006, "connection lost", "abort")
            await net.reader_ended.wait()

    @simulated
    @pytest.mark.parametrize(
        ("taken", "unsaid"),
        [(None, 1), (0, 1), (1, 0), (100, 0)],
        ids=["broken at once", "broken while it waits", "a part is out", "all is out"],
    )
    async def test_what_was_lost_before_anything_left_is_told(self, taken: int | None, unsaid: int) -> None:
        """`on_unsaid` is called once when the connection breaks before a byte has left, and not when one has."""
        told: list[int] = []
        async with bench() as net:
            net.connection.on_unsaid = lambda: told.append(1)
            if taken is None:
                net.transport.close()
            else:
                net.transport.allowance = taken
            net.connection.send_text(b"the first")
            net.connection.flush()
            await net.settle()
            net.transport.close()
            await net.reader_ended.wait()
            await net.settle()
            assert len(told) == unsaid

    @simulated
    async def test_what_a_reader_finds_lost_before_the_writers_first_turn_is_told(self) -> None:
        """The end that is found by reading leaves the writer nothing to try: nothing has left all the same."""
        told: list[int] = []
        async with bench() as net:
            net.connection.on_unsaid = lambda: told.append(1)
            net.transport.allowance = 0
            net.connection.send_text(b"the first")
            net.connection.flush()
            net.connection.abort("as a reader does")
            await net.settle()
            assert told == [1]

    @simulated
    async def test_a_write_that_was_cancelled_is_not_told_as_unsaid(self) -> None:
        """It is unknown whether it has gone out."""
        told: list[int] = []
        async with bench() as net:
            writer = trio.CancelScope()

            def spawn(task: object) -> None:
                async def run() -> None:
                    with writer:
                        await task()  # type: ignore[operator]

                net.nursery.start_soon(run)

            net.connection._spawn = spawn
            net.connection.on_unsaid = lambda: told.append(1)
            net.transport.allowance = 0
            net.connection.send_text(b"the first")
            net.connection.flush()
            await net.settle()
            writer.cancel(reason="as a drain does at its end")
            await net.settle()
            assert net.closed() == CloseInfo(1006, "write cut", "abort")
            assert told == []


class TestEnding:
    """Every way to end, each with its deadline."""

    @simulated
    async def test_our_close_waits_behind_what_is_queued_and_for_the_answer(self) -> None:
        """Queued messages go out before our Close; the TCP is closed when the peer has answered."""
        async with bench() as net:
            net.connection.send_text(b"queued")
            net.connection.close(4001, "moved")
            net.connection.close(1011, "too late to change")
            await net.settle()
            assert net.transport.written == encode_text(b"queued") + encode_close(4001, "moved")
            assert net.closed() is None
            assert not net.transport.fin
            await net.settle(close(4001))
            assert net.closed() == CloseInfo(4001, "moved", "local")
            assert net.transport.ended == "closed"
            assert net.reader_ended.is_set()

    @simulated
    async def test_messages_that_arrive_after_our_close_are_dropped(self) -> None:
        """Unacked messages stay with their sender; a handler that has closed gets no more."""
        async with bench() as net:
            net.connection.close(4001)
            await net.settle(text("late"), text("later") + close(4001))
            assert net.batches == []
            assert net.reader_ended.is_set()

    @simulated
    async def test_our_close_is_over_at_its_deadline_whoever_reads(self) -> None:
        """Without an answer the TCP is closed after `close_s`, even when no task is reading."""
        for reading in (True, False):
            async with bench(reading=reading, close_s=3.0) as net:
                started = trio.current_time()
                net.connection.close(1001, "away")
                assert await net.connection.wait_closed() == CloseInfo(1001, "away", "local")
                assert trio.current_time() - started == pytest.approx(3.0)
                assert net.transport.ended == "closed"

    @simulated
    async def test_a_close_that_cannot_be_written_ends_in_a_reset(self) -> None:
        """When the network takes nothing, the deadline cuts the write too."""
        async with bench(close_s=3.0) as net:
            net.transport.allowance = 0
            net.connection.close(1001, "away")
            assert (await net.connection.wait_closed()).code == 1001
            assert net.transport.ended == "reset"

    @simulated
    async def test_the_peers_close_is_echoed_and_ends_it(self) -> None:
        """The server closes the TCP first, as RFC 6455 asks, once its answer is written."""
        for said, info, answer in (
            (close(1000, b"bye"), CloseInfo(1000, "bye", "remote"), encode_close(1000, "bye")),
            (close(None), CloseInfo(1005, "", "remote"), encode_close(None)),
        ):
            async with bench() as net:
                await net.settle(said)
                assert net.closed() == info
                assert net.transport.written == answer
                assert net.transport.ended == "closed"

    @simulated
    async def test_a_peer_that_closes_still_gets_what_was_queued(self) -> None:
        """What waits in the queue is written before the answer to the peer's Close."""
        async with bench() as net:
            net.transport.allowance = 1
            net.connection.send_text(b"queued")
            net.connection.flush()
            await net.settle(close(1000))
            assert net.closing()
            assert net.closed() is None
            net.transport.take()
            await net.settle()
            assert net.transport.written == encode_text(b"queued") + encode_close(1000)
            assert net.closed() == CloseInfo(1000, "", "remote")

    @simulated
    async def test_a_broken_rule_ends_with_fin_and_a_short_wait(self) -> None:
        """After our Close the writing side is shut; the rest is read and dropped until the peer hangs up."""
        async with bench(linger_s=0.5) as net:
            await net.settle(frame(3), b"\xff" * 1000, text("ignored"))
            assert net.transport.written == encode_close(1002, "reserved opcode")
            assert net.transport.fin
            assert net.closed() is None
            net.transport.say(b"")
            await net.settle()
            assert net.closed() == CloseInfo(1002, "reserved opcode", "local")
            assert net.batches == []

    @simulated
    async def test_abort_is_immediate_and_wakes_everybody(self) -> None:
        """Reader and waiters learn at once; what was queued is gone."""
        async with bench() as net:
            ends: list[CloseInfo] = []

            async def wait() -> None:
                ends.append(await net.connection.wait_closed())

            net.nursery.start_soon(wait)
            net.nursery.start_soon(wait)
            await net.settle()
            net.connection.send_text(b"never")
            net.connection.abort("fenced")
            net.connection.abort("again")
            await net.settle()
            assert ends == [CloseInfo(1006, "fenced", "abort")] * 2
            assert net.transport.ended == "reset"
            assert net.transport.written == b""
            assert net.reader_ended.is_set()

    @simulated
    async def test_the_end_of_the_stream_without_a_close(self) -> None:
        """A TCP that ends without a Close is 1006; if we had closed, our code stands."""
        async with bench() as net:
            await net.settle(b"")
            assert net.closed() == CloseInfo(1006, "connection lost", "abort")
        async with bench() as net:
            net.connection.close(4001, "moved")
            await net.settle(b"")
            assert net.closed() == CloseInfo(4001, "moved", "local")


class TestTick:
    """The clock of a connection."""

    @staticmethod
    async def pass_seconds(net: Bench, seconds: float) -> None:
        """Let time pass, ticking once a second."""
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await trio.sleep(min(1.0, end - trio.current_time()))
            net.connection.tick(trio.current_time())

    @simulated
    async def test_a_silent_peer_is_asked_once_and_then_given_up(self) -> None:
        """One Ping after `ping_interval_s` of silence; 4408 after `pong_timeout_s` without any sign of life."""
        async with bench() as net:
            await self.pass_seconds(net, 19)
            assert net.transport.writes == []
            await self.pass_seconds(net, 2)
            assert net.transport.writes == [encode_ping()]
            await self.pass_seconds(net, 18)
            assert not net.closing()
            await self.pass_seconds(net, 3)
            assert net.transport.written == encode_ping() + encode_close(4408, "no pong")
            assert await net.connection.wait_closed() == CloseInfo(4408, "no pong", "local")

    @simulated
    async def test_any_sign_of_life_counts(self) -> None:
        """A Pong, or anything else, starts the silence anew; a talking peer is never asked."""
        async with bench() as net:
            for said in (frame(10), text("alive"), frame(9)):
                net.transport.writes.clear()
                await self.pass_seconds(net, 21)
                assert net.transport.writes == [encode_ping()]
                await net.settle(said)
            net.transport.writes.clear()
            for _ in range(10):
                await self.pass_seconds(net, 15)
                await net.settle(text("talking"))
            assert net.transport.writes == []

    @simulated
    async def test_a_reader_that_holds_back_is_not_the_peers_fault(self) -> None:
        """While the handler does not read, the peer is neither asked nor given up; the silence counts from the next read on."""
        async with bench(reading=False) as net:
            await self.pass_seconds(net, 100)
            net.start_reading()
            await self.pass_seconds(net, 19)
            assert net.transport.writes == []
            await self.pass_seconds(net, 2)
            assert net.transport.writes == [encode_ping()]

    @simulated
    async def test_a_question_is_forgotten_while_nobody_reads_the_answer(self) -> None:
        """A Pong that lies unread in the socket while the reader holds back is not held against the peer."""
        async with bench(reading=False) as net:
            patience = trio.CancelScope()

            async def read_impatiently() -> None:
                with patience:
                    await net.connection.receive()

            net.nursery.start_soon(read_impatiently)
            await self.pass_seconds(net, 21)
            assert net.transport.writes == [encode_ping()]
            patience.cancel(reason="the handler has something else to do")
            await self.pass_seconds(net, 30)
            net.start_reading()
            await self.pass_seconds(net, 15)
            assert not net.closing()

    @simulated
    async def test_a_write_without_progress_is_cut(self) -> None:
        """After `write_s` without progress: 4508, and the TCP is reset `linger_s` later."""
        async with bench(ping_interval_s=1000.0) as net:
            net.transport.allowance = 1
            net.connection.send_text(b"stuck")
            net.connection.flush()
            await self.pass_seconds(net, 9)
            net.transport.take(1)
            await self.pass_seconds(net, 10)
            assert not net.closing()
            await self.pass_seconds(net, 1)
            assert net.closing()
            started = trio.current_time()
            assert await net.connection.wait_closed() == CloseInfo(4508, "write timeout", "local")
            assert trio.current_time() - started <= 0.5
            assert net.transport.ended == "reset"

    @simulated
    async def test_too_many_control_frames_are_a_broken_rule(self) -> None:
        """The bound is per second between ticks, and the count starts anew at each."""
        async with bench(control_frames_per_s_max=10) as net:
            for _ in range(5):
                await net.settle(frame(9) * 10)
                await self.pass_seconds(net, 1)
            assert not net.closing()
            await net.settle(frame(10) * 11)
            await self.pass_seconds(net, 1)
            assert await net.connection.wait_closed() == CloseInfo(1008, "too many pings", "local")


@simulated
async def test_neither_repr_shows_the_credential() -> None:
    """What names a connection in a log says nothing its peer keeps secret."""
    assert "secret" not in repr(HANDSHAKE)
    async with bench() as net:
        assert repr(net.connection) == "<Connection 7 /v1/client open queued=0B>"
        net.connection.close(4001)
        assert repr(net.connection) == "<Connection 7 /v1/client closing 4001 queued=0B>"
        net.connection.abort("x")
        assert repr(net.connection) == "<Connection 7 /v1/client closed 4001 queued=0B>"
