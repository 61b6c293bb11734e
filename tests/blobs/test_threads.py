"""Threads that a cancel leaves behind: counted, bounded, and free again when their call is over. No thread runs in most tests."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from signald.blobs.media import MediaCounts
from signald.blobs.threads import Lane, Threads
from signald.errors import MediaAway


class Held:
    """Calls that have begun and end when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[], Any], Callable[[outcome.Outcome[Any]], object]]] = []

    def start(self, function: Callable[[], Any], deliver: Callable[[outcome.Outcome[Any]], object]) -> None:
        """Take the place of a thread."""
        self.calls.append((function, deliver))

    async def end(self, number: int = 0) -> None:
        """Have one call end, and the loop hear of it."""
        function, deliver = self.calls.pop(number)
        deliver(outcome.capture(function))
        await trio.testing.wait_all_tasks_blocked()


def threads(places: int, held: Held) -> tuple[Threads, MediaCounts]:
    """Return threads that `held` plays."""
    counts = MediaCounts()
    return Threads(places, wait_s=5, counts=counts, start=held.start), counts


async def cancelled(pool: Threads) -> None:
    """Begin a call and cancel its caller."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, lambda: None, 60)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()


async def test_a_cancelled_caller_returns_at_once_and_its_thread_is_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The call goes on; when it ends, nothing of it is left."""
    held = Held()
    pool, counts = threads(2, held)
    await cancelled(pool)
    assert trio.current_time() == pytest.approx(0)
    assert (counts.abandoned, counts.abandoned_total) == (1, 1)
    await held.end()
    assert (counts.abandoned, counts.abandoned_total) == (0, 1)


async def test_abandoned_threads_keep_their_places(autojump_clock: trio.testing.MockClock) -> None:
    """With all places abandoned a further call is put off, and never begins a thread beyond the bound."""
    held = Held()
    pool, counts = threads(2, held)
    for _ in range(2):
        await cancelled(pool)
    with pytest.raises(MediaAway, match="no thread has become free within 5 s"):
        await pool.run(lambda: None, 60)
    assert trio.current_time() == pytest.approx(5)
    assert (len(held.calls), counts.abandoned) == (2, 2)
    await held.end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run, lambda: None, 60)
        await trio.testing.wait_all_tasks_blocked()
        assert len(held.calls) == 2
        await held.end(1)


async def test_a_caller_that_waits_for_a_place_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """It has begun nothing, so nothing is abandoned."""
    held = Held()
    pool, counts = threads(1, held)
    await cancelled(pool)
    await cancelled(pool)
    assert (len(held.calls), counts.abandoned_total) == (1, 1)


async def test_a_call_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """After it the caller is told, and the thread is abandoned."""
    held = Held()
    pool, counts = threads(1, held)
    with pytest.raises(MediaAway, match="no answer within 60 s"):
        await pool.run(lambda: None, 60)
    assert trio.current_time() == pytest.approx(60)
    assert counts.abandoned == 1


async def test_the_outcome_is_that_of_the_call() -> None:
    """A result and an error come through, by threads of Trio."""
    pool = Threads(2, wait_s=5, counts=MediaCounts())
    assert await pool.run(lambda: threading.get_ident(), 60) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0, 60)


@pytest.mark.parametrize("order", ["cancel, end", "end, cancel", "crossing", "crossing, the end first"])
async def test_what_succeeds_without_its_caller_is_undone(order: str) -> None:
    """Whichever comes first, also within one turn of the loop: a caller hears of the success, or it is undone. Not both."""
    held = Held()
    heard: list[str] = []
    undone: list[int] = []
    pool, counts = threads(1, held)

    async def call() -> None:
        heard.append(await pool.run(lambda: "done", 60, undo=partial(undone.append, 1)))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            function, deliver = held.calls.pop()
            if order.endswith("the end first") or order.startswith("end"):
                deliver(outcome.capture(function))
            if order == "end, cancel":
                await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            if order == "crossing":
                deliver(outcome.capture(function))
    if order == "cancel, end":
        deliver(outcome.capture(function))
    await trio.testing.wait_all_tasks_blocked()
    assert len(heard) + len(held.calls) == 1
    assert pool.limiter.borrowed_tokens == counts.abandoned == len(held.calls)
    while held.calls:
        await held.end()
    assert len(heard) + len(undone) == 1
    assert (pool.limiter.borrowed_tokens, counts.abandoned) == (0, 0)


async def test_what_fails_without_its_caller_is_not_undone() -> None:
    """It has done nothing."""
    held = Held()
    undone: list[int] = []
    pool, counts = threads(1, held)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.run(lambda: 1 // 0, 60, undo=partial(undone.append, 1)))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await held.end()
    assert (held.calls, undone, counts.abandoned) == ([], [], 0)


async def test_a_lane_is_one_thread() -> None:
    """All its calls run in one thread, one after the other."""
    lane = Lane("test")
    pool = Threads(1, wait_s=5, counts=MediaCounts(), start=lane.start)
    seen: set[int] = set()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(pool.run, lambda: seen.add(threading.get_ident()), 60)
    assert len(seen) == 1
    lane.close()
