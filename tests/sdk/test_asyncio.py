"""Tests of the SDK on asyncio: its connections over loopback, and the front over a connection in memory."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from signald.sdk import asyncio as sdk
from signald.sdk import trio as trio_sdk
from signald.sdk.api_core import NoAnswer
from signald.sdk.asyncio_carrier import WebSocketCarrier, dial, open_stream
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import Timing
from signald.sdk.requests import Bytes, ask
from signald.sdk.writing import Frame

SIGNALD = [Subprotocol("signald.v1")]
LIMITS = {"message_bytes": 65536, "messages_per_s": 20.0, "messages_burst": 100, "backlog_messages": 1000}
QUICK = Timing(connect_s=5.0, write_s=0.3)


def test_a_program_on_asyncio_imports_no_trio() -> None:
    """Neither does what it imports; and it has the names of the front for Trio."""
    program = "import sys, signald.sdk.asyncio, signald.sdk.asyncio_carrier; print('trio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
    assert set(sdk.__all__) == set(trio_sdk.__all__) - {"over_stream"}


def test_ctrl_c_ends_a_program_cleanly() -> None:
    """An interrupt comes out as status 130; the program's own errors come out as they are."""

    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def broken() -> None:
        raise LookupError

    # An interrupt that comes out as it is would end pytest, and not fail the test.
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        sdk.run(interrupted)
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == 130
    with pytest.raises(LookupError):
        sdk.run(broken)


# --- connections --------------------------------------------------------------------------------------------------


def over(
    behave: Callable[[ServerConnection], Awaitable[None]],
    use: Callable[[WebSocketCarrier], Coroutine[Any, Any, None]],
    subprotocols: Sequence[Subprotocol] = SIGNALD,
) -> None:
    """Run `use` on a connection to a server that does `behave`."""

    async def main() -> None:
        async with serve(behave, "127.0.0.1", 0, subprotocols=subprotocols, max_size=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with asyncio.timeout(30), dial(f"ws://127.0.0.1:{port}/v1/client", None, QUICK) as carrier:
                await use(carrier)

    asyncio.run(main())


def test_frames_arrive_as_they_were_sent() -> None:
    """Text as text, binary as binary, in order, both ways."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def use(carrier: WebSocketCarrier) -> None:
        frames: list[Frame] = [(True, b'{"a":1}'), (False, b"\x00\xff"), (True, b'"z"')]
        await carrier.send(frames)
        assert [await carrier.receive() for _ in frames] == ['{"a":1}', b"\x00\xff", '"z"']

    over(echo, use)


@pytest.mark.parametrize(("code", "heard"), [(4001, 4001), (1000, 1000), (1005, None)])
def test_the_end_says_its_code(code: int, heard: int | None) -> None:
    """A close comes out with its code and reason, a break without; for `receive` and `send` alike."""

    async def close(connection: ServerConnection) -> None:
        if code == 1005:
            connection.transport.abort()
        else:
            await connection.close(code, "why")

    async def use(carrier: WebSocketCarrier) -> None:
        with pytest.raises(CarrierClosed) as closed:
            await carrier.receive()
        assert closed.value.code == heard
        with pytest.raises(CarrierClosed):
            await carrier.send([(True, b"{}")])

    over(close, use)


def test_a_peer_that_does_not_read_is_cut() -> None:
    """The wait for it is bounded by `Timing.write_s`."""
    release = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await release.wait()

    async def use(carrier: WebSocketCarrier) -> None:
        try:
            with pytest.raises(CarrierClosed, match="not written"):
                await carrier.send([(False, bytes(1024 * 1024))] * 64)
        finally:
            release.set()

    over(deaf, use)


def test_a_peer_that_pings_and_does_not_read_is_cut() -> None:
    """The answers to its pings do not gather without end."""
    cut = asyncio.Event()

    async def pinging(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        try:
            while True:
                for _ in range(1000):
                    await connection.ping(bytes(125))
                    connection.pending_pings.clear()
                await asyncio.sleep(0)
        finally:
            cut.set()

    async def use(carrier: WebSocketCarrier) -> None:
        with pytest.raises(CarrierClosed):
            await carrier.receive()
        await cut.wait()

    over(pinging, use)


def test_another_protocol_is_another_server() -> None:
    """A WebSocket server that takes no `signald.v1` is not signald."""

    async def idle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def use(carrier: WebSocketCarrier) -> None:
        raise AssertionError("it is a connection")

    with pytest.raises(sdk.DialFailed) as failed:
        over(idle, use, [])
    assert failed.value.wrong_url


def answered(answer: bytes, use: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Run `use` with the port of a server that answers each request with `answer`."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        async with asyncio.timeout(30), server:
            await use(server.sockets[0].getsockname()[1])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "code", "wrong"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", None, True),
        (b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", None, True),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 4401, False),
        (b"HTTP/1.1 503 Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 1013, False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, False),
        (b"", None, False),
    ],
)
def test_a_handshake_that_is_refused(answer: bytes, code: int | None, wrong: bool) -> None:
    """The answer means what it does on Trio, and a redirect is not followed."""

    async def use(port: int) -> None:
        with pytest.raises(sdk.DialFailed) as failed:
            async with dial(f"ws://127.0.0.1:{port}/v1/client", None, QUICK):
                pass
        assert (failed.value.code, failed.value.wrong_url) == (code, wrong)
        assert failed.value.retry_after_ms == (7000 if code == 1013 else None)

    answered(answer, use)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "ws://no such host", "ws://name.invalid"])
def test_a_host_that_is_not_there(url: str) -> None:
    """It is a failed dial, whatever its name is."""

    async def main() -> None:
        with pytest.raises(sdk.DialFailed):
            async with dial(url, None, QUICK):
                pass

    asyncio.run(main())


def test_no_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not even by a program that logs everything: `websockets` says whole frames at DEBUG."""

    async def idle(connection: ServerConnection) -> None:
        connection.protocol.logger.setLevel(logging.WARNING)
        await connection.recv()

    async def use(carrier: WebSocketCarrier) -> None:
        await carrier.send([(True, b'{"recovery_token":"hush"}')])

    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.server").setLevel(logging.WARNING)
    over(idle, use)
    assert "hush" not in caplog.text


def test_a_request_over_http() -> None:
    """An answer comes out whole; one that breaks off is none."""

    async def whole(port: int) -> None:
        answer = await ask(
            open_stream, f"ws://127.0.0.1:{port}", "POST", "/v1/x", headers={}, body=Bytes(b"?"), timeout_s=20
        )
        assert (answer.status, answer.body) == (200, b"right")

    async def broken(port: int) -> None:
        with pytest.raises(NoAnswer):
            await ask(open_stream, f"ws://127.0.0.1:{port}", "GET", "/v1/x", headers={}, timeout_s=20)

    answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright", whole)
    answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nright", broken)


# --- the front ----------------------------------------------------------------------------------------------------


class Node:
    """The node's end of connections in memory: what the party says, and what is said to it."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.stood = 0

    async def receive(self) -> str | bytes:
        """Give the party what was said to it."""
        message = await self.heard.get()
        if message["type"] == "close":
            raise CarrierClosed(message["code"], "")
        return json.dumps(message)

    async def send(self, frames: Sequence[Frame]) -> None:
        """Take what the party says."""
        for _, payload in frames:
            self.said.put_nowait(json.loads(payload))

    async def aclose(self, code: int, reason: str) -> None:
        """End politely."""

    def abort(self) -> None:
        """End at once."""

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator["Node"]:
        """Connect."""
        self.stood += 1
        yield self

    def tell(self, kind: str, **fields: Any) -> None:
        """Say something to the party."""
        self.heard.put_nowait({"type": kind, **fields})

    def begin(self) -> None:
        """Answer the opening message of a client."""
        self.tell(
            "session_started", session="s_1", recovery_token="s_1.first", token_ttl_ms=300_000,
            peer={"state": "paired", "id": "w_1"}, next_seq=1, limits=LIMITS, heartbeat_ms=20_000,
        )  # fmt: skip

    def accept(self) -> None:
        """Answer the opening message of a worker."""
        self.tell(
            "app_accepted", status="OK", worker="w_1", recovery_token="w_1.first", token_ttl_ms=300_000, heartbeat_ms=20_000,
        )  # fmt: skip


def play(scene: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    """Run a scene; no task may outlive it."""

    async def main() -> None:
        async with asyncio.timeout(30):
            await scene(Node())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_wait_that_is_given_up_loses_no_message() -> None:
    """A timeout around the next message, or a task that is cancelled in it, leaves it for the next call."""

    async def scene(node: Node) -> None:
        node.begin()
        async with sdk.open_client("ws://n", dial=node.dial) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(client)
            waiting = asyncio.create_task(anext(client))
            await asyncio.sleep(0)
            node.tell("message", seq=1, data="one")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (await anext(client)).data == "one"

    play(scene)


def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """No group around it, and nothing runs on."""

    async def scene(node: Node) -> None:
        node.begin()
        with pytest.raises(LookupError):
            async with sdk.open_client("ws://n", dial=node.dial):
                raise LookupError

    play(scene)


def test_a_task_with_a_client_can_be_cancelled() -> None:
    """A cancelled task ends its parties and itself."""

    async def scene(node: Node) -> None:
        node.begin()
        begun = asyncio.Event()

        async def work() -> None:
            async with sdk.open_client("ws://n", dial=node.dial) as client:
                begun.set()
                await anext(client)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(scene)


def test_a_refusal_is_raised() -> None:
    """A client that signald does not take raises `Refused`."""

    async def scene(node: Node) -> None:
        node.tell("close", code=4403)
        with pytest.raises(sdk.Refused):
            async with sdk.open_client("ws://n", dial=node.dial):
                pass

    play(scene)


def test_a_handler_that_fails_takes_no_other_with_it() -> None:
    """Its session is given back, and the handler of another one goes on until the block of the worker is left."""

    async def scene(node: Node) -> None:
        cancelled = asyncio.Event()

        async def handler(session: sdk.WorkerSession) -> None:
            async for message in session:
                if message.data == "fail":
                    raise LookupError
                try:
                    await session.send(message.data)
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

        async def until(kind: str) -> dict[str, Any]:
            while (said := await node.said.get())["type"] != kind:
                pass
            return said

        node.accept()
        async with sdk.open_worker("ws://n", handler, instance_id="i", capacity=2, dial=node.dial):
            for name in ("s_1", "s_2"):
                node.tell("session_assigned", session=name, client={}, next_seq=1)
                await until("session_accept")
            node.tell("message", session="s_1", seq=1, data="fail")
            node.tell("message", session="s_2", seq=1, data="hold")
            said = {("session_refuse", "s_1"), ("message", "s_2")}
            while said:
                one = await node.said.get()
                said.discard((one["type"], one.get("session")))
        assert cancelled.is_set()

    play(scene)
