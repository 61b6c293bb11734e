"""A large room: the answer to a join is read and made piece by piece, others have their turn between, and no piece is for a member that
has gone."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio

from signald.core.room_views import Answer
from signald.dialects.v1 import rooms as dialect
from signald.service.rooms import joining
from signald.store.room.ops import CHANGED_MAX, ReadRoomState
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
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


async def fill(ada: Peer) -> None:
    """Put all records."""
    for seq in range(1, RECORDS // AT_ONCE + 1):
        first = (seq - 1) * AT_ONCE
        await publish(ada, seq, put={f"shape:{first + n}": RECORD for n in range(AT_ONCE)})
        await ada.expect("published")


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
        await fill(ada)
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


def test_a_member_that_gives_up_while_it_waits_is_not_read_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all members return at once, the places for reads belong to those that still wait."""
    monkeypatch.setattr(joining, "PICTURES_MAX", 1)

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a")
        ada, bob, eve = [(await cluster.client("a", pair=False))[0] for _ in "123"]
        await join(ada)
        read = node.hub.context.committer.kinds
        places = node.hub.rooms._joining._pictures
        async with places:  # as while the picture of another member is read
            await bob.send({"type": "join", "room": "r:1", "state": True})
            await eve.send({"type": "join", "room": "r:1", "state": True})
            await bob.quiet()
            assert places.statistics().tasks_waiting == 2
            await bob.send({"type": "leave", "room": "r:1"})
            await bob.expect("left")
        await eve.expect("joined")
        assert read[ReadRoomState] == 1, "one page, for the member that waited"

    play(scene)


def test_a_member_that_goes_while_its_room_is_read_ends_the_reading() -> None:
    """The rest of a large room would be read for nothing, at the cost of those whose messages the store delays for it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a")
        (ada, _), (bob, _) = [await cluster.client("a", pair=False) for _ in "12"]
        await join(ada)
        await fill(ada)
        read = node.hub.context.committer.kinds
        await bob.send({"type": "join", "room": "r:1", "state": True})
        while not read[ReadRoomState]:  # noqa: ASYNC110 - the first page of more
            await trio.sleep(joining.PAGE_PAUSE_S / 4)
        await bob.send({"type": "leave", "room": "r:1"})
        await bob.quiet()
        assert read[ReadRoomState] <= 2 < RECORDS // CHANGED_MAX

    play(scene)
