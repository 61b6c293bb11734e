"""The systems of docs/systems.md: programs that know the contract alone do their work on real nodes, whatever the operator does."""

from pathlib import Path

import pytest
import trio

from tests.systems.plays.core import Core
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


@pytest.mark.parametrize(
    ("store", "nodes", "on_failure"), [("sqlite", 1, "closed"), ("redis", 2, "closed"), ("sqlite", 1, "open")]
)
def test_a_core_server_decides_and_is_told(store: str, nodes: int, on_failure: str, tmp_path: Path) -> None:
    """Over the same moves, and while it is away itself: it keeps newcomers out or not, and no session waits for it."""
    play = Core(on_failure)
    told = Story([play])
    trio.run(told.tell, store, nodes, tmp_path)
    told.judge(play.name)
