"""A short share of the campaign (chaos.py): a few deaths on each store at random moments, under load."""

from pathlib import Path

import pytest

from tests.real.chaos import Plan, play

pytestmark = pytest.mark.real


@pytest.mark.parametrize(("store", "restarts"), [("sqlite", 0), ("redis", 2)])
async def test_a_short_campaign(tmp_path: Path, store: str, restarts: int) -> None:
    """Nothing acked is lost, nothing comes twice, the order is kept, and the store is whole and empty at the end."""
    plan = Plan(store, kills=6, redis_restarts=restarts, seed=3, sessions=12, workers=2, pause_s=1.2)
    figures = await play(plan, tmp_path, 60.0)
    assert (figures["lost"], figures["duplicated"], figures["reordered"]) == (0, 0, 0)
    assert figures["redis_restarts"] == restarts
    kills = figures["kills"]
    assert isinstance(kills, int)
    assert kills >= 6
