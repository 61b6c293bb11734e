"""Peers that do nothing, at a node that has to go: bounded, whatever they do."""

import base64
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio

from tests.real.harness import HOST, Address, dial, exit_of, logged, open_nodes, open_talk, probe, term, until

pytestmark = pytest.mark.real

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: signald.v1\r\n\r\n"
)


async def raw(stack: AsyncExitStack, port: int, said: bytes) -> trio.SocketStream:
    """A TCP connection that says something, and will read nothing."""
    stream = await stack.enter_async_context(await trio.open_tcp_stream(HOST, port))
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await stream.send_all(said)
    return stream


def upgrade(path: str) -> bytes:
    """A WebSocket handshake, as a client says it."""
    return UPGRADE.format(path=path, key=base64.b64encode(bytes(16)).decode()).encode()


def frame(text: str) -> bytes:
    """A masked text frame of up to 125 bytes; the mask is zero."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def test_peers_that_do_nothing_hold_up_nobody(tmp_path: Path) -> None:
    """Half a handshake, no hello, never reading, no answer to a close or to `terminate_app`: exit 0 within the deadline.

    And the sessions of parties that do their part move meanwhile, unnoticed.
    """
    first, second = Address(), Address()
    async with (
        open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes,
        open_talk() as talk,
        AsyncExitStack() as stack,
    ):
        old, new = await nodes.start("old", first), await nodes.start("new", second)
        await talk.worker("worker", first.url, second.url)
        for n in range(3):
            await talk.client(f"client {n}", first.url, second.url)
        talk.begin()
        await raw(stack, first.websocket, b"")
        await raw(stack, first.websocket, b"GET /v1/client HTT")
        await raw(stack, first.websocket, upgrade("/v1/client"))
        await raw(stack, first.websocket, upgrade("/v1/worker"))
        mute = await raw(
            stack, first.websocket, upgrade("/v1/client") + frame('{"type":"connect","want":{"no":"body"}}')
        )
        await raw(stack, first.http, b"")
        await raw(stack, first.http, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        await raw(stack, first.http, b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        for subprotocol in ("signald.v1", None):
            silent = await stack.enter_async_context(dial(first.url, "/v1/worker", subprotocol))
            await silent.ask({"type": "app_ready", "instance_id": "silent", "capacity": 0}, "app_accepted")
        await talk.goes_on(3)
        with suppress(trio.BrokenResourceError):  # the node may have had enough of it before all is said
            for _ in range(50):  # their answers stay unread
                await mute.send_all(frame('{"type":"ping"}') * 500)
        term(old)
        await until(lambda: logged(old, "signal"), 5)
        assert await probe(old) == (503, "shutting_down")
        assert (await probe(old, "/livez"))[0] == 200
        assert await exit_of(old) == 0
        assert logged(old)[-1]["event"] == "stopped"
        await talk.goes_on(3)
        await talk.settle()
        assert [chatter.client.connections for chatter in talk.chatters] == [2] * 3
        assert (await probe(new))[0] == 200
