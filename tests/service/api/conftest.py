"""What the tests of the HTTP API's nouns share."""

from collections.abc import Callable

import pytest

from signald.testing.cluster import Cluster
from tests.service.api.asker import Asker


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], Asker]:
    """Make a program that asks the nodes of a cluster."""
    return lambda cluster: Asker(cluster, monkeypatch)
