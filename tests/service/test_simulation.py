"""Whatever comes in whatever order: deploys, kills, cuts and outages drawn from seeds, judged at the applications."""

import pytest

from tests.service.simulation import simulate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kinds",
    ["deploy", "kill", "deploy cut", "deploy outage", "deploy kill cut outage", "empty kill", "empty cut deploy"],
)
def test_nothing_is_lost(kinds: str, seed: int) -> None:
    """exactly-once, sticky: every message both ways once and in order, no session lost, the same worker for each."""
    simulate(seed, kinds.split())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kinds", ["lose_worker deploy", "lose_worker cut kill outage"])
def test_lost_workers_cost_no_message(kinds: str, seed: int) -> None:
    """Workers vanish for good: what they had not acked reaches others, and every client gets every answer."""
    simulate(seed, kinds.split())


def test_late_claims_are_moved() -> None:
    """A seed that once had a worker given up, whose claim came after the plan of a drain was made."""
    simulate(5, ["deploy", "outage"])
