"""The plugin for pytest: the fixture `signald_cluster`, its seed, and the transcript of a run that failed.

pytest loads it by the entry point `pytest11` wherever signald is installed, so it imports nothing but pytest until a test asks for a
cluster. A test with the fixture runs under a virtual clock, by its seed. Without pytest-trio this plugin runs it. With pytest-trio,
and its mark or its `trio_mode`, pytest-trio does, with a run that this plugin provides: fixtures of both are at hand then.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from signald.testing import SignaldCluster

FIXTURE = "signald_cluster"
MARK = "signald(seed=1, nodes=1, config=None, within_s=600): how the cluster of a test is run, see signald.testing.open_cluster"
PLAIN, TRIO = "plain", "trio"

T = TypeVar("T")

_cluster = pytest.StashKey["SignaldCluster"]()
_seed = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the seed."""
    group = parser.getgroup("signald")
    group.addoption(
        "--signald-seed",
        metavar="SEED",
        help="the seed of each signald_cluster: a number, or random; before that of marks",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, and read the seed. Raises UsageError."""
    config.addinivalue_line("markers", MARK)
    text = config.getoption("--signald-seed")
    if text is not None:
        from signald.testing.app.running import seed_of

        try:
            config.stash[_seed] = seed_of(text)
        except ValueError:
            raise pytest.UsageError(f"--signald-seed is a number, or random: {text}") from None


def _options(item: pytest.Item) -> dict[str, Any]:
    """Return the arguments of `open_cluster` for a test: the seed of the command line, of SIGNALD_SEED, or of its mark, in this order."""
    from signald.testing.app.running import SEED, seed_of_environment

    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("signald"))):  # the mark of the function comes before that of its class
        options |= mark.kwargs
    options["seed"] = item.config.stash.get(_seed, seed_of_environment(options.get("seed", SEED)))
    item.stash[_seed] = options["seed"]
    return options


def _runner(item: pytest.Item) -> str | None:
    """Return what runs a test with a cluster: this plugin, pytest-trio, or None for a test that is none, or runs on asyncio."""
    if not isinstance(item, pytest.Function) or FIXTURE not in item.fixturenames:
        return None
    if item.get_closest_marker("trio") is not None:
        return TRIO
    return PLAIN if inspect.iscoroutinefunction(item.obj) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give pytest-trio the run of a seed, for tests with a cluster. It takes that of the first mark."""
    for item in items:
        if _runner(item) == TRIO:
            item.add_marker(pytest.mark.trio(run=_run_of(item)), append=False)


def _run_of(item: pytest.Item) -> Callable[..., Any]:
    """Return what stands for `trio.run`: a run that goes the same way for a seed, under the clock of the test or a virtual one."""

    def run(main: Callable[..., Awaitable[T]], *args: Any, clock: Any = None, **more: Any) -> T:
        import trio.testing

        from signald.testing.app.running import seeded

        with seeded(_options(item)["seed"]):
            clock = trio.testing.MockClock(autojump_threshold=0) if clock is None else clock
            return trio.run(main, *args, clock=clock, **more)

    return run


class _NoCluster:
    """What a test or a fixture gets in whose event loop no cluster can run: any use of it says why."""

    def __getattr__(self, name: str) -> NoReturn:
        raise pytest.UsageError(
            f"signald_cluster.{name}: the cluster runs in async tests on Trio, and in fixtures where pytest-trio runs the test. "
            "A test on asyncio takes signald.testing.asyncio."
        )


@pytest.fixture
async def signald_cluster(request: pytest.FixtureRequest) -> AsyncIterator["SignaldCluster"]:
    """A cluster in memory, in virtual time. The mark `signald` has its options."""
    from signald.testing import open_cluster

    async with open_cluster(**_options(request.node)) as cluster:
        request.node.stash[_cluster] = cluster
        yield cluster


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: Any) -> object | None:
    """Stand in for the cluster where pytest-trio does not run the test: it is opened around the test function then."""
    if fixturedef.argname != FIXTURE or fixturedef.func.__module__ != __name__ or _runner(request.node) == TRIO:
        return None
    nothing = _NoCluster()
    fixturedef.cached_result = (nothing, fixturedef.cache_key(request), None)
    return nothing


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that takes a cluster."""
    if _runner(pyfuncitem) != PLAIN:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _run_of(pyfuncitem)(_main, pyfuncitem, arguments)
    return True


async def _main(item: pytest.Function, arguments: Mapping[str, Any]) -> None:
    from signald.testing import open_cluster

    async with open_cluster(**_options(item)) as cluster:
        item.stash[_cluster] = cluster
        taken = {name: cluster if isinstance(value, _NoCluster) else value for name, value in arguments.items()}
        await item.obj(**taken)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed and the end of the transcript of a test that failed."""
    report = yield
    cluster = item.stash.get(_cluster, None)
    if report.failed and cluster is not None:
        from signald.testing.app.running import SHOWN_LINES

        head = f"signald: run it again by --signald-seed={item.stash[_seed]}"
        report.sections.append((head, cluster.transcript(SHOWN_LINES)))
    return report
