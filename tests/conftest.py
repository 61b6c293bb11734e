"""How hard Hypothesis searches, whose the ports are, and which files come first where several run side by side.

`pytest --hypothesis-profile long` is for a night, nothing for every day.
"""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from signald.demo import cluster

# No test judges a speed: an example may take as long as a busy machine makes it.
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def ports_are_given_back() -> Iterator[None]:
    """What a test was given by `free_port` is its own to the end, also while a server is killed and started again there.

    Many tests run side by side, and each of their processes looks for ports.
    """
    before = set(cluster.held)
    yield
    cluster.let_go(*(cluster.held.keys() - before))


def _log_sinks() -> tuple[object, list[object]]:
    """Where log lines go; what pytest itself adds is not counted."""
    streams = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    return structlog.get_config()["logger_factory"], [handler.stream for handler in streams]


@pytest.fixture(autouse=True)
def logging_is_given_back() -> Iterator[None]:
    """A test that leaves the log bound to a stream of its own fails itself: later tests would write to a closed stream."""
    before, config = _log_sinks(), structlog.get_config()
    yield
    left = _log_sinks()
    if left != before:
        structlog.configure(**config)
        logging.getLogger().handlers = []
        pytest.fail(f"the test has left the log bound to {left}; it was {before}")


LONGEST = "tests/sim/test_quick.py"
"""It keeps the cores busy for most of a run: begun late, it would be what all others have to be waited for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files are shared out to several processes, begin with the longest one, then those of the most tests."""
    if hasattr(config, "workerinput"):
        tests = Counter(_file(item) for item in items)
        items.sort(key=lambda item: (_file(item) != LONGEST, -tests[_file(item)]))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
