"""The systems of docs/systems.md: programs that know the contract alone do their work on real nodes, whatever the operator does."""

from pathlib import Path

import pytest
import trio

from tests.systems.story import PLAYS, Story

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=[("sqlite", 1), ("redis", 2)], ids=["sqlite", "redis"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A story that has been told: on one node with SQLite, and with Redis on two, so that each message crosses nodes."""
    store, nodes = request.param
    told = Story([play() for play in PLAYS])
    directory: Path = tmp_path_factory.mktemp(store)
    trio.run(told.tell, store, nodes, directory)
    return told


@pytest.mark.parametrize("play", [play.name for play in PLAYS])
def test_the_programs_of_a_row_do_their_work(story: Story, play: str) -> None:
    """Over a deploy, a rollback and a SIGKILL; docs/systems.md says which row a play shows."""
    story.judge(play)
