"""The loop of the simulation goes through the very steps of Trio's own."""

import random

import pytest
import trio

from signald.testing.loop import FAST, Patch
from signald.testing.seeded import JumpClock, determined_by
from tests.examples import examples

OWN: tuple[Patch, ...] = tuple((owner, name, getattr(owner, name)) for owner, name, _ in FAST)
"""Trio as it is."""

Steps = list[tuple[float, int, str]]


async def _sleeper(chance: random.Random, number: int, scopes: list[trio.CancelScope], steps: Steps) -> None:
    for _ in range(12):
        outer = trio.CancelScope(deadline=trio.current_time() + chance.choice((0.1, 0.2, 0.3, float("inf"))))
        scopes.append(outer)
        steps.append((trio.current_time(), number, "begins"))
        with outer:
            match chance.randrange(5):
                case 0:
                    await trio.sleep(0)  # noqa: ASYNC115 - what this does is asked
                case 1:
                    await trio.sleep_until(trio.current_time() + chance.choice((-0.1, 0.0, 0.1)))
                case 2:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(chance.choice((0.1, 0.3)))
                case _:
                    await trio.sleep(chance.choice((0.1, 0.2, 0.2, 0.3)))
            steps.append((trio.current_time(), number, "has slept"))
            chance.choice(scopes).cancel()
        steps.append((trio.current_time(), number, f"goes on, caught {outer.cancelled_caught}"))
        scopes.remove(outer)


def _steps(seed: int, patches: tuple[Patch, ...]) -> Steps:
    steps: Steps = []

    async def main() -> None:
        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(_sleeper, random.Random(seed * 8 + number), number, scopes, steps)

    with determined_by(seed, patches):
        trio.run(main, clock=JumpClock())
    return steps


@pytest.mark.parametrize("seed", range(examples(40)))
def test_steps(seed: int) -> None:
    """Tasks that sleep and cancel each other do the same in the same order, at the same times."""
    assert _steps(seed, ()) == _steps(seed, OWN)


def test_what_it_saves_is_put_back() -> None:
    """After a run Trio is itself again."""
    _steps(0, ())
    assert all(getattr(owner, name) is value for owner, name, value in OWN)


def test_what_is_put_into_the_queue_is_done() -> None:
    """A call put into Trio's entry queue, as by the collection of a generator, is made although no task waits for I/O."""
    called: list[float] = []

    async def main() -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: called.append(trio.current_time()))
        await trio.sleep(1)
        await trio.sleep(1)
        assert called == [1.0]

    with determined_by(0):
        trio.run(main, clock=JumpClock())
