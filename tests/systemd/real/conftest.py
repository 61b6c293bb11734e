"""One container for all the tests of a process, and which Debian it is."""

import os
from collections.abc import Iterator

import pytest

from tests.systemd.real.container import Container, booted
from tests.systemd.real.root import SUITES, missing


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `python -m tests.systemd.real` choose; a run of all tests takes the first."""
    parser.addoption("--suite", choices=list(SUITES), help="the release of Debian in the container")


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    """The release of Debian."""
    chosen = request.config.getoption("--suite", default=None) or next(iter(SUITES))
    assert isinstance(chosen, str)
    return chosen


@pytest.fixture(scope="session")
def container(suite: str) -> Iterator[Container]:
    """A booted container with signald as a package would install it, and nothing of it set up yet."""
    why = missing()
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"no container can be made here: {why}")
    if why:
        pytest.skip(why)
    with booted(suite) as running:
        yield running
