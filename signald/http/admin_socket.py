"""The admin API's Unix socket, which stays where `signald ctl` searches for it.

A cleaner of /tmp removes the directory of a node that has run for days. The node goes on, but no operator on its host can
reach it. So the socket is made again.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
import trio

CHECK_S = 2.0
"""Between two checks that the socket is there: two system calls, and less than an operator's patience."""

log = structlog.get_logger(__name__)


class AdminSocket:
    """See the module. A node has exactly one; it does nothing with `admin.socket = "off"`."""

    def __init__(
        self,
        open_socket: Callable[[], trio.SocketListener | None],
        serve: Callable[..., Any],
        over: trio.Event,
    ) -> None:
        """`open_socket` makes the socket (None: no socket), `serve` is `serve_http`; the node sets `over` at its end."""
        self._open = open_socket
        self._serve = serve
        self._over = over
        self._refused = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `over`, and remove the socket. Raises OSError when it cannot be made at the start."""
        unix = self._open()
        if unix is None:
            task_status.started()
            return
        path = _path(unix)
        async with trio.open_nursery() as nursery:
            try:
                ended = await self._begin(unix, nursery)
                task_status.started()
                while not await self._over_within(CHECK_S):
                    # A node never replaces the socket of a living node: `open_unix` asks the socket that it finds.
                    again = None if _is_there(path) else self._open_again()
                    if again is not None:
                        ended.set()
                        path, ended = _path(again), await self._begin(again, nursery)
            finally:
                # At once, while answers under way are still written; once, as a successor may have its own there next.
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - one system call on a local file system
            ended.set()

    async def _begin(self, unix: trio.SocketListener, nursery: trio.Nursery) -> trio.Event:
        ended = trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await self._serve([unix], shutdown=ended, task_status=task_status)

        await nursery.start(serve)
        return ended

    async def _over_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._over.wait()
        return self._over.is_set()

    def _open_again(self) -> trio.SocketListener | None:
        try:
            unix = self._open()
        except OSError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("admin_socket_lost", why=self._refused)
            return None
        assert unix is not None
        self._refused = ""
        log.warning("admin_socket_made_again", path=_path(unix))
        return unix


def _is_there(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - one system call on a local file system


def _path(unix: trio.SocketListener) -> str:
    return str(unix.socket.getsockname())
