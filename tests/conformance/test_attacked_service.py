"""Attacks on the whole service: the attacker is cut off, and a client and its worker that talk all the while never notice.

What one connection does under attack stands in tests/net/test_attacks.py. Here stand the attacks that need a service behind it, or a
TCP below; and the table of answers to handshakes, as the configuration makes it.
"""

import json
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import structlog.testing
import trio
import trio.testing

from signald.testing.websocket import KEY, Speaker, close, frame, request, text
from tests.conformance.service import SUBPROTOCOL, Stage, in_memory, over_tcp
from tests.net.clients import until
from tests.service.test_opening import token_for

Attack = Callable[[Stage], Awaitable[None]]

CONNECT = text(json.dumps({"type": "connect", "auth": token_for("ann", "client")}))


def message(seq: int, data: str = "x") -> bytes:
    """Return a client's message as one frame."""
    return text(json.dumps({"type": "message", "seq": seq, "data": data}))


async def _a_ping_crosses_our_close(stage: Stage) -> None:
    client, _ = await stage.client()
    await client.send(text("{") + frame(9, b"crossing") * 50)
    assert await client.closed_with() == (4400, "bad_message")
    await client.send(frame(9, b"late") * 50 + close(4400))
    await client.hung_up_after()
    assert b"\x8a" not in client.received, "no Pong follows a Close"


async def _empty_fragments_without_end(stage: Stage) -> None:
    client, _ = await stage.client()
    await client.send(frame(1, b"", fin=False) + frame(0, b"", fin=False) * 10_000)
    assert await client.closed_with() == (1009, "message over 128 fragments")
    await client.hung_up_after()


async def _pings_between_fragments(stage: Stage) -> None:
    client, _ = await stage.client()
    piece = frame(0, b" ", fin=False) + frame(9, b"between")
    await client.send(frame(1, b"{", fin=False) + piece * 60)
    assert [await client.frame() for _ in range(60)] == [(10, b"between")] * 60
    await client.send(frame(0, b'"type":"ping"}'))
    await client.hear("pong")
    await client.send(close())
    assert await client.closed_with() == (1000, "")


async def _a_frame_byte_by_byte(stage: Stage) -> None:
    client, _ = await stage.client()
    for byte in text('{"type":"ping"}'):
        await client.send(bytes((byte,)))
    await client.hear("pong")
    await client.send(close())
    assert await client.closed_with() == (1000, "")


async def _a_frame_that_never_ends(stage: Stage) -> None:
    client, _ = await stage.client()
    await client.send(message(1)[:-1])
    await client.stream.aclose()


async def _an_oversized_close_reason(stage: Stage) -> None:
    client, _ = await stage.client()
    await client.send(close(1000, b"x" * 124))
    assert await client.closed_with() == (1002, "control frame too long")
    await client.hung_up_after()


async def _malformed_extension_parameters(stage: Stage) -> None:
    client = await stage.dial()
    offered = b"permessage-deflate; client_max_window_bits=abc; ;=,"
    head = await client.open(SUBPROTOCOL, (b"Sec-WebSocket-Extensions", offered))
    assert b"extension" not in head.lower()
    await client.send(CONNECT)
    await client.hear("session_started")
    await client.send(close())
    assert await client.closed_with() == (1000, "")


async def _everything_in_one_write(stage: Stage) -> None:
    client = await stage.dial()
    all_at_once = request("/v1/client", SUBPROTOCOL) + CONNECT + message(1) + message(2) + frame(3)
    await client.send(all_at_once)
    assert (await client.response()).startswith(b"HTTP/1.1 101 ")
    await client.hear("session_started")
    assert await client.closed_with() == (1002, "reserved opcode")
    await client.hung_up_after()


async def _a_second_request_behind_the_first(stage: Stage) -> None:
    client = await stage.dial()
    await client.send(request() + request("/v1/worker"))
    assert (await client.response()).startswith(b"HTTP/1.1 101 ")
    assert await client.closed_with() == (1002, "reserved bit set")
    await client.hung_up_after()


async def _messages_behind_a_close(stage: Stage) -> None:
    client, started, worker, _ = await stage.pair()
    await client.send(message(1, "before") + close(1000) + message(2, "after") + b"\xff" * 5000)
    assert (await worker.hear("message"))["data"] == "before"
    assert await client.closed_with() == (1000, "")
    await client.hung_up_after()
    again = await stage.restore(started["recovery_token"])
    assert (await again.hear("session_restored"))["accepted"] == 1


async def _json_too_deep_for_any_parser(stage: Stage) -> None:
    client, _ = await stage.client()
    await client.send(text(b'{"type":"message","seq":1,"data":' + b"[" * 65_000))
    assert await client.closed_with() == (4400, "bad_message")
    await client.send(close(4400))
    await client.hung_up_after()


async def _hundreds_that_hang_up_at_every_point(stage: Stage) -> None:
    whole = request("/v1/client", SUBPROTOCOL) + CONNECT + message(1)
    for cut in range(0, len(whole) + 1, 7):
        party = await stage.dial()
        await party.send(whole[:cut])
        await party.stream.aclose()


ATTACKS: list[Attack] = [
    _a_ping_crosses_our_close,
    _empty_fragments_without_end,
    _pings_between_fragments,
    _a_frame_byte_by_byte,
    _a_frame_that_never_ends,
    _an_oversized_close_reason,
    _malformed_extension_parameters,
    _everything_in_one_write,
    _a_second_request_behind_the_first,
    _messages_behind_a_close,
    _json_too_deep_for_any_parser,
    _hundreds_that_hang_up_at_every_point,
]


def tcp_of(party: Speaker) -> trio.SocketStream:
    """Return the TCP of a party."""
    assert isinstance(party.stream, trio.SocketStream)
    return party.stream


async def _half_closed(stage: Stage) -> None:
    client, started, worker, _ = await stage.pair()
    await client.send(message(1, "last words"))
    await tcp_of(client).send_eof()
    assert (await worker.hear("message"))["data"] == "last words"
    await client.hung_up_after()
    again = await stage.restore(started["recovery_token"])
    assert (await again.hear("session_restored"))["accepted"] == 1


async def _a_reset_in_the_middle_of_a_write(stage: Stage) -> None:
    client, started, worker, session = await stage.pair()
    tcp_of(client).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for seq in range(1, 16):  # not a megabyte, which is as much as one session may have waiting
        large = {"type": "message", "session": session, "seq": seq, "data": "x" * 60_000}
        await worker.say(large)
    await worker.hear("ack")
    tcp_of(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.stream.aclose()
    again = await stage.restore(started["recovery_token"])
    assert (await again.hear("session_restored"))["replaying"] > 0
    await until(lambda: len(stage.cluster.nodes["n1"].hub.connections) == 4)


async def _resets_before_a_word(stage: Stage) -> None:
    for _ in range(100):
        party = await stage.dial()
        tcp_of(party).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await party.stream.aclose()


TCP_ATTACKS: list[Attack] = [_half_closed, _a_reset_in_the_middle_of_a_write, _resets_before_a_word]


def under(attack: Attack, play: Callable[[Attack], None]) -> None:
    """Play an attack beside bystanders; nothing may be left of it, and it is no error of signald's own."""

    async def scene(stage: Stage) -> None:
        await stage.start()
        async with stage.bystanders() as bystanders:
            await attack(stage)
            await bystanders.goes_on()
            for party in stage.parties[2:]:
                await trio.aclose_forcefully(party.stream)
        await stage.nobody_left()

    with structlog.testing.capture_logs() as logged:
        play(scene)
    assert [entry["event"] for entry in logged if entry["log_level"] in ("warning", "error")] == []


def name_of(attack: Attack) -> str:
    """Name an attack in the list of tests."""
    return attack.__name__.removeprefix("_")


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
def test_nobody_else_notices(attack: Attack) -> None:
    """The attacker is told what was wrong and cut off; the conversation beside it goes on, and nothing is left."""
    under(attack, in_memory)


@pytest.mark.real
@pytest.mark.parametrize("attack", [*ATTACKS, *TCP_ATTACKS], ids=name_of)
def test_nobody_else_notices_over_tcp(attack: Attack) -> None:
    """The same over TCP, with what only a TCP can do; no descriptor is left either."""
    under(attack, over_tcp)


def test_a_peer_that_stops_reading_while_it_is_closed_is_cut_off() -> None:
    """The closing handshake has its deadline also when our Close cannot even be written."""

    async def scene(stage: Stage) -> None:
        node = await stage.start()
        async with stage.bystanders() as bystanders:
            client, _ = await stage.client(streams=trio.testing.lockstep_stream_pair)
            await client.say({"type": "ping"})
            await client.say({"type": "nonsense"})  # its answer fills the stream, and the client does not read it
            await client.send(text("{"))
            closing = trio.current_time()
            await until(lambda: len(node.hub.connections) == 2)
            assert trio.current_time() - closing <= node.hub.config.timeouts.close_s + 1
            await bystanders.goes_on()
            await trio.aclose_forcefully(client.stream)
        await stage.nobody_left()

    in_memory(scene)


# --- handshakes ------------------------------------------------------------------------------------------------------

ORIGIN = "https://app.example.com"
LISTEN: dict[str, object] = {"allowed_origins": (ORIGIN,)}
VERSION = b"Sec-WebSocket-Version"


@pytest.mark.real
@pytest.mark.parametrize(
    ("said", "status", "also"),
    [
        pytest.param(request("/v1/client", (b"Origin", b"null")), 403, b"", id="origin-not-on-the-list"),
        pytest.param(request("/v1/client?access_token=hunter2"), 400, b"", id="credential-in-the-url"),
        pytest.param(request("/v1/client?recovery_token=hunter2"), 400, b"", id="recovery-token-in-the-url"),
        pytest.param(
            request("/v1/client", (b"Sec-WebSocket-Protocol", b"signald.bearer.hunter2!")), 400, b"", id="no-base64url"
        ),
        pytest.param(request(method=b"POST"), 405, b"Allow: GET", id="not-get"),
        pytest.param(request(without=(b"Upgrade",)), 426, b"Upgrade: websocket", id="no-upgrade"),
        pytest.param(
            request("/v1/client", (VERSION, b"8"), without=(VERSION,)), 426, b"Sec-WebSocket-Version: 13", id="version"
        ),
        pytest.param(
            request("/v2/client", (b"Connection", b"close"), without=(b"Connection",)), 404, b"", id="unknown-path"
        ),
        pytest.param(request("/v1/client?" + "x" * 8192), 414, b"", id="target-over-8-KiB"),
        pytest.param(request("/v1/client", (b"X", b"hunter2" * 2400)), 431, b"", id="headers-over-16-KiB"),
        pytest.param(request("/v1/client", *[(b"X", b"y")] * 101), 431, b"", id="headers-over-100"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400, b"", id="tls-without-tls"),
        pytest.param(KEY + b"\r\n\r\n", 400, b"", id="not-http"),
    ],
)
def test_each_bad_handshake_has_its_answer(said: bytes, status: int, also: bytes) -> None:
    """The status says what was wrong and a header how to do it right; the body is constant; then the TCP is closed."""

    async def scene(stage: Stage) -> None:
        await stage.start(listen=LISTEN)
        async with stage.bystanders():
            party = await stage.dial()
            await party.send(said)
            head = await party.response()
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nconnection: close\r\n" in head.lower()
            assert also in head
            assert b"\r\nServer:" not in head
            await party.hung_up_after()
            assert b"hunter2" not in head + party.received
            await party.stream.aclose()
        await stage.nobody_left()

    over_tcp(scene)


@pytest.mark.real
@pytest.mark.parametrize(
    ("admission", "status"),
    [({"connections_max": 2, "address_share": 1.0}, 503), ({"connects_per_s": 0.001, "connects_burst": 2}, 429)],
)
def test_who_is_one_too_many_is_told_when_to_come_again(admission: dict[str, object], status: int) -> None:
    """A full node answers 503, an address that connects too often gets 429, both with Retry-After."""

    async def scene(stage: Stage) -> None:
        await stage.start(admission=admission)
        async with stage.bystanders():
            party = await stage.dial()
            await party.send(request())
            head = await party.response()
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nRetry-After: " in head
            await party.hung_up_after()
            await party.stream.aclose()

    over_tcp(scene)


@pytest.mark.real
def test_a_handshake_that_is_not_complete_in_time_is_cut_off() -> None:
    """A peer that sends nothing, or never ends, is hung up on without an answer after `timeouts.handshake_s`."""

    async def scene(stage: Stage) -> None:
        await stage.start(timeouts={"handshake_s": 2.0})
        async with stage.bystanders():
            silent, slow = await stage.dial(), await stage.dial()
            await slow.send(request()[:-2])
            for party in (silent, slow):
                await party.hung_up_after()
                assert party.received == b""
                await party.stream.aclose()

    over_tcp(scene)
