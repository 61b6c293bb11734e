"""Some of the deaths in real deploys; `python -m tests.crash --real` has them all."""

from pathlib import Path

import pytest

from tests.crash.real import Death, play
from tests.crash.trap import Requests

pytestmark = pytest.mark.real

ON_REDIS = (
    Death("old", "unheard", 9),
    Death("new", "before", 4),
    Death("both", "after", 6),
)
ON_SQLITE = (Death("old", after_s=0.03), Death("both", after_s=0.06))


@pytest.mark.parametrize(("store", "deaths"), [("redis", ON_REDIS), ("sqlite", ON_SQLITE)])
async def test_killed_in_a_deploy(tmp_path: Path, store: str, deaths: tuple[Death, ...]) -> None:
    """A node killed at an operation of its own costs no session, no message, and no order of messages."""
    assert await play(store, deaths, tmp_path) == len(deaths)


def test_requests_are_told_apart() -> None:
    """The trap counts what it should, however the bytes arrive."""
    asked = b"*2\r\n$7\r\nevalsha\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nPING\r\n"
    whole, pieces = Requests(), Requests()
    wanted = [(b"EVALSHA", asked[:27]), (b"PING", asked[27:])]
    assert whole.feed(asked) == wanted
    assert [one for at in range(len(asked)) for one in pieces.feed(asked[at : at + 1])] == wanted
