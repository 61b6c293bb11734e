"""One run of a test in memory: its seed, its virtual clock, and the end of its time."""

import functools
import inspect
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Concatenate, ParamSpec, overload

import anyio
import trio
import trio.testing

from signald.testing.app.bridge import Bridge, InMemory
from signald.testing.app.cluster import SignaldCluster
from signald.testing.app.fleet import Sections, open_fleet
from signald.testing.seeded import determined_by

P = ParamSpec("P")

SEED = 1
"""The seed of a run that names none: a test which passes today passes tomorrow."""

WITHIN_S = 600.0
"""How long a run may take by its own clock: parties ping one another for ever, so a test that waits in vain would never end."""

SHOWN_LINES = 200
"""The lines of the transcript that a failure shows: the last step of a deploy, and the one before."""

VARIABLE = "SIGNALD_SEED"


class RunTooLong(Exception):
    """The test has not ended in its time: it waits for something that does not come. The time is that of its clock."""


def seed_of_environment(otherwise: int = SEED) -> int:
    """Return the seed that the environment variable SIGNALD_SEED names; a number, or `random`."""
    text = os.environ.get(VARIABLE, "")
    return seed_of(text) if text else otherwise


def seed_of(text: str) -> int:
    """Return the seed of a number, or one of its own for `random`. Raises ValueError."""
    return random.SystemRandom().randrange(1 << 31) if text == "random" else int(text)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block a `trio.run` goes the same way each time: its scheduler, its equal deadlines, and the network follow the seed."""
    with determined_by(seed, fast=False):
        yield


@asynccontextmanager
async def cluster_on(bridge: Bridge, within_s: float) -> AsyncIterator[SignaldCluster]:
    """Run the parties of a cluster for the time of the block. An exception of the block comes out as it is. Raises RunTooLong."""
    failure: Exception | None = None
    with anyio.move_on_after(within_s) as scope:
        async with anyio.create_task_group() as tasks:
            try:
                yield SignaldCluster(bridge, tasks)
            except Exception as error:  # noqa: BLE001 - it is raised again below, outside the nursery that would wrap it
                failure = error
            tasks.cancel_scope.cancel(reason="the test is over")
    if failure is not None:
        raise failure
    if scope.cancelled_caught:
        step = bridge.fleet.held_step
        held = f", while the step {step} was held: its party gets nothing until the test goes on" if step else ""
        raise RunTooLong(f"the test has not ended within {within_s:g} s of its clock{held}")


@asynccontextmanager
async def open_cluster(
    seed: int = SEED, *, nodes: int = 1, config: Sections | None = None, within_s: float = WITHIN_S
) -> AsyncIterator[SignaldCluster]:
    """Run a cluster of so many `nodes` in memory for the time of the block, in the Trio run of the caller.

    `config` has the keys that differ from the defaults, by section: `{"worker": {"resume_timeout_s": 4.0}}`. Time is that of the run's
    clock: with a `trio.testing.MockClock(autojump_threshold=0)` a deploy takes milliseconds. `signald_test` and the fixture bring one.

    Raises:
        RunTooLong: the block has taken more than `within_s` seconds.
    """
    async with open_fleet(seed, nodes, config or {}) as fleet, cluster_on(InMemory(fleet), within_s) as cluster:
        yield cluster


def run(
    test: Callable[[SignaldCluster], Awaitable[None]],
    *,
    seed: int | None = None,
    nodes: int = 1,
    config: Sections | None = None,
    within_s: float = WITHIN_S,
) -> str:
    """Run `test` on a cluster in memory, under a virtual clock of its own; return the transcript.

    The seed is that of the environment variable SIGNALD_SEED, or else `seed`, or else 1. An exception of the test comes out as it is, with
    a note of the seed and of the end of the transcript.

    Raises:
        RunTooLong: see `open_cluster`.
    """
    chosen = seed_of_environment(SEED if seed is None else seed)
    clusters: list[SignaldCluster] = []

    async def main() -> None:
        async with open_cluster(chosen, nodes=nodes, config=config, within_s=within_s) as cluster:
            clusters.append(cluster)
            await test(cluster)

    with noted(clusters, f"seed {chosen}: run it again by {VARIABLE}={chosen}"), seeded(chosen):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return clusters[0].transcript()


@contextmanager
def noted(clusters: Sequence[SignaldCluster], head: str = "") -> Iterator[None]:
    """Add a note to what the block raises: `head`, and the end of the transcript of its cluster, if it has one by then."""
    try:
        yield
    except Exception as error:
        for cluster in clusters:
            error.add_note("\n".join(filter(None, [head, cluster.transcript(SHOWN_LINES)])))
        raise


Test = Callable[Concatenate[SignaldCluster, P], Awaitable[None]]


def test_of(inner: Test[P], runs: Callable[[Callable[[SignaldCluster], Awaitable[None]]], object]) -> Callable[P, None]:
    """Make a test function of an async one that takes a cluster first; `runs` runs it on one."""

    @functools.wraps(inner)
    def outer(*args: P.args, **kwargs: P.kwargs) -> None:
        runs(lambda cluster: inner(cluster, *args, **kwargs))

    plain = inspect.signature(inner)
    del outer.__wrapped__  # else it is taken for a coroutine function
    outer.__signature__ = plain.replace(parameters=list(plain.parameters.values())[1:])  # type: ignore[attr-defined]
    return outer


@overload
def signald_test(test: Test[P], /) -> Callable[P, None]: ...


@overload
def signald_test(
    *, seed: int | None = None, nodes: int = 1, config: Sections | None = None, within_s: float = WITHIN_S
) -> Callable[[Test[P]], Callable[P, None]]: ...


def signald_test(test: Any = None, /, **options: Any) -> Any:
    """Make a test function of an async one that takes a cluster first; further parameters, such as fixtures, stay.

    It needs no plugin: unittest, pytest and a plain call run it. The options are those of `run`.
    """

    def decorate(inner: Any) -> Any:
        return test_of(inner, functools.partial(run, **options))

    return decorate if test is None else decorate(test)
