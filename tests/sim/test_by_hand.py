"""Deploys, kills, cuts, outages and losses drawn from seeds, judged at parties that share no code with the node."""

import pytest

from tests.sim.by_hand import play


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kinds", ["deploy kill cut outage", "empty kill", "empty cut deploy"])
def test_nothing_is_lost(kinds: str, seed: int) -> None:
    """exactly-once, sticky: every message arrives once and in order, no session is lost, each keeps its worker."""
    play(seed, kinds.split())


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_lost_workers_cost_no_message(seed: int) -> None:
    """exactly-once: other workers get what a lost one had not acked, and every client gets every answer."""
    play(seed, ["lose_worker", "deploy", "cut", "kill", "outage"])


def test_one_seed_one_story() -> None:
    """The same seed gives the same steps at the same times; another seed gives others."""
    kinds = ["deploy", "kill", "cut"]
    assert play(7, kinds) == play(7, kinds) != play(8, kinds)
