"""A thread for the calls that block: name resolution, TCP, TLS, login, loading scripts.

It lives until it is closed, so that a call costs two wake-ups and no start. What a call returns or raises goes to the task
that waits for it in the event loop. Nothing here knows of Redis.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import outcome
import trio

from signald.errors import StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Thread:
    """A thread that trio can wait for. It ends when its `body` does; to bring that about is its owner's business."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._body = body
        self._name = name
        self._ended = trio.Event()

    def start(self) -> None:
        # A daemon thread: name resolution cannot be cut short, and must not hold up the end of the process.
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._body()
        except BaseException:
            log.exception("the thread %s failed", self._name)
        finally:
            self.soon(self._ended.set)

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Call in trio's thread; nothing happens when trio has ended."""
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(call, *args)

    async def join(self, within_s: float) -> None:
        """Wait for the end, even when cancelled, but not longer than `within_s`."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + within_s) as scope:
            await self._ended.wait()
        if scope.cancelled_caught:
            log.warning("the thread %s did not end within %.1f s", self._name, within_s)


class Repeater:
    """One thread that makes a call again and again, with a pause before each, until it is closed."""

    def __init__(self, name: str, call: Callable[[], None], every_s: float) -> None:
        self._call = call
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = _Thread(name, self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._call()
            except Exception:
                log.exception("a call of the thread %s failed", threading.current_thread().name)

    async def close(self, within_s: float) -> None:
        """Make no more calls, and wait for the one under way."""
        self._over.set()
        await self._thread.join(within_s)


class _Job:
    """One call in the thread of a `Lane`, and the task that waits for it."""

    __slots__ = ("abandoned", "call", "task")

    def __init__(self, call: Callable[[], object], task: trio.lowlevel.Task) -> None:
        self.call = call
        self.task = task
        self.abandoned = False

    def abandon(self, _: object) -> trio.lowlevel.Abort:
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED


class Lane:
    """One thread that makes calls one after the other.

    The queue is as long as the tasks waiting here are many: each has one job in it at most. A job whose task has gone is
    left out when its turn comes.
    """

    def __init__(self, name: str) -> None:
        self.busy = 0
        """How many calls were begun or queued and have not ended, with or without a task that waits for them."""
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = _Thread(name, self._work)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            result = outcome.Value(None) if job.abandoned else outcome.capture(job.call)
            self._thread.soon(self._settle, job, result)

    def _settle(self, job: _Job, result: "outcome.Outcome[object]") -> None:
        self.busy -= 1
        if not job.abandoned:
            trio.lowlevel.reschedule(job.task, result)

    async def run(self, call: Callable[[], T]) -> T:
        """Make `call` and return what it does. When cancelled, the call may still happen, and its result is discarded."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        job = _Job(call, trio.lowlevel.current_task())
        self.busy += 1
        self._queue.put(job)
        result: T = await trio.lowlevel.wait_task_rescheduled(job.abandon)
        return result

    async def close(self, within_s: float) -> None:
        """Make no more calls and let the thread end."""
        self._closed = True
        self._queue.put(None)
        await self._thread.join(within_s)
