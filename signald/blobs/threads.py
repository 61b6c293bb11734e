"""Threads for calls that block: bounded in number, and left behind when their caller is cancelled.

A cancel does not reach a call of a library. So a cancelled caller returns at once, and the thread goes on until the time-outs of its
call end it: it is *abandoned*, counted, and keeps its place, so that abandoned threads never become more than the places.
"""

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


class Call(Generic[T]):
    """One call in a thread. The thread asks it whether its caller still waits."""

    def __init__(self, function: Callable[["Call[T]"], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._gone = False
        self._over = False

    def run(self) -> T:
        """Carry out the call, in the thread."""
        return self._function(self)

    def leave(self) -> bool:
        """Tell the thread that its caller has gone. Returns False when the call is over already."""
        with self._lock:
            self._gone = not self._over
            return self._gone

    def settle(self) -> bool:
        """Declare the work done, in the thread. Returns False when the caller has gone before: then undo it."""
        with self._lock:
            self._over = not self._gone
            return self._over


class Threads:
    """At most `places` calls at once, each in a thread; further callers wait, and give up after `wait_s`."""

    def __init__(self, places: int, *, wait_s: float, counts: MediaCounts, start: Start | None = None) -> None:
        """`start` begins a function in a thread; the default takes an idle one of Trio, or a new one."""
        self._limiter = trio.CapacityLimiter(places)
        self._wait_s = wait_s
        self._counts = counts
        self._start: Start = start or trio.lowlevel.start_thread_soon

    async def run(self, function: Callable[[Call[T]], T], deadline_s: float) -> T:
        """Return what `function` returns in a thread; it gets the call, to learn whether the caller has gone.

        Raises what it raises, and MediaAway when no place is free in time or the call takes longer than `deadline_s`.
        """
        call = Call(function)
        await self._take_place(call)
        ended = trio.Event()
        found: list[outcome.Outcome[T]] = []
        token = trio.lowlevel.current_trio_token()
        left = False

        def end(result: outcome.Outcome[T]) -> None:
            found.append(result)
            ended.set()
            self._limiter.release_on_behalf_of(call)
            if left:
                self._counts.abandoned -= 1

        def deliver(result: outcome.Outcome[T]) -> None:
            try:
                token.run_sync_soon(end, result)
            except trio.RunFinishedError:
                return  # the process is about to end

        self._start(call.run, deliver)
        try:
            with trio.move_on_after(deadline_s):
                await ended.wait()
        finally:
            if not found:
                call.leave()
                left = True
                self._counts.abandoned += 1
                self._counts.abandoned_total += 1
        if not found:
            raise MediaAway(f"no answer within {deadline_s:g} s")
        return found[0].unwrap()

    async def _take_place(self, call: object) -> None:
        with trio.move_on_after(self._wait_s) as scope:
            await self._limiter.acquire_on_behalf_of(call)
        if scope.cancelled_caught:
            raise MediaAway(f"no thread has become free within {self._wait_s:g} s")


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
