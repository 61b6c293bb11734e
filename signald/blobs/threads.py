"""Threads for calls that block: bounded in number, and left behind when their caller is cancelled.

A cancel does not reach a call of a library. So a cancelled caller returns at once, and the thread goes on until the time-outs of its
call end it: it is *abandoned*, counted, and keeps its place, so that abandoned threads never become more than the places.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

from signald.blobs.media import MediaCounts
from signald.errors import MediaAway

T = TypeVar("T")

Start = Callable[[Callable[[], Any], Callable[[outcome.Outcome[Any]], object]], None]
"""Begins a function in a thread, and gives its outcome to a callback in that thread."""


class Threads:
    """At most `places` calls at once, each in a thread; further callers wait, and give up after `wait_s`."""

    def __init__(self, places: int, *, wait_s: float, counts: MediaCounts, start: Start | None = None) -> None:
        """`start` begins a function in a thread; the default takes an idle one of Trio, or a new one."""
        self.limiter = trio.CapacityLimiter(places)
        self.counts = counts
        self.start: Start = start or trio.lowlevel.start_thread_soon
        self._wait_s = wait_s

    async def run(self, function: Callable[[], T], deadline_s: float, *, undo: Callable[[], object] | None = None) -> T:
        """Return what `function` returns in a thread. When its caller has gone before it succeeds, `undo` follows it in a thread.

        Raises what it raises, and MediaAway when no place is free in time or the call takes longer than `deadline_s`.
        """
        call = _Call(self, function, undo)
        with trio.move_on_after(self._wait_s) as scope:
            await self.limiter.acquire_on_behalf_of(call)
        if scope.cancelled_caught:
            raise MediaAway(f"no thread has become free within {self._wait_s:g} s")
        result = await call.outcome_within(deadline_s)
        if result is None:
            raise MediaAway(f"no answer within {deadline_s:g} s")
        return result.unwrap()


class _Call(Generic[T]):
    """One call in a thread, which has a place until it and the call that undoes it are over."""

    def __init__(self, threads: Threads, function: Callable[[], T], undo: Callable[[], object] | None) -> None:
        self._threads = threads
        self._function = function
        self._undo = undo
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._result: outcome.Outcome[T] | None = None
        self._left = False

    async def outcome_within(self, deadline_s: float) -> outcome.Outcome[T] | None:
        """Begin the call and wait for it; None when it takes longer. It is abandoned then, and when the caller is cancelled."""
        self._threads.start(self._function, self._deliver)
        taken = None
        try:
            with trio.move_on_after(deadline_s):
                await self._ended.wait()
            taken = self._result
        finally:
            if taken is not None:
                self._threads.limiter.release_on_behalf_of(self)
            else:
                self._abandon()
        return taken

    def _abandon(self) -> None:
        self._left = True
        self._threads.counts.abandoned += 1
        self._threads.counts.abandoned_total += 1
        if self._result is not None:  # its end and the cancel have crossed
            self._leave_place()

    def _deliver(self, result: outcome.Outcome[T]) -> None:
        # In the thread.
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end, result)

    def _end(self, result: outcome.Outcome[T]) -> None:
        self._result = result
        self._ended.set()
        if self._left:
            self._leave_place()

    def _leave_place(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None and isinstance(self._result, outcome.Value):
            self._threads.start(undo, self._deliver)
        else:
            self._threads.counts.abandoned -= 1
            self._threads.limiter.release_on_behalf_of(self)


class Lane:
    """One thread of its own, for calls that hold large buffers.

    An allocator keeps what a thread has freed for that thread. Twenty uploads to S3 by twenty threads, one after the other, left 54 MiB;
    by one thread 6 MiB.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[outcome.Outcome[Any]], object]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(
            target=self._serve, name=name, daemon=True
        )  # a hung call does not hold the exit
        self._thread.start()

    def start(self, function: Callable[[], Any], deliver: Callable[[outcome.Outcome[Any]], object]) -> None:
        """Carry out `function` after those before it. `Threads` with one place lets one come at a time."""
        self._calls.put((function, deliver))

    def close(self) -> None:
        """End the thread when its call is over; does not wait."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            function, deliver = call
            deliver(cast("outcome.Outcome[Any]", outcome.capture(function)))
            del call, function, deliver  # what they refer to may be large
