"""`handover_socket`: a worker's own connection to another service, moved before it is cut.

Services of models close their sockets by a clock (after an hour, after ten minutes with a word before). The loop that carries a session of
signald over a deploy does the same here: open another socket while the one that is left still serves, send on the new one from then on, and
read the old one to its end.

    SERVING ── notice, or `age_s` is near ──▶ DUE ── `boundary()`, or a third of the notice is left ──▶ MOVING ── open ──▶ SERVING
       └────────────── the socket breaks ──────────────────────────────────────────────────────────────▶ MOVING
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from signald.ids import Entropy, SystemEntropy
from signald.sdk.backoff import Backoff
from signald.sdk.front.waiting import Lot

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

RETIRE_S = 10.0
"""How long a socket that was left is read: what was asked on it may still be answered. As long as the SDK reads a left node."""

UNREAD_MAX = 100
"""What waits for the application: then the sockets are not read either, and the service sees a slow reader."""

DUE_SHARE = 1 / 3
"""Of a notice, what is left for the move when no boundary comes: enough for a connect that is tried twice."""

AGE_NOTICE_S = 60.0
"""How long before `age_s` a move is due, where the service gives no notice of its own: a turn of speech ends within it."""


STABLE_S = 5.0
"""A socket that lives less long counts as one that could not be opened, so that a service that closes at once is not asked in a loop."""


class UpstreamSocket(Protocol):
    """A connection to another service, such as one of `websockets`: `send`, and items by `async for`, which ends or raises at its end."""

    async def send(self, data: Any, /) -> None:
        """Send one message."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return what comes."""


S = TypeVar("S", bound=UpstreamSocket)
Connect = Callable[[], AbstractAsyncContextManager[S]]
"""Opens a socket for the time of a block, and says on it what resumes the conversation there."""


class UpstreamGone(Exception):
    """No socket could be opened for so long that the loop has given up."""


class HandoverSocket(Generic[S]):
    """A socket that outlives its connections. Made by `handover_socket`."""

    def __init__(self, connect: Connect[S], backoff: Backoff, entropy: Entropy, age_s: float, retire_s: float) -> None:
        self._connect = connect
        self._backoff = backoff
        self._entropy = entropy
        self._age_s = age_s
        self._retire_s = retire_s
        self._changed = Lot()
        self._current: S | None = None
        self._left: anyio.Event | None = None
        self._due_at = inf
        self._latest_at = inf
        self._failure: Exception | None = None
        self._put, self._items = anyio.create_memory_object_stream[Any](UNREAD_MAX)
        self.opened = 0
        """How many sockets were opened so far."""

    @property
    def due(self) -> bool:
        """True when the socket is to be left at the next `boundary`: a good moment to begin no long request."""
        return anyio.current_time() >= self._due_at

    def going_away(self, left_s: float) -> None:
        """Note that the service closes this socket in `left_s` seconds: it has said so, as by `goAway`."""
        now = anyio.current_time()
        self._due_at = min(self._due_at, now)
        self._latest_at = min(self._latest_at, now + max(left_s, 0.0) * (1 - DUE_SHARE))
        self._changed.unpark_all()

    def boundary(self) -> None:
        """Nothing is under way on the socket, as between two turns: if a move is due, it is made now."""
        if self.due:
            self._latest_at = anyio.current_time()
            self._changed.unpark_all()

    async def send(self, data: Any) -> None:
        """Send on the socket that serves; wait while there is none. What breaks in the middle of it is raised: it may have arrived.

        Raises:
            UpstreamGone: none could be opened.
            Exception: any that the socket raises; the next call goes to the next socket.
        """
        while self._current is None:
            if self._failure is not None:
                raise self._failure
            await self._changed.park()
        await self._current.send(data)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return what comes next, of the socket that serves or of one that was left and is still read.

        Raises:
            UpstreamGone: none could be opened.
        """
        try:
            return await self._items.receive()
        except anyio.EndOfStream:
            if self._failure is not None:
                raise self._failure from None
            raise StopAsyncIteration from None

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Keep a socket open until cancelled, or until the tries are over."""
        failures = 0
        with self._put:
            while True:
                began, failure = anyio.current_time(), None
                try:
                    self._left = await tasks.start(self._serve, self._left)
                except Exception as error:  # noqa: BLE001 - whatever a connect raises, the next one may not
                    failure = error
                    log.info("no socket could be opened: %s", error)
                else:
                    await self._wait_due()
                # One that breaks at once is as good as none.
                broke_early = self._current is None and anyio.current_time() - began < STABLE_S
                if failure is None and not broke_early:
                    failures = 0
                    continue
                failures += 1
                if self._backoff.tries_max is not None and failures >= self._backoff.tries_max:
                    self._failure = UpstreamGone(f"no socket could be opened, {failures} times: {failure}")
                    self._changed.unpark_all()
                    return
                ceiling_s = min(self._backoff.cap_s, self._backoff.base_s * 2**failures)
                await anyio.sleep(self._entropy.uniform(0.0, ceiling_s))

    async def _wait_due(self) -> None:
        """Wait until the socket is to be left, or has broken."""
        while self._current is not None and anyio.current_time() < self._latest_at:
            with anyio.CancelScope(deadline=self._latest_at):
                await self._changed.park()

    async def _serve(self, leave: anyio.Event | None, *, task_status: Any) -> None:
        """Open a socket, make it the one that serves, and read it to its end."""
        socket: S | None = None
        try:
            async with self._connect() as socket:
                left, now = anyio.Event(), anyio.current_time()
                self._current, self.opened = socket, self.opened + 1
                notice_s = min(AGE_NOTICE_S, self._age_s / 2)
                self._due_at = now + self._age_s - notice_s
                self._latest_at = now + self._age_s - notice_s * DUE_SHARE
                if leave is not None:
                    leave.set()
                self._changed.unpark_all()
                task_status.started(left)
                await self._read(socket, left)
        except Exception as error:
            if socket is None:
                raise
            log.info("a socket broke: %s", error)  # however it broke, the answer is another one
        finally:
            if socket is not None and self._current is socket:
                self._current = None
                self._changed.unpark_all()

    async def _read(self, socket: S, left: anyio.Event) -> None:
        async with anyio.create_task_group() as tasks:

            async def retire() -> None:
                await left.wait()
                await anyio.sleep(self._retire_s)
                tasks.cancel_scope.cancel(reason="a socket that was left is read no longer")

            tasks.start_soon(retire)
            async for item in socket:
                await self._put.send(item)
            tasks.cancel_scope.cancel(reason="the socket has ended")


UPSTREAM_BACKOFF = Backoff(base_s=0.25, cap_s=20.0, tries_max=10)
"""Ten tries, about a minute: then the handler hears of it, and may tell its client."""


@asynccontextmanager
async def handover_socket(
    connect: Connect[S],
    *,
    age_s: float = inf,
    retire_s: float = RETIRE_S,
    backoff: Backoff = UPSTREAM_BACKOFF,
    entropy: Entropy | None = None,
) -> AsyncIterator[HandoverSocket[S]]:
    """Keep a socket of another service open for the time of the block, and move it to another one before it is cut.

    `connect` opens a socket, and says on it what resumes the conversation there (a handle, the turns so far). `age_s` is how long the
    service keeps a socket; where it gives notice, call `going_away(left_s)`. Call `boundary()` where a move does no harm, as between two
    turns. The socket that is left is read until it ends, for at most `retire_s`; what comes on both is in the order in which it comes.
    What was sent and not answered when a socket breaks is not sent again, because only the application knows whether it may be.

    Leaving the block closes all sockets.
    """
    socket = HandoverSocket(connect, backoff, entropy or SystemEntropy(), age_s, retire_s)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(socket.run, tasks)
        try:
            with socket._items:
                yield socket
        except Exception as error:  # noqa: BLE001 - it is raised again below, outside the nursery that would wrap it
            failure = error
        tasks.cancel_scope.cancel(reason="the block was left")
    if failure is not None:
        raise failure
