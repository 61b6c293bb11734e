"""Every attack known to have broken a WebSocket server: the attacker is told why and cut off, no other peer notices.

Each test runs beside a bystander that is served before and after, and ends with no task, connection or admission slot
left (`served`). Time is virtual.
"""

import struct
from contextlib import suppress

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signald.ids import SeededEntropy
from signald.net.admission import Admission, Refusal
from signald.net.connection import Connection
from signald.net.handshake import Handshake
from signald.net.listener import Server
from signald.testing.websocket import Client, HungUp, close, frame, request, text
from signald.wire.close_codes import CloseCode
from tests.net.clients import echo, served, served_with_a_bystander, simulated
from tests.net.settings import settings_of
from tests.net.test_frames import ANY_FRAMES, split


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        pytest.param(frame(1, b"x", mask=None), 1002, id="unmasked"),
        pytest.param(frame(1, b"x", rsv=4), 1002, id="compressed-without-asking"),
        pytest.param(frame(1, b"x", rsv=2), 1002, id="second-reserved-bit"),
        pytest.param(frame(9, b"x", rsv=1), 1002, id="third-reserved-bit-of-a-ping"),
        pytest.param(close(1000, b"x" * 124), 1002, id="oversized-close-reason"),
        pytest.param(frame(3, b"x"), 1002, id="reserved-opcode"),
        pytest.param(frame(9, b"x" * 200), 1002, id="long-ping"),
        pytest.param(frame(9, fin=False), 1002, id="fragmented-ping"),
        pytest.param(frame(0, b"x"), 1002, id="continuation-of-nothing"),
        pytest.param(frame(1, length=1 << 63, width=8), 1002, id="negative-length"),
        pytest.param(frame(8, b"\x03"), 1002, id="half-a-close-code"),
        pytest.param(close(1006), 1002, id="close-1006"),
        pytest.param(text(b"\xff\xfe"), 1007, id="not-utf8"),
        pytest.param(close(1000, b"\xff"), 1007, id="reason-not-utf8"),
        pytest.param(frame(2, length=65537), 1009, id="one-byte-too-long"),
        pytest.param(frame(2, length=1 << 40), 1009, id="a-terabyte"),
        pytest.param(frame(2, b"", fin=False) + frame(0, b"", fin=False) * 3000, 1009, id="empty-fragments"),
        pytest.param(frame(2, b"x", fin=False) + frame(0, b"x", fin=False) * 3000, 1009, id="one-byte-fragments"),
    ],
)
@pytest.mark.parametrize("hangs_up", [False, True])
@simulated
async def test_broken_rules_are_named_and_the_socket_is_not_kept(attack: bytes, code: int, hangs_up: bool) -> None:
    """The Close with the right code is on the wire, and the TCP is closed within 1 s whatever the attacker does."""
    async with served_with_a_bystander() as net:
        attacker = await net.connect()
        await attacker.send(text("last words") + attack)
        assert await attacker.frame() == (1, b"last words")
        assert (await attacker.closed_with())[0] == code
        if hangs_up:
            await attacker.send(close(code))
        assert await attacker.hung_up_after() <= 1.0


@simulated
async def test_a_ping_that_crosses_our_close_is_ignored() -> None:
    """After our Close no Pong is sent, the peer's late messages are dropped, and its Close ends it at once."""
    async with served_with_a_bystander() as net:
        peer = await net.connect()
        await peer.send(text("close 1001"))
        await peer.send(frame(9, b"crossing"))
        assert await peer.frame() == (8, struct.pack("!H", 1001) + b"as you wish")
        await peer.send(frame(9, b"late") + text("late") + frame(10, b"late"))
        await trio.sleep(1)
        await peer.send(frame(9, b"later") + close(1001))
        assert await peer.hung_up_after() == 0
        assert peer.received == b""


@simulated
async def test_a_peer_that_never_answers_our_close_is_cut_off() -> None:
    """The closing handshake has a deadline of `close_s`, kept although the peer goes on talking."""
    async with served_with_a_bystander(settings=settings_of(close_s=3)) as net:
        peer = await net.connect()
        await peer.send(text("close 1001"))
        assert await peer.closed_with() == (1001, "as you wish")

        async def talk() -> None:
            with trio.move_on_after(10):
                while True:
                    await trio.sleep(0.5)
                    try:
                        await peer.send(frame(9) + text("still here"))
                    except trio.BrokenResourceError:
                        return

        net.nursery.start_soon(talk)
        assert await peer.hung_up_after() == pytest.approx(3, abs=0.01)


@simulated
async def test_an_attacker_that_goes_on_sending_after_our_close_is_cut_off() -> None:
    """What follows a protocol error is read and thrown away for `linger_s`, not for as long as it comes."""
    async with served_with_a_bystander() as net:
        attacker = await net.connect()
        await attacker.send(frame(3))
        assert (await attacker.closed_with())[0] == 1002

        async def flood() -> None:
            with trio.move_on_after(10):
                while True:
                    await trio.sleep(0.01)
                    try:
                        await attacker.send(b"\xff" * 10_000)
                    except trio.BrokenResourceError:
                        return

        net.nursery.start_soon(flood)
        assert await attacker.hung_up_after() == pytest.approx(0.5, abs=0.02)


@simulated
async def test_nonsense_in_answer_to_our_close_ends_it_at_once() -> None:
    """A peer that answers our Close by breaking the protocol gets no more time."""
    async with served_with_a_bystander() as net:
        peer = await net.connect()
        await peer.send(text("close 4409"))
        assert (await peer.closed_with())[0] == 4409
        await peer.send(frame(3))
        assert await peer.hung_up_after() == 0


@simulated
async def test_a_peer_that_hangs_up_without_a_word() -> None:
    """An end of the stream at any point ends the connection and nothing else."""
    async with served_with_a_bystander() as net:
        for said in (b"", request(), request() + text("x")[:-1], request() + frame(1, b"x", fin=False)):
            peer = net.dial()
            await peer.send(said)
            await trio.testing.wait_all_tasks_blocked()
            await peer.stream.aclose()


@simulated
async def test_a_ping_flood_is_closed_with_1008() -> None:
    """More control frames per second than allowed is a broken rule; until then each is answered, in order."""
    async with served_with_a_bystander() as net:
        attacker = await net.connect()
        await attacker.send(frame(9, b"first") + frame(9, b"second") + frame(9, b"third"))
        assert [await attacker.frame() for _ in range(3)] == [(10, b"first"), (10, b"second"), (10, b"third")]
        for _ in range(6):
            await attacker.send(frame(9) * 50)
        assert await attacker.closed_with() == (1008, "too many pings")
        assert await attacker.hung_up_after() <= 1.0


@simulated
async def test_a_peer_that_reads_nothing_is_a_slow_consumer() -> None:
    """A write that makes no progress for `write_s` ends the connection, and the TCP with it, within 2 s."""
    ended: list[tuple[float, int, str]] = []

    async def talk(connection: Connection) -> None:
        if connection.path != "/v1/worker":
            await echo(connection)
        connection.send_binary(b"x" * 1000)
        connection.send_binary(b"y" * 1000)
        connection.flush()
        info = await connection.wait_closed()
        ended.append((trio.current_time() - connection.opened_at, info.code, info.reason))

    async with served_with_a_bystander(talk) as net:
        peer = net.dial(trio.testing.lockstep_stream_pair)
        await peer.open(path="/v1/worker")
        await trio.sleep(13)
        assert [(code, reason) for _, code, reason in ended] == [(4508, "write timeout")]
        assert 10 <= ended[0][0] <= 12
        await peer.hung_up_after()
        # Whatever had left before, no later frame follows a cut one.
        assert bytes(peer.received) in b"\x82\x7e\x03\xe8" + b"x" * 1000 + b"\x82\x7e\x03\xe8" + b"y" * 1000


class Trickle(trio.abc.Stream):
    """A stream whose peer takes 4 KiB a second."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(len(data) / 4096)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


def trickling() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return a pair of streams; what goes into the first comes out of the second slowly."""
    near, far = trio.testing.memory_stream_pair()
    return Trickle(near), far


@simulated
async def test_a_peer_that_reads_slowly_is_no_slow_consumer() -> None:
    """As long as a write makes progress within `write_s`, a stream that tells nothing of its progress included."""
    async with served_with_a_bystander() as net:
        peer = net.dial(trickling)
        await peer.open()
        large = b"x" * 60_000
        await peer.send(text(large))
        began = trio.current_time()
        assert await peer.frame() == (1, large)
        assert trio.current_time() - began > settings_of().write_s
        await peer.send(close())
        assert await peer.closed_with() == (1000, "")


@simulated
async def test_a_send_queue_that_overflows_is_a_slow_consumer() -> None:
    """At twice the bound of the queue the peer is closed with 4508, and memory stays within that."""
    settings = settings_of(send_queue_messages_max=10, send_queue_bytes_max=10_000)
    seen: list[tuple[int, int]] = []

    async def talk(connection: Connection) -> None:
        if connection.path != "/v1/worker":
            await echo(connection)
        while not connection.closing:
            connection.send_binary(b"x" * 100)
            seen.append((connection.queued_messages, connection.queued_bytes))
        await connection.wait_closed()

    async with served_with_a_bystander(talk, settings) as net:
        peer = net.dial(trio.testing.lockstep_stream_pair)
        await peer.open(path="/v1/worker")
        assert await peer.closed_with() == (4508, "send queue overflow")
        assert await peer.hung_up_after() <= 1.0
        assert max(messages for messages, _ in seen) <= 20


@simulated
async def test_a_write_that_was_cut_is_never_continued() -> None:
    """A cancelled write leaves half a frame on the wire; the TCP is cut there, so nothing follows it."""

    async def talk(connection: Connection) -> None:
        connection.send_binary(b"x" * 60_000)
        connection.flush()
        await connection.wait_closed()

    near, far = trio.testing.lockstep_stream_pair()
    peer = Client(far)
    async with trio.open_nursery() as nursery:
        admission = Admission(settings_of(), entropy=SeededEntropy(0))
        server = Server(talk, settings=settings_of(), admission=admission, nursery=nursery)
        nursery.start_soon(server.serve_stream, near)
        await peer.open()
        await trio.testing.wait_all_tasks_blocked()
        assert (await far.receive_some(100)).startswith(b"\x82\x7e")
        nursery.cancel_scope.cancel(reason="the node is killed in the middle of a write")
    await peer.hung_up_after()
    assert set(peer.received) <= set(b"x")
    assert server.connections == {}


@simulated
async def test_a_cancelled_handler_still_says_goodbye() -> None:
    """Cancelling the nursery of the connections shows their peers 1001 when nothing else was being written."""
    near, far = trio.testing.memory_stream_pair()
    peer = Client(far)
    async with trio.open_nursery() as nursery:
        admission = Admission(settings_of(), entropy=SeededEntropy(0))
        server = Server(echo, settings=settings_of(), admission=admission, nursery=nursery)
        nursery.start_soon(server.serve_stream, near)
        await peer.open()
        await peer.echo("hello")
        nursery.cancel_scope.cancel(reason="the drain is over")
    assert server.connections == {}
    assert (admission.handshakes, admission.connections) == (0, 0)
    assert await peer.hung_up_after() == 0


@pytest.mark.parametrize(
    "offered",
    [
        b"permessage-deflate; client_max_window_bits=abc",
        b"permessage-deflate; client_max_window_bits=99999999999999999999",
        b"permessage-deflate; server_max_window_bits",
        b'permessage-deflate;;;;=,,,==;"',
        b"permessage-deflate; " + b"a=b; " * 1500,
        b"x" * 7000,
        b", ".join([b"permessage-deflate"] * 300),
    ],
)
@simulated
async def test_malformed_extension_offers_are_not_even_read(offered: bytes) -> None:
    """No extension is negotiated, so no parser of their parameters can be made to fail; the connection just works."""
    async with served_with_a_bystander() as net:
        peer = net.dial()
        head = await peer.open((b"Sec-WebSocket-Extensions", offered))
        assert b"extension" not in head.lower()
        await peer.echo("uncompressed")
        await peer.send(close())
        assert await peer.hung_up_after() == 0


@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param(b"GET /" + b"x" * 9000, b"414", id="endless-target"),
        pytest.param(request()[:-2] + b"X: " + b"y" * 20_000, b"431", id="endless-header"),
        pytest.param(request()[:-2] + b"X: y\r\n" * 101 + b"\r\n", b"431", id="many-headers"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n\n", b"400", id="tls-on-a-plain-port"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426", id="plain-get"),
        pytest.param(request("/elsewhere"), b"404", id="unknown-path"),
        pytest.param(request(method=b"POST"), b"405", id="post"),
        pytest.param(request(without=(b"Host",))[:-2] + b"Host: xn--\xff\r\n\r\n", b"400", id="host-not-idna"),
    ],
)
@simulated
async def test_bad_handshakes_are_answered_and_not_kept(said: bytes, status: bytes) -> None:
    """The answer names the mistake and the TCP is closed within 1 s, whether or not the peer hangs up."""
    async with served_with_a_bystander() as net:
        attacker = net.dial()
        await attacker.send(said)
        assert (await attacker.response()).split()[1] == status
        assert await attacker.hung_up_after() <= 1.0


@pytest.mark.parametrize("pause_s", [0.1, 2.0, 60.0])
@simulated
async def test_a_slow_handshake_is_cut_off(pause_s: float) -> None:
    """A request that is not complete after `handshake_s` costs no more than that, however it trickles in."""
    async with served_with_a_bystander() as net:
        attacker = net.dial()

        async def trickle() -> None:
            for byte in request():
                try:
                    await attacker.send(bytes((byte,)))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(pause_s)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await attacker.hung_up_after() == pytest.approx(5.0, abs=0.01)
            assert attacker.received == b""
            nursery.cancel_scope.cancel(reason="cut off as it should be")


@simulated
async def test_a_newcomer_takes_the_place_of_the_oldest_silent_peer() -> None:
    """While silent peers hold every slot, a client with a request gets in at once and one silent peer is cut."""
    settings = settings_of(handshakes_in_progress_max=3)
    async with served_with_a_bystander(settings=settings) as net:
        slow = []
        for _ in range(3):
            slow.append(net.dial())
            await trio.testing.wait_all_tasks_blocked()  # so that the first is the oldest
        late = await net.connect()
        await late.echo("in")
        assert await slow[0].hung_up_after() == 0
        assert await slow[1].hung_up_after() == pytest.approx(5.0, abs=0.01)
        await late.send(close())
        await late.hung_up_after()


@simulated
async def test_a_peer_that_has_begun_its_request_keeps_its_place() -> None:
    """While other peers have begun to speak, a newcomer of their address is turned away, and gets in once slots are free."""
    settings = settings_of(handshakes_in_progress_max=3)
    async with served_with_a_bystander(settings=settings) as net:
        slow = [net.dial() for _ in range(3)]
        for attacker in slow:
            await attacker.send(b"GET ")
        await trio.testing.wait_all_tasks_blocked()
        assert await net.dial().hung_up_after() == 0
        for attacker in slow:
            await attacker.hung_up_after()
        late = await net.connect()
        await late.echo("in")
        await late.send(close())
        await late.hung_up_after()


@simulated
async def test_connections_beyond_the_limit_are_refused_with_a_hint() -> None:
    """A full node answers 503 with Retry-After; connections that are open stay open."""
    async with served_with_a_bystander(settings=settings_of(connections_max=1)) as net:
        late = net.dial()
        await late.send(request())
        head = await late.response()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 2\r\n" in head
        assert await late.hung_up_after() <= 1.0


@simulated
async def test_connecting_too_often_from_one_address_is_refused_there_only() -> None:
    """The rate limit is per remote address: 429 for the one, business as usual for the other."""
    settings = settings_of(connects_per_s=1.0, connects_burst=2)
    async with served_with_a_bystander(settings=settings) as net:
        for status in (b"101", b"429"):
            client = net.dial()  # the bystander took the first of two
            await client.send(request())
            assert (await client.response()).split()[1] == status
            await client.stream.aclose()
        other = net.dial(remote="192.0.2.2")
        await other.open()
        await other.stream.aclose()


@simulated
async def test_an_exception_in_a_handler_ends_its_connection_only() -> None:
    """Whatever a handler raises is logged and becomes 1011 for its own peer."""
    with structlog.testing.capture_logs() as logged:
        async with served_with_a_bystander() as net:
            peer = await net.connect()
            await peer.send(text("raise"))
            assert await peer.closed_with() == (1011, "internal error")
            await peer.send(close(1011))
            assert await peer.hung_up_after() == 0
    assert [entry["event"] for entry in logged] == ["handler_failed"]


@simulated
async def test_an_exception_group_in_a_handler_ends_its_connection_only() -> None:
    """Errors out of a handler's own nursery, however nested, stop at the connection."""

    async def handler(connection: Connection) -> None:
        if connection.path != "/v1/worker":
            await echo(connection)

        async def fail() -> None:
            raise ValueError("in a child")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    with structlog.testing.capture_logs() as logged:
        async with served_with_a_bystander(handler) as net:
            peer = net.dial()
            await peer.open(path="/v1/worker")
            assert (await peer.closed_with())[0] == 1011
            assert await peer.hung_up_after() == pytest.approx(5.0, abs=0.01)
    assert [entry["event"] for entry in logged] == ["handler_failed"]


@simulated
async def test_an_exception_in_the_gate_is_a_500_without_details() -> None:
    """A failing gate refuses that one handshake; its message does not leave the process."""

    def gate(handshake: Handshake, remote: str) -> Refusal | None:
        if handshake.path == "/v1/worker":
            raise RuntimeError("secret detail")
        return None

    with structlog.testing.capture_logs():
        async with served(gate=gate) as net:
            bystander = await net.connect()
            attacker = net.dial()
            await attacker.send(request("/v1/worker"))
            assert (await attacker.response()).startswith(b"HTTP/1.1 500 ")
            assert await attacker.hung_up_after() <= 1.0
            assert b"secret" not in attacker.received
            await bystander.echo("after")
            await bystander.stream.aclose()


@settings(max_examples=80, deadline=None)
@example([b"\x01"], [], False)  # a frame that never ends: until it is asked whether it is there
@given(
    st.lists(st.one_of(ANY_FRAMES, st.binary(max_size=40)), max_size=8),
    st.lists(st.integers(0, 100_000), max_size=4),
    st.booleans(),
)
def test_no_bytes_whatsoever_disturb_the_server(pieces: list[bytes], cuts: list[int], hangs_up: bool) -> None:
    """Frames and noise in any mix end, at worst, in a Close and a closed TCP; nothing fails, the bystander never notices."""

    async def attack() -> None:
        async with served_with_a_bystander() as net:
            attacker = await net.connect()
            for piece in split(b"".join(pieces), cuts):
                try:
                    await attacker.send(piece)
                except trio.BrokenResourceError:
                    break
                await trio.testing.wait_all_tasks_blocked()
            if hangs_up:
                await attacker.stream.aclose()
                return
            with suppress(trio.BrokenResourceError):
                await attacker.send(close(1000))
            with suppress(HungUp):
                codes.append((await attacker.closed_with())[0])
            assert await attacker.hung_up_after() <= 1.0

    codes: list[int | None] = []
    with structlog.testing.capture_logs() as logged:
        simulated(attack)()
    assert logged == []
    assert CloseCode.INTERNAL not in codes
