"""D1 to D7: apps of a fleet, in C and in Python, written from the guide alone, on real nodes whatever the operator does."""

from pathlib import Path

import pytest
import trio

from tests.systems.plays.deepstream import DeepStream
from tests.systems.story import Story

pytestmark = pytest.mark.real


def test_apps_of_a_fleet_feel_at_home(tmp_path: Path) -> None:
    """Point by point, with the bytes on the wire, over a deploy, a rollback in mid-drain and a kill."""
    play = DeepStream()
    told = Story([play], workers=0)
    trio.run(told.tell, "sqlite", 1, tmp_path)
    told.judge(play.name)
