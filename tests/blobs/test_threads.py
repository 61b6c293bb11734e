"""Threads that a cancel leaves behind: counted, bounded, and free again when their call is over. No thread runs in most tests."""

import threading
from collections.abc import Callable
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from signald.blobs.media import MediaCounts
from signald.blobs.threads import Call, Lane, Threads
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


async def cancelled(pool: Threads, function: Callable[[Call[Any]], Any] = lambda _: None) -> None:
    """Begin a call and cancel its caller."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, function, 60)
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
        await pool.run(lambda _: None, 60)
    assert trio.current_time() == pytest.approx(5)
    assert (len(held.calls), counts.abandoned) == (2, 2)
    await held.end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run, lambda _: None, 60)
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
        await pool.run(lambda _: None, 60)
    assert trio.current_time() == pytest.approx(60)
    assert counts.abandoned == 1


async def test_the_outcome_is_that_of_the_call() -> None:
    """A result and an error come through, by threads of Trio."""
    pool = Threads(2, wait_s=5, counts=MediaCounts())
    assert await pool.run(lambda _: threading.get_ident(), 60) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda _: 1 // 0, 60)


async def test_a_call_learns_whether_its_caller_has_gone(autojump_clock: trio.testing.MockClock) -> None:
    """What it has done is settled for a caller that waits, and to be undone for one that has gone."""
    held = Held()
    pool, _ = threads(2, held)
    settled: list[bool] = []
    await cancelled(pool, lambda call: settled.append(call.settle()))
    await held.end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run, lambda call: settled.append(call.settle()), 60)
        await trio.testing.wait_all_tasks_blocked()
        await held.end()
    assert settled == [False, True]


async def test_a_lane_is_one_thread() -> None:
    """All its calls run in one thread, one after the other."""
    lane = Lane("test")
    pool = Threads(1, wait_s=5, counts=MediaCounts(), start=lane.start)
    seen: set[int] = set()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(pool.run, lambda _: seen.add(threading.get_ident()), 60)
    assert len(seen) == 1
    lane.close()
