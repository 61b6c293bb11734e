"""Parties of both fronts through deploys and kills of real nodes; on asyncio in a process that never imports Trio."""

from pathlib import Path

import pytest

from tests.sdk.deploys.run import Verdict, play

pytestmark = pytest.mark.real

DEPLOYS = 2


@pytest.mark.parametrize("front", ["asyncio", "trio"])
async def test_the_parties_of_a_front_notice_no_deploy(tmp_path: Path, front: str) -> None:
    """A deploy and a kill beneath eight clients and two workers: nothing is lost, doubled or reordered, and no text is wrong."""
    verdict = await play(tmp_path, front, DEPLOYS, seed=2, clients=8, workers=2, kills=0.4)
    assert verdict.faults == []
    counts = verdict.counts
    assert counts["sent"] > 16, counts
    assert counts["trio"] is (front == "trio")
    # Each client has come to each of the nodes: by a handover for a deploy, and by itself after the kill.
    assert (verdict.deploys, verdict.kills) == (DEPLOYS, 1)
    assert counts["events"]["HandedOver"] == 8, counts
    assert counts["events"]["Disconnected"] >= 8, counts
    assert min(counts["connections"]) >= 1 + DEPLOYS, counts


def test_a_fault_is_found() -> None:
    """Counts that are not as they should be are told, each by its name."""
    wrong = {"settled": False, "lost": 1, "duplicated": 0, "reordered": 2, "texts": {"right": 3, "wrong": 1}}
    verdict = Verdict(exits=[70], counts=wrong, said="Traceback")
    assert len(verdict.faults) == 6
    assert Verdict(said="broken").faults[0].startswith("the parties did not")
