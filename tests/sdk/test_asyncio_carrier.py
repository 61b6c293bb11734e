"""Tests of the connections of the SDK on asyncio that go wrong: each is bounded, told as what it is, and closed behind its block."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from signald.sdk import asyncio as sdk
from signald.sdk import asyncio_carrier as carriers
from signald.sdk.asyncio_carrier import WebSocketCarrier, dial
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import Timing
from tests.sdk.test_asyncio import LIMITS, SIGNALD, over

QUICK = Timing(connect_s=0.05, write_s=0.01)
HANG_S = 30.0
"""What no test comes to: a wait without its deadline fails the test, and does not hang it."""


class Stuck:
    """A connection of websockets whose peer reads nothing."""

    def __init__(self) -> None:
        self.transport = self
        self.aborted = False

    async def send(self, payload: bytes, text: bool) -> None:
        """Write without an end."""
        await asyncio.sleep(3600)

    def abort(self) -> None:
        """Cut, as of a transport."""
        self.aborted = True


def test_a_write_that_hangs_ends_the_connection() -> None:
    """Its sender hears within `write_s` that it is over, and it is cut: half a frame may have been written."""

    async def main() -> None:
        stuck = Stuck()
        carrier = WebSocketCarrier(cast("ClientConnection", stuck), QUICK.write_s)
        async with asyncio.timeout(HANG_S):
            with pytest.raises(CarrierClosed, match="not written"):
                await carrier.send([(True, b"{}")])
        assert stuck.aborted

    asyncio.run(main())


def listening(
    reply: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    use: Callable[[int], Coroutine[Any, Any, None]],
) -> None:
    """Run `use` with the port of a server that does `reply`, whose connections end with it."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reply(reader, writer)
        finally:
            writer.transport.abort()

    async def main() -> None:
        server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
        async with asyncio.timeout(HANG_S), server:
            await use(server.sockets[0].getsockname()[1])

    asyncio.run(main())


def test_a_login_of_a_url_is_not_in_the_request() -> None:
    """The name and the password before a host go into no header of the handshake."""
    requests: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    async def use(port: int) -> None:
        with pytest.raises(sdk.DialFailed):
            async with dial(f"ws://user:secret@127.0.0.1:{port}/v1/client", None, Timing()):
                pass
        assert f"host: 127.0.0.1:{port}\r\n".encode() in requests[0].lower()
        assert b"authorization" not in requests[0].lower()
        assert b"secret" not in requests[0]

    listening(reply, use)


def test_a_server_that_never_answers_is_given_up() -> None:
    """The dial has its deadline, the handshake in it."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(port: int) -> None:
        with pytest.raises(sdk.DialFailed, match="took too long"):
            async with dial(f"ws://127.0.0.1:{port}", None, QUICK):
                pass

    listening(reply, use)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swi", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_a_server_that_hangs_up_in_the_handshake_is_another_failed_dial(answer: bytes) -> None:
    """Before an answer, in the middle of one, and behind one that is none."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def use(port: int) -> None:
        with pytest.raises(sdk.DialFailed, match="the handshake broke"):
            async with dial(f"ws://127.0.0.1:{port}", None, Timing()):
                pass

    listening(reply, use)


def test_a_connection_that_breaks_before_the_request_is_another_failed_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """websockets says a connection is closed that never stood."""

    class Reset(carriers._Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.abort()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(port: int) -> None:
        with pytest.raises(sdk.DialFailed, match="the handshake broke"):
            async with dial(f"ws://127.0.0.1:{port}", None, Timing()):
                pass

    monkeypatch.setattr(carriers, "_Connection", Reset)
    listening(reply, use)


@pytest.mark.parametrize("url", [f"ws://{'a' * 64}", "ws://a..b", "ws://h:99999"])
def test_a_host_that_is_no_name(url: str) -> None:
    """A target that no resolver can be asked for is a dial that fails, and ends no party."""

    async def main() -> None:
        with pytest.raises(sdk.DialFailed):
            async with dial(url, None, Timing()):
                pass

    asyncio.run(main())


def test_a_connection_that_is_cut_ends_its_reader() -> None:
    """At once, while its block goes on."""

    async def idle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def use(carrier: WebSocketCarrier) -> None:
        carrier.abort()
        with pytest.raises(CarrierClosed):
            async with asyncio.timeout(HANG_S):
                await carrier.receive()

    over(idle, use)


def test_a_frame_of_megabytes_arrives() -> None:
    """A chat history, or the answer to a worker with many sessions, is one."""
    long = "x" * 3_000_000

    async def say(connection: ServerConnection) -> None:
        await connection.send(long)
        await connection.wait_closed()

    async def use(carrier: WebSocketCarrier) -> None:
        assert await carrier.receive() == long

    over(say, use)


async def with_port(
    behave: Callable[[ServerConnection], Awaitable[None]], use: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """Run `use` with the URL of a server that does `behave`."""
    async with serve(behave, "127.0.0.1", 0, subprotocols=SIGNALD) as server, asyncio.timeout(HANG_S):
        await use(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")


def test_a_connection_is_closed_behind_its_block() -> None:
    """The other side sees its end, while the program goes on."""
    ended = asyncio.Event()

    async def idle(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set()

    async def use(url: str) -> None:
        async with dial(url, None, Timing()):
            pass
        await ended.wait()

    asyncio.run(with_port(idle, use))


def test_a_client_that_has_said_bye_closes_with_1000() -> None:
    """The end of its block waits for the closing handshake."""
    codes: list[int | None] = []

    async def node(connection: ServerConnection) -> None:
        await connection.recv()
        started = {
            "type": "session_started", "session": "s_1", "recovery_token": "s_1.first", "token_ttl_ms": 300_000,
            "peer": {"state": "paired", "id": "w_1"}, "next_seq": 1, "limits": LIMITS, "heartbeat_ms": 20_000,
        }  # fmt: skip
        await connection.send(json.dumps(started))
        while json.loads(await connection.recv())["type"] != "bye":
            pass
        await connection.send('{"type":"session_ended","reason":"done"}')
        await connection.wait_closed()
        codes.append(connection.close_code)

    async def use(url: str) -> None:
        async with sdk.open_client(url) as client:
            await client.bye("done")

    asyncio.run(with_port(node, use))
    assert codes == [1000]
