"""A fleet in a thread of its own, behind ports of the loopback interface: for programs on asyncio, in real time.

Each party has a port of its own, its door, so that faults reach one party and spare the others. Behind the door its bytes go through
the same network as those of a test in memory.

    the program ▸ TCP ▸ door ▸ Wire (faults, held steps) ▸ node            two tasks for each connection carry the bytes
"""

import asyncio
import concurrent.futures
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

import trio

from signald.ids import Entropy, SystemEntropy
from signald.store.memory import MemoryWorld
from signald.testing.app.bridge import Way, connect_plain
from signald.testing.app.fleet import Sections, open_fleet

P = ParamSpec("P")
T = TypeVar("T")

STOP_S = 10.0
"""How long the thread may take to end: a node that is cancelled gives its lease back within a second."""

PIECE_BYTES = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time: a close is a reset then, as the kernel of a killed process sends it."""

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Thread:
    """The bridge of a test on asyncio to a fleet in a thread."""

    def __init__(self, seed: int, nodes: int, config: Sections) -> None:
        self._begin = (seed, nodes, config)
        self._begun: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, name="signald cluster", daemon=True)
        self._doors: dict[str, Way] = {}

    async def start(self) -> None:
        """Start the thread; return when its nodes are ready. Raises what their start raises."""
        self._thread.start()
        await asyncio.wrap_future(self._begun)

    async def stop(self) -> None:
        """End the fleet and its thread."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._over.set)
        await asyncio.to_thread(self._thread.join, STOP_S)

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            if self._begun.done():
                raise  # threading shows the traceback; the calls under way raise RuntimeError
            self._begun.set_exception(error)

    async def _serve(self) -> None:
        seed, nodes, config = self._begin
        async with open_fleet(seed, nodes, config, world=MemoryWorld()) as fleet, trio.open_nursery() as nursery:
            self.fleet = fleet
            self._nursery = nursery
            self._token = trio.lowlevel.current_trio_token()
            self._over = trio.Event()
            self._begun.set_result(None)
            await self._over.wait()
            nursery.cancel_scope.cancel(reason="the test is over")

    async def run(self, call: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Bridge`. Raises RuntimeError: the fleet has ended."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        work = partial(_work, future, partial(call, *args, **kwargs))
        try:
            self._token.run_sync_soon(self._spawn, work, future)
        except trio.RunFinishedError:
            raise RuntimeError("the cluster has ended") from None
        return await asyncio.wrap_future(future)

    def _spawn(self, work: Callable[[], Awaitable[None]], future: "concurrent.futures.Future[Any]") -> None:
        try:
            self._nursery.start_soon(work)
        except RuntimeError:
            future.set_exception(RuntimeError("the cluster has ended"))

    def entropy(self, party: str) -> Entropy:
        """See `Bridge`. In real time a seed would repeat nothing."""
        del party
        return SystemEntropy()

    async def way(self, party: str) -> Way:
        """See `Bridge`."""
        if party not in self._doors:
            port = await self.run(self._open_door, party)
            self._doors[party] = Way(f"ws://127.0.0.1:{port}")
        return self._doors[party]

    async def _open_door(self, party: str) -> int:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await self._nursery.start(trio.serve_listeners, partial(self._carry, party), listeners)
        port: int = listeners[0].socket.getsockname()[1]
        return port

    async def _carry(self, party: str, stream: trio.SocketStream) -> None:
        """Carry the bytes of one connection, both ways, until either end closes it."""
        try:
            inner = connect_plain(self.fleet, party)
        except ConnectionRefusedError:
            _reset(stream)
            return
        async with trio.open_nursery() as nursery:

            async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                try:
                    while data := await source.receive_some(PIECE_BYTES):
                        await sink.send_all(data)
                except BROKEN:
                    _reset(stream)
                nursery.cancel_scope.cancel(reason="the connection is over")

            nursery.start_soon(pump, stream, inner)
            nursery.start_soon(pump, inner, stream)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await trio.aclose_forcefully(inner)
            await trio.aclose_forcefully(stream)


def _reset(stream: trio.SocketStream) -> None:
    """Close a connection by a reset."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


async def _work(future: "concurrent.futures.Future[T]", call: Callable[[], Awaitable[T]]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = await call()
    except Exception as error:  # noqa: BLE001 - the caller in the other thread gets it
        future.set_exception(error)
    except BaseException:
        future.set_exception(RuntimeError("the cluster has ended"))
        raise
    else:
        future.set_result(result)


@asynccontextmanager
async def threaded(seed: int, nodes: int, config: Sections) -> AsyncIterator[Thread]:
    """Run a fleet in a thread for the time of the block, on asyncio."""
    thread = Thread(seed, nodes, config)
    await thread.start()
    try:
        yield thread
    finally:
        await thread.stop()
