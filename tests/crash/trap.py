"""A TCP proxy between a node and Redis that counts the operations, and kills the node at one of them."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, get_args

import hiredis
import trio

from tests.store.redis_servers import HOST

Moment = Literal["before", "unheard", "after"]
"""Before Redis gets the operation; when it has carried it out and the node does not know; when the node has the answer."""
MOMENTS: tuple[Moment, ...] = get_args(Moment)

OPERATIONS = (b"EVALSHA", b"EVAL")

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Requests:
    """Cuts what a client sends into requests: arrays of bulk strings."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return each request that is complete now: its name and its bytes."""
        self._data += data
        requests = []
        while (end := self._end()) is not None:
            raw, self._data = self._data[:end], self._data[end:]
            requests.append((raw.split(b"\r\n", 3)[2].upper(), raw))
        return requests

    def _end(self) -> int | None:
        line = self._data.find(b"\r\n")
        if line < 0:
            return None
        at = line + 2
        for _ in range(int(self._data[1:line])):
            line = self._data.find(b"\r\n", at)
            if line < 0:
                return None
            at = line + 2 + int(self._data[at + 1 : line]) + 2
        return at if at <= len(self._data) else None


class Trap:
    """Forwards until the operation comes at which the node is to die; then nothing, in neither direction."""

    def __init__(self, to_port: int) -> None:
        self.url = ""
        self.sprung = trio.Event()
        self.count = 0
        """Operations seen since it was armed."""
        self._to_port = to_port
        self._number = 0
        self._moment: Moment = "before"
        self._kill: Callable[[], None] = lambda: None

    def arm(self, moment: Moment, number: int, kill: Callable[[], None]) -> None:
        """Call `kill` at the `number`-th operation from now on."""
        self.count, self._number, self._moment, self._kill = 0, number, moment, kill

    def _spring(self) -> None:
        if not self.sprung.is_set():
            self.sprung.set()
            self._kill()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.url = f"redis://{HOST}:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)  # type: ignore[arg-type]

    async def _serve(self, near: trio.SocketStream) -> None:
        asked: deque[bool] = deque()  # for each request under way, whether it is the one
        async with near, await trio.open_tcp_stream(HOST, self._to_port) as far, trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            nursery.start_soon(self._forth, near, far, asked, scope)
            with suppress(*_GONE):
                await self._back(far, near, asked)
            scope.cancel(reason="Redis or the node has gone")

    async def _forth(
        self, near: trio.SocketStream, far: trio.SocketStream, asked: deque[bool], scope: trio.CancelScope
    ) -> None:
        requests = Requests()
        try:
            async for data in near:
                for name, raw in requests.feed(bytes(data)):
                    if self.sprung.is_set():
                        return
                    self.count += name in OPERATIONS
                    chosen = name in OPERATIONS and self.count == self._number
                    asked.append(chosen)
                    if chosen and self._moment == "before":
                        self._spring()
                        return
                    await far.send_all(raw)
        except _GONE:
            pass
        scope.cancel(reason="Redis or the node has gone")

    async def _back(self, far: trio.SocketStream, near: trio.SocketStream, asked: deque[bool]) -> None:
        replies = hiredis.Reader()
        async for data in far:
            replies.feed(bytes(data))
            chosen = False
            # A subscriber is told more than it has asked for.
            while replies.gets() is not False:
                chosen |= bool(asked) and asked.popleft()
            if self.sprung.is_set() or (chosen and self._moment == "unheard"):
                self._spring()
                return
            await near.send_all(data)
            if chosen:
                self._spring()
