"""The simulation on a real redis-server: the scripts do what the rules in Python do, in whole deploys and under every fault.

Each seed is played twice, on Redis and by the rules, and must have the same digest; beside that each answer and each wake-up is compared
when it comes. A process has a server of its own.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import closing

import pytest

from signald.core.wants import offer
from signald.store.registry.agenda.ops import Schedule
from signald.store.registry.ops import Incarnation, ListSuited, Waiting
from tests.sim.redis_world import RedisWorld, Server
from tests.sim.runner import Job, run
from tests.sim.scene import STARTED_MS
from tests.store.ops import append, begin_blob, claim_side, create, enqueue, entries

pytestmark = pytest.mark.real

MESSAGES = range(1, 25)
FRAMES = range(1000, 1002)
FAULTS = ("store failed over", "store came back empty", "store outage", "store: half a batch applied", "store full")
"""What the seeds must have met between them: the faults that a server carries out in its own way."""


def test_the_digests_are_those_of_the_rules() -> None:
    """A seed on Redis cannot be told from the same seed by the rules in Python, whatever ails the store in it."""
    faulthandler.cancel_dump_traceback_later()  # two minutes on a busy machine, and the runner notices what does not end
    jobs = [Job(seed, "messages", store="redis") for seed in MESSAGES]
    total = run([*jobs, *(Job(seed, "frames", store="redis") for seed in FRAMES)], processes=2)
    assert [str(failure) for failure in total.failures] == []
    assert [fault for fault in FAULTS if not total.reached[fault]] == []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own."""
    with closing(Server()) as opened:
        yield opened


@pytest.fixture
def world(server: Server) -> RedisWorld:
    """A world in which nothing may differ."""

    def differs(text: str) -> None:
        raise AssertionError(text)

    return RedisWorld(started_ms=STARTED_MS, server=server, differs=differs)


def test_a_copy_is_what_was_kept(world: RedisWorld) -> None:
    """After a failover the server holds what it held when it was copied: logs with their last seq, lines, and nothing later."""
    world.execute([create(), claim_side(), append(entries(1, 3)), enqueue("s_2")])
    copied = world.copied()
    world.execute([append(entries(4, 6)), enqueue("s_3"), Incarnation("later")])
    world.go_back(copied)
    world.execute([append(entries(4, 4)), append(entries(1, 4)), Incarnation("again")])
    (waiting,) = world.execute([ListSuited((offer({"lang": "en"}),), 10, 100)])
    assert isinstance(waiting, Waiting)
    assert [one.session for one in waiting.sessions] == ["s_2"]
    world.lose_everything()
    assert world.left() == []
    world.execute([create(), append(entries(1, 1))])


def test_a_difference_is_said(server: Server) -> None:
    """Where the server and the rules do not say the same, that is told: of an answer, and of a wake-up."""
    said: list[str] = []
    world = RedisWorld(started_ms=STARTED_MS, server=server, differs=said.append)
    world.execute([create(), claim_side()])
    assert said == []
    record = world.rows.session("s_1")
    assert record is not None
    record.up.last = 7
    world.execute([append(entries(1, 1))])
    assert any("the rules say" in text for text in said)
    assert any("the rules wake" in text for text in said)


def test_what_outlives_a_session_is_compared(server: Server) -> None:
    """A shelf, an event queue and an item of the agenda that only one of the two has are told of; a shelf that both have is no ghost."""
    said: list[str] = []
    world = RedisWorld(started_ms=STARTED_MS, server=server, differs=said.append)
    begin = begin_blob()
    shelf = begin.shelf
    world.execute([begin, create(events_max=9), Schedule("b", (shelf,), STARTED_MS, STARTED_MS)])
    assert [text for text in world.left() if shelf in text] == []
    assert said == []
    world.rows._shelves.clear()
    world.rows._queues.clear()
    world.rows._items.clear()
    assert [text for text in world.left() if shelf in text] != []
    assert [text.partition(":")[0] for text in said] == ["event queues", "items of the agenda"]
