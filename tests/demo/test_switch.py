"""The TCP switch as the demo runs it: a real process and real sockets."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Entrance, open_cluster

pytestmark = pytest.mark.real

DEADLINE_S = 20
LARGE = os.urandom(1_000_003) * 64  # more than all socket buffers on the way, there and back, can hold together


async def echo(greeting: bytes, stream: trio.SocketStream) -> None:
    """A stand-in for a node: greets, echoes until the other side has finished, then finishes too."""
    async with stream:
        await stream.send_all(greeting)
        async for data in stream:
            await stream.send_all(data)


async def read_to_end(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


class World:
    """A running switch, what stands behind it, and the connections to it."""

    def __init__(self, entrance: Entrance, nursery: trio.Nursery, exits: AsyncExitStack) -> None:
        self.entrance = entrance
        self.nursery = nursery
        self._exits = exits

    async def echo(self, greeting: bytes) -> tuple[str, int]:
        """Serve `echo` on a free port and return its address."""
        listeners = await self.nursery.start(partial(trio.serve_tcp, partial(echo, greeting), 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()
        return host, port

    async def connect(self) -> trio.SocketStream:
        """Connect to the switch."""
        stream = await trio.open_tcp_stream(*self.entrance.address)
        return await self._exits.enter_async_context(stream)


@asynccontextmanager
async def switched(directory: Path) -> AsyncIterator[World]:
    """A switch of its own process, with a deadline for all that is done with it."""
    with trio.fail_after(DEADLINE_S):
        async with (
            open_cluster(directory, "memory:", {}) as cluster,
            trio.open_nursery() as nursery,
            AsyncExitStack() as exits,
        ):
            yield World(await cluster.open_entrance("only"), nursery, exits)
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_new_connections_follow_the_target_and_old_ones_stay(tmp_path: Path) -> None:
    """A flip moves no connection: those that exist keep their node, those that come afterwards get the new one."""
    async with switched(tmp_path) as world:
        await world.entrance.point_to(await world.echo(b"old"))
        early = await world.connect()
        assert await early.receive_some() == b"old"
        await world.entrance.point_to(await world.echo(b"new"))
        late = await world.connect()
        assert await late.receive_some() == b"new"
        await early.send_all(b"still here")
        assert await early.receive_some() == b"still here"


async def test_nothing_is_lost_when_the_reader_is_slow(tmp_path: Path) -> None:
    """Megabytes of unread data push the sender back, and arrive whole once they are read; so does the goodbye."""
    async with switched(tmp_path) as world:
        await world.entrance.point_to(await world.echo(b""))
        stream = await world.connect()

        sent = 0

        async def send() -> None:
            nonlocal sent
            for start in range(0, len(LARGE), 65536):
                await stream.send_all(LARGE[start : start + 65536])
                sent += 1
            await stream.send_eof()

        world.nursery.start_soon(send)
        before = -1
        while sent != before:  # until every buffer is full and nothing moves any more
            before = sent
            await trio.sleep(0.3)
        assert sent < len(LARGE) // 65536
        assert await read_to_end(stream) == LARGE


async def test_a_refusing_node_closes_the_connection(tmp_path: Path) -> None:
    """When nothing listens at the target, the party sees its connection closed, at once, and later ones work."""
    async with switched(tmp_path) as world:
        listening = await world.echo(b"back")
        unused = trio.socket.socket()
        await unused.bind(("127.0.0.1", 0))  # bound, so no other process gets it; not listening, so it refuses
        await world.entrance.point_to(unused.getsockname())
        assert await (await world.connect()).receive_some() == b""
        await world.entrance.point_to(listening)
        assert await (await world.connect()).receive_some() == b"back"
        unused.close()


async def test_without_a_target_nobody_is_kept_waiting(tmp_path: Path) -> None:
    """Before the first node is ready, a connection is accepted and closed."""
    async with switched(tmp_path) as world:
        assert await (await world.connect()).receive_some() == b""


async def test_a_node_that_dies_is_passed_on(tmp_path: Path) -> None:
    """When the node resets its connections, as a killed one does, the party's ends too."""
    async with switched(tmp_path) as world:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        await world.entrance.point_to(listener.socket.getsockname())
        stream = await world.connect()
        node_side = await listener.accept()
        await stream.send_all(b"never read")  # unread data makes the close a reset
        await trio.sleep(0.05)
        await node_side.aclose()
        with suppress(trio.BrokenResourceError):  # it may look like a reset or like an end, but it must not hang
            assert await stream.receive_some() == b""
        await listener.aclose()


async def test_it_kills_what_it_watches_when_its_master_dies(tmp_path: Path) -> None:
    """When stdin ends without a word, the watched process groups are killed, the forgotten ones are not."""
    sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
    with trio.fail_after(DEADLINE_S):
        watched = await trio.lowlevel.open_process(sleeper, start_new_session=True)
        forgotten = await trio.lowlevel.open_process(sleeper, start_new_session=True)
        try:
            async with open_cluster(tmp_path, "memory:", {}) as cluster:
                entrance = await cluster.open_entrance("only")
                await entrance.command(f"watch {watched.pid}")
                await entrance.command(f"watch {forgotten.pid}")
                await entrance.command(f"forget {forgotten.pid}")
                assert entrance.process.stdin is not None
                await entrance.process.stdin.aclose()
                assert await entrance.process.wait() == 0
                assert await watched.wait() == -signal.SIGKILL
                assert forgotten.poll() is None
        finally:
            for process in (watched, forgotten):
                if process.poll() is None:
                    process.kill()
                    await process.wait()


async def test_a_word_it_does_not_know_is_an_error(tmp_path: Path) -> None:
    """A mistyped command is answered, and does not end the switch."""
    async with switched(tmp_path) as world:
        assert world.entrance.process.stdin is not None
        await world.entrance.process.stdin.send_all(b"aim 127.0.0.1 1\n")
        assert await world.entrance.read_line() == "what?"
        await world.entrance.point_to(await world.echo(b"fine"))
        assert await (await world.connect()).receive_some() == b"fine"


def test_ctrl_c_of_the_terminal_does_not_end_it() -> None:
    """The demo ends its switches itself: a SIGINT for the whole foreground group leaves them running."""
    with subprocess.Popen(
        [sys.executable, "-m", "signald.demo.switch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening")
        process.send_signal(signal.SIGINT)
        process.stdin.write("target 127.0.0.1 1\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ok\n"
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
