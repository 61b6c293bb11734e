"""What `python -m tests.systems.many` does at full size, in small."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests.systems.many import moves, readers, settings, submitters
from tests.systems.play import Play
from tests.systems.plays.fleet import Fleet
from tests.systems.plays.rooms import Rooms
from tests.systems.story import Story

PLACES = [("sqlite", 1), ("redis", 2)]
"""Stores, and how many nodes run on each."""


def test_losses_are_spread_among_the_deploys() -> None:
    """No two losses follow each other where there are deploys enough."""
    plan = moves(5, 2)
    assert plan == ["deploy", "kill", "deploy", "deploy", "kill-workers-node", "deploy", "deploy"]
    assert sorted(moves(1, 1, 1)) == ["deploy", "kill", "kill-worker"]


def tell(story: Story, plays: Sequence[Play], store: str, nodes: int, directory: Path) -> None:
    """Tell a story to its end, and judge each play."""
    trio.run(story.tell, store, nodes, directory)
    for play in plays:
        story.judge(play.name)


@pytest.mark.real
@pytest.mark.parametrize(("store", "nodes"), PLACES)
def test_answers_are_read_whole_by_reloaded_pages(store: str, nodes: int, tmp_path: Path) -> None:
    """Over a deploy, one page reads on and the other one is reloaded: each has the whole answer, each piece once."""
    plays = readers(2, pieces=60, every_ms=50)
    tell(Story(plays, moves(1, 0)), plays, store, nodes, tmp_path)


@pytest.mark.real
@pytest.mark.parametrize(("store", "nodes"), PLACES)
def test_jobs_end_once_whatever_is_lost(store: str, nodes: int, tmp_path: Path) -> None:
    """Over a deploy, the loss of a node and of a worker each job has one end, and its result comes once and in order."""
    plays = submitters(2, at_once=5, job_s=1.0)
    tell(Story(plays, moves(1, 1, 1), workers=2, settings=settings(5)), plays, store, nodes, tmp_path)


@pytest.mark.real
def test_a_canvas_on_three_nodes_is_the_same_for_all(tmp_path: Path) -> None:
    """Over a deploy and the loss of a node, with latecomers and one that has slept, on Redis."""
    plays = [Rooms(people=9, kept=300)]
    tell(Story(plays, moves(1, 1)), plays, "redis", 3, tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("on_drain", ["terminate", "reconnect"])
def test_a_fleet_of_apps_goes_through_a_deploy(on_drain: str, tmp_path: Path) -> None:
    """All are asked at once, the mute are closed with 1001 and the busy have longer; or all come back within their waits."""
    plays = [Fleet(count=20, mute=2, busy=2, on_drain=on_drain)]
    tell(Story(plays, moves(1, 0), workers=0), plays, "sqlite", 1, tmp_path)
