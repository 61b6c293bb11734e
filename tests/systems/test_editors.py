"""What `python -m tests.systems.editors` does at full length, in short."""

import os
from pathlib import Path

import pytest
import trio

from tests.systems.editors import edited
from tests.systems.plays.editors import find_browser

pytestmark = pytest.mark.real


@pytest.mark.parametrize(("store", "nodes"), [("sqlite", 1), ("redis", 2)])
def test_two_editors_have_one_document(store: str, nodes: int, tmp_path: Path) -> None:
    """Over an emptied store, a deploy and the loss of a node: nothing is lost, doubled, or back from the store that was lost."""
    if find_browser() is None:
        why = "there is no Chromium; tests/run installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    play, story = edited(emptied=1, deploys=1, kills=1)
    trio.run(story.tell, store, nodes, tmp_path)
    story.judge(play.name)
