"""How hard Hypothesis searches: `pytest --hypothesis-profile long` for a night, nothing for every day; and whose the ports are."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from signald.demo import cluster

settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def ports_are_given_back() -> Iterator[None]:
    """What a test was given by `free_port` is its own to the end, also while a server is killed and started again there.

    Many tests run side by side, and each of their processes looks for ports.
    """
    before = set(cluster.held)
    yield
    cluster.let_go(*(cluster.held.keys() - before))
