"""The cluster of `signald.testing` for programs on asyncio: the same names, real connections over loopback, and real time.

    @signald_test
    async def test_my_handler_survives_a_deploy(cluster: SignaldCluster) -> None:
        async with cluster.worker(my_handler), cluster.client() as client:
            await client.send("before")
            await cluster.deploy()
            assert (await anext(client)).data == "BEFORE"

The nodes run in a thread of their own. A deploy takes about half a second, and no seed repeats a run: a scheduler that waits for
sockets follows none. `await cluster.url("a name")` is an address for programs that open their own clients and workers.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, overload

from signald.testing.app.cluster import Party, SignaldCluster
from signald.testing.app.fleet import Sections
from signald.testing.app.parties import WorkerProcess
from signald.testing.app.running import RunTooLong, Test, cluster_on, noted, test_of
from signald.testing.app.steps import Deploying, Step, StepKind
from signald.testing.app.threaded import threaded

__all__ = [
    "Deploying",
    "Party",
    "RunTooLong",
    "SignaldCluster",
    "Step",
    "StepKind",
    "WorkerProcess",
    "open_cluster",
    "run",
    "signald_test",
]

P = ParamSpec("P")

WITHIN_S = 60.0
"""How long a run may take: a deploy takes a second, and the slowest worker that is given up takes ten."""


@asynccontextmanager
async def open_cluster(
    *, nodes: int = 1, config: Sections | None = None, within_s: float = WITHIN_S
) -> AsyncIterator[SignaldCluster]:
    """Run a cluster of so many `nodes` in a thread for the time of the block, which runs on asyncio.

    `config` has the keys that differ from the defaults, by section.

    Raises:
        RunTooLong: the block has taken more than `within_s` seconds.
    """
    async with threaded(0, nodes, config or {}) as bridge, cluster_on(bridge, within_s) as cluster:
        yield cluster


def run(
    test: Callable[[SignaldCluster], Awaitable[None]],
    *,
    nodes: int = 1,
    config: Sections | None = None,
    within_s: float = WITHIN_S,
) -> str:
    """Run `test` on a cluster in real time, on asyncio; return the transcript.

    An exception of the test comes out as it is, with a note of the end of the transcript.

    Raises:
        RunTooLong: see `open_cluster`.
    """
    clusters: list[SignaldCluster] = []

    async def main() -> None:
        async with open_cluster(nodes=nodes, config=config, within_s=within_s) as cluster:
            clusters.append(cluster)
            await test(cluster)

    with noted(clusters):
        asyncio.run(main())
    return clusters[0].transcript()


@overload
def signald_test(test: Test[P], /) -> Callable[P, None]: ...


@overload
def signald_test(
    *, nodes: int = 1, config: Sections | None = None, within_s: float = WITHIN_S
) -> Callable[[Test[P]], Callable[P, None]]: ...


def signald_test(test: Any = None, /, **options: Any) -> Any:
    """Make a test function of an async one that takes a cluster first; further parameters, such as fixtures, stay.

    The options are those of `run`.
    """

    def decorate(inner: Any) -> Any:
        return test_of(inner, functools.partial(run, **options))

    return decorate if test is None else decorate(test)
