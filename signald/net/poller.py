"""One task that waits for the sockets of many connections, and has each read in the turn in which the kernel names it.

    Trio ─▸ an epoll of our own is readable ─▸ up to READY_MAX sockets, in the order of the kernel ─▸ each one's call: read, take, answer

A task that waits for its own socket costs a system call, a registration and a switch for each read, which is a fifth of what a single
message costs a node. Here all reads of a turn share one wait, and what they bring is one batch for the store. Each connection keeps its
task, for its opening, its end and its deadlines; that task sleeps while the poller reads for it (`net.pump`).

Only where the system has epoll (`Poller.works`); elsewhere each connection waits for itself.
"""

import select
from collections.abc import Awaitable, Callable
from functools import partial

import trio

Spawn = Callable[[Callable[[], Awaitable[object]]], None]
"""Starts a task: `nursery.start_soon`."""

READY_MAX = 64
"""Sockets that are read before all other tasks have a turn: a few milliseconds where each has brought a message."""


class Poller:
    """See the module."""

    works = hasattr(select, "epoll")

    def __init__(self, spawn: Spawn) -> None:
        """`spawn` starts its task, which lives while there is a socket to wait for."""
        self._spawn = spawn
        self._calls: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        self._scope = trio.CancelScope()

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Have `call` made, which must not raise, whenever `fd` can be read or its peer is gone, until `remove`."""
        if self._epoll is None:
            self._epoll, self._scope = select.epoll(), trio.CancelScope()
            self._spawn(partial(self._run, self._epoll, self._scope))
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """Forget `fd`, which was added and is still open."""
        del self._calls[fd]
        if self._epoll is not None:
            self._epoll.unregister(fd)
        if not self._calls:
            self._epoll = None  # the next socket gets one of its own, and a task
            self._scope.cancel(reason="there is no socket left to wait for")

    async def _run(self, epoll: select.epoll, scope: trio.CancelScope) -> None:
        calls = self._calls
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(epoll.fileno())
                    for fd, _ in epoll.poll(0, READY_MAX):
                        # One that was read before it in this turn may have ended it.
                        call = calls.get(fd)
                        if call is not None:
                            call()
        finally:
            if self._epoll is epoll:
                self._epoll = None
            epoll.close()
