"""A large room: what a member is told at its join is made piece by piece, and others have their turn between the pieces."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio

from signald.core.room_views import Answer
from signald.dialects.v1 import rooms as dialect
from signald.testing.cluster import Cluster, play
from tests.service.rooms.opening import join, publish

RECORDS = 400
RECORD = {"text": "x" * 1000}
AT_ONCE = 50


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self.count += 1


def test_each_page_of_an_answer_is_made_in_a_step_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 10,000 records a step that made all pages would hold up each connection of the node for 20 ms."""
    steps, made = Steps(), list[int]()
    pages = dialect._pages

    def noted(answer: Answer) -> Iterator[dialect._Page]:
        for page in pages(answer):
            made.append(steps.count)
            yield page

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, _), (bob, _) = [await cluster.client("a", pair=False) for _ in "12"]
        await join(ada)
        for seq in range(1, RECORDS // AT_ONCE + 1):
            first = (seq - 1) * AT_ONCE
            await publish(ada, seq, put={f"shape:{first + n}": RECORD for n in range(AT_ONCE)})
            await ada.expect("published")
        trio.lowlevel.add_instrument(steps)
        made.clear()
        await bob.send({"type": "join", "room": "r:1", "state": True})
        found: dict[str, object] = {}
        while True:
            page = await bob.expect("joined")
            found |= page["records"]
            if not page.get("more"):
                break
        trio.lowlevel.remove_instrument(steps)
        assert found == {f"shape:{n}": RECORD for n in range(RECORDS)}

    monkeypatch.setattr(dialect, "_pages", noted)
    play(scene)
    assert len(made) > 5
    # One page is made in advance: whether it is the last one stands in the one before.
    assert all(later > earlier for earlier, later in pairwise(made[1:])), made
