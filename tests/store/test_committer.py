"""Group commit: what gathers goes together, no caller is answered before the store is, and an away store ends nothing."""

from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import structlog.testing
import trio
import trio.testing

from signald.errors import StoreError, StoreMisused, StoreUnavailable
from signald.store.base import Done, Op, Result, Wake
from signald.store.committer import Committer
from signald.store.registry.ops import Forget


class Scripted:
    """A store that fails as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.failures: list[StoreError] = []
        self.batches: list[list[Op]] = []

    lives = 1

    def now_ms(self) -> int:
        """Return a time; no test asks for it here."""
        return 0

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Fail with the next failure, or do everything."""
        await trio.sleep(0.01)
        self.batches.append(list(ops))
        if self.failures:
            raise self.failures.pop(0)
        return [Done() for _ in ops]

    async def wakes(self) -> AsyncIterator[list[Wake]]:
        """Say once that everything is to be looked at."""
        yield [b"*"]

    async def check(self) -> None:
        """Answer."""


def _is_down(committer: Committer) -> bool:
    return committer.down_since is not None


def play(scene: "object") -> None:
    """Run `scene(store, committer)` under a clock of its own."""

    async def main() -> None:
        store = Scripted()
        committer = Committer(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            await scene(store, committer)  # type: ignore[operator]
            nursery.cancel_scope.cancel(reason="the test is over")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_gathers_goes_together() -> None:
    """While one batch is under way the next gathers; it goes as one, in order."""

    async def scene(store: Scripted, committer: Committer) -> None:
        answers: list[Result] = []
        committer.submit(Forget("s_1"), answers.append)
        await trio.sleep(0.005)
        for name in ("s_2", "s_3", "s_4"):
            committer.submit(Forget(name), answers.append)
        await committer.wait_idle()
        assert [[op.session for op in batch] for batch in store.batches] == [["s_1"], ["s_2", "s_3", "s_4"]]  # type: ignore[attr-defined]
        assert answers == [Done()] * 4

    play(scene)


def test_a_batch_is_ended_while_the_store_has_the_next() -> None:
    """What a batch has to tell is told when the store is asked for the next one, and at once when there is no next one."""

    async def scene(store: Scripted, committer: Committer) -> None:
        ended: list[tuple[int, float]] = []
        began = trio.current_time()
        committer.after_batch = lambda: ended.append((len(store.batches), round(trio.current_time() - began, 3)))
        committer.submit(Forget("s_1"), lambda _: None)
        await trio.sleep(0.005)
        committer.submit(Forget("s_2"), lambda _: None)
        await committer.wait_idle()
        assert ended == [(1, 0.01), (2, 0.02)]
        order: list[str] = []
        committer.after_batch = lambda: order.append("ended")
        execute = store.execute

        async def noted(ops: Sequence[Op]) -> list[Result]:
            order.append("sent")
            return await execute(ops)

        store.execute = noted  # type: ignore[method-assign]
        committer.submit(Forget("s_3"), lambda _: None)
        await trio.sleep(0.005)
        committer.submit(Forget("s_4"), lambda _: None)
        await committer.wait_idle()
        assert order == ["sent", "sent", "ended", "ended"]

    play(scene)


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), StoreMisused("the password was changed")])
def test_a_store_that_fails_later_is_away_and_ends_nothing(failure: StoreError) -> None:
    """Once a store has served, whatever it refuses us with is an outage: the same batch goes again until it is done."""

    async def scene(store: Scripted, committer: Committer) -> None:
        await committer.call(Forget("s_1"))
        store.failures = [failure, failure]
        answers: list[Result] = []
        committer.submit(Forget("s_2"), answers.append)
        await trio.sleep(0.03)
        assert (answers, _is_down(committer)) == ([], True)
        await committer.wait_idle()
        assert (answers, _is_down(committer)) == ([Done()], False)
        assert len(store.batches) == 4

    play(scene)


def test_a_store_that_refuses_is_said_to_however_it_began() -> None:
    """A connection cut because a right was taken away looks like an outage at first; what has to be mended is said then."""

    async def scene(store: Scripted, committer: Committer) -> None:
        await committer.call(Forget("s_1"))
        for _ in range(2):
            away, refused = StoreUnavailable("closed the connection"), StoreMisused("no permission")
            store.failures = [away, away, refused, away, refused]
            with structlog.testing.capture_logs() as said:
                await committer.call(Forget("s_2"))
            assert [entry["why"] for entry in said if entry["event"] == "store_away"] == [str(away), str(refused)]

    play(scene)


def test_a_call_that_waited_long_enough_is_given_up_and_not_sent_again() -> None:
    """A caller that stops waiting is told that the outcome is unknown; what it asked is left out of the next try."""

    async def scene(store: Scripted, committer: Committer) -> None:
        store.failures = [StoreUnavailable("away")] * 3
        with pytest.raises(StoreUnavailable):
            await committer.call(Forget("s_1"), timeout_s=0.02)
        answers: list[Result] = []
        committer.submit(Forget("s_2"), answers.append)
        await committer.wait_idle()
        assert answers == [Done()]
        assert [op.session for op in store.batches[-1]] == ["s_2"]  # type: ignore[attr-defined]

    play(scene)


def test_what_is_not_worth_it_any_more_when_its_turn_comes_is_not_sent() -> None:
    """It has waited behind a batch that failed: the caller is told at once, and the store never hears of it."""

    async def scene(store: Scripted, committer: Committer) -> None:
        store.failures = [StoreUnavailable("away")]
        worth = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.call, Forget("first"))
            await trio.sleep(0.001)
            nursery.start_soon(expect_unavailable, committer, lambda: worth)
            nursery.start_soon(committer.call_many, [Forget("worth it")])
            await trio.sleep(0.001)
            worth = False
        assert [[str(op.session) for op in batch if isinstance(op, Forget)] for batch in store.batches] == [
            ["first"],
            ["first"],
            ["worth it"],
        ]

    async def expect_unavailable(committer: Committer, worth: Callable[[], bool]) -> None:
        began = trio.current_time()
        with pytest.raises(StoreUnavailable):
            await committer.call_many([Forget("not worth it"), Forget("nor this")], worth=worth)
        assert trio.current_time() - began < 1.0

    play(scene)


def test_what_was_sent_once_is_not_withdrawn() -> None:
    """The outcome of a batch is unknown: it is sent again, and its caller gets the answer."""

    async def scene(store: Scripted, committer: Committer) -> None:
        store.failures = [StoreUnavailable("the answer was lost")]
        assert await committer.call_many([Forget("x")], worth=lambda: not store.batches) == [Done()]

    play(scene)


def test_a_store_that_refuses_from_the_beginning_is_an_error() -> None:
    """Found at the start, nothing is lost by refusing: the node does not come up."""

    async def main() -> None:
        store = Scripted()
        store.failures = [StoreMisused("set maxmemory-policy to noeviction")]
        committer = Committer(store)
        committer.submit(Forget("s_1"), lambda _: None)
        await committer.run()

    with pytest.raises(StoreMisused):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_may_have_happened_for_nobody_is_undone() -> None:
    """Its caller has given up, and it was sent: its undoing follows. What was never sent needs none."""

    async def scene(store: Scripted, committer: Committer) -> None:
        store.failures = [StoreUnavailable("no answer in time") for _ in range(12)]
        async with trio.open_nursery() as nursery:
            for name in ("sent", "never sent"):
                nursery.start_soon(given_up, committer, name)
                await trio.sleep(0.02)
        await committer.wait_idle()
        assert not store.failures
        assert [op.session for op in store.batches[-1] if isinstance(op, Forget)] == ["undo sent"]

    async def given_up(committer: Committer, name: str) -> None:
        with pytest.raises(StoreUnavailable):
            await committer.call_many([Forget(name)], timeout_s=1.0, undo=[Forget(f"undo {name}")])

    play(scene)
