"""Nodes that die, drain, and stand still between a step and its telling; stores that are away, or come back empty."""

import pytest
import trio

from signald.service import untold
from signald.store.registry.agenda.records import ITEMS_MAX
from signald.store.session.ops import EndSession
from signald.testing.cluster import Cluster, play
from tests.service.telling.core import Attempt, always, answer, away, slow, telling
from tests.service.telling.test_events import names, settle, started


def test_a_node_that_is_killed_in_the_middle() -> None:
    """Another node takes the queue up when the lease has run out, and sends what was not dropped once more, with the same id."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling(events_timeout_s=2.0))
        _, one = await cluster.client("n1")
        await settle()
        core.behave = slow(1.5)
        await cluster.start("n2", **telling(events_timeout_s=2.0))
        client, two = await cluster.client("n1")
        await trio.sleep(0.2)
        assert core.at_once == 1
        cluster.kill("n1")
        await settle(30)
        assert core.types(two["session"])[0] == "session.started"
        assert len([attempt for attempt in core.attempts if attempt.data.get("session") == two["session"]]) >= 2
        await settle(500)
        for session in (one["session"], two["session"]):
            assert core.types(session)[-1] == "session.ended"
            assert core.once(session)[-1].data["reason"] == "expired"
        core.check()
        del client

    play(scene, within_s=2_000)


def test_two_nodes_never_have_one_queue_at_once() -> None:
    """While a receiver is slow and events keep coming at two nodes, the events of a session are sent one after the other."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        under_way: set[str] = set()
        doubled: list[str] = []

        async def watches(attempt: Attempt) -> object:
            if attempt.queue in under_way:
                doubled.append(attempt.id)
            under_way.add(attempt.queue)
            try:
                await trio.sleep(1.9)
            finally:
                under_way.discard(attempt.queue)
            return answer(200)

        core.behave = watches  # type: ignore[assignment]
        for name in ("n1", "n2", "n3"):
            await cluster.start(name, **telling(events_timeout_s=2.0))
        client, one = await cluster.client("n1")
        for turn in range(12):
            client.cut()
            await trio.sleep(1)
            client, one = await cluster.restore(("n2", "n3", "n1")[turn % 3], one["recovery_token"])
        await settle(120)
        assert not doubled
        assert len(core.types(one["session"])) == 25
        core.check()

    play(scene, within_s=2_000)


def test_a_node_that_stops_hands_on_what_it_holds() -> None:
    """What waits when a node ends is told by the other at once, not when a lease has run out."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = slow(8)
        await cluster.start("n1", **telling(events_in_flight_max=2))
        for _ in range(6):
            client, _ = await cluster.client("n1")
            await client.send({"type": "bye"})
        await trio.sleep(1)
        await cluster.start("n2", **telling())
        cluster.nodes["n1"].shutdown.signal()
        await cluster.wait_exit("n1")
        core.behave = always(200)
        await settle(12)
        assert len([one for one in core.once() if one.type == "session.ended"]) == 6
        assert core.types().count("deploy.finished") == 1
        core.check()

    play(scene, within_s=2_000)


def test_what_the_last_moment_of_a_node_fills_is_told() -> None:
    """Clients that are cut with their node, by a fourth signal, are told as away: by the node that goes on, at once."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        begun = [(await cluster.client("n1"))[1]["session"] for _ in range(3)]
        await settle()
        await cluster.start("n2", **telling())
        for _ in range(4):
            cluster.nodes["n1"].shutdown.signal()
        await cluster.wait_exit("n1")
        await settle(2)
        assert [core.types(session) for session in begun] == [["session.started", "session.away"]] * 3
        core.check()

    play(scene)


def test_the_last_node_leaves_its_end_to_the_next_start() -> None:
    """A cluster of one node: the node that starts later tells that the first has finished, and once."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        for name in ("n1", "n2"):
            node = await cluster.start(name, **telling())
            await settle(5)
            node.shutdown.begin("by hand")
            await settle(5)
            node.shutdown.signal()
            node.shutdown.signal()
            await cluster.wait_exit(name)
        assert [one.data["node"] for one in core.once() if one.type == "deploy.finished"] == ["n1"]
        await cluster.start("n3", **telling())
        await settle(5)
        assert [one.data["node"] for one in core.once() if one.type == "deploy.finished"] == ["n1", "n2"]
        core.check()

    play(scene, within_s=2_000)


def test_killed_between_the_step_and_the_agenda() -> None:
    """A node that dies before the agenda knows of a queue: the claim elsewhere finds it, or the end of the session by its time."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        await cluster.start("n2", **telling())
        cluster.nodes["n1"].teller.scheduling.schedule = lambda: None  # type: ignore[method-assign]
        _, one = await cluster.client("n1")
        _, two = await cluster.client("n1")
        await settle(5)
        assert not core.attempts
        cluster.kill("n1")
        client, _ = await cluster.restore("n2", one["recovery_token"])
        await settle(5)
        assert core.types(one["session"]) == ["session.started"]
        await settle(500)
        assert core.types(two["session"]) == ["session.started", "session.ended"]
        core.check()
        del client

    play(scene, within_s=2_000)


def test_killed_between_the_end_and_the_agenda() -> None:
    """A session whose node dies right behind its end is found by the sweep of those that are overdue."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        await cluster.start("n2", **telling())
        _, one = await cluster.client("n1")
        await settle(5)
        now_ms = cluster.world.now_ms()
        cluster.world.execute([EndSession(one["session"], "n1", now_ms, 0, "done")])
        cluster.kill("n1")
        await settle(5)
        assert core.types(one["session"]) == ["session.started"]
        await settle(600)
        assert core.types(one["session"]) == ["session.started", "session.ended"]
        assert not names(cluster)
        core.check()

    play(scene, within_s=2_000)


def test_a_store_that_is_away() -> None:
    """Nothing is lost and nothing doubled beyond what was under way, when the store is away for a while."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = slow(1)
        await cluster.start("n1", **telling())
        for _ in range(5):
            await cluster.client("n1")
        await trio.sleep(0.2)
        cluster.world.outage = "down"
        await trio.sleep(20)
        cluster.world.outage = ""
        await settle(60)
        assert core.types() == ["session.started"] * 5
        assert not names(cluster)
        core.check()

    play(scene, within_s=2_000)


def test_events_after_a_store_has_lost_its_data() -> None:
    """A session that is given back goes on to be told, under higher numbers; what other nodes fill then is found by them."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        await cluster.start("n2", **telling())
        client, one, worker, _, session = await cluster.pair("n1")
        await settle()
        cluster.world.lose_everything()
        await settle(20)
        client.cut()
        await trio.sleep(2)
        client, _ = await cluster.restore("n2", one["recovery_token"])
        await settle()
        assert core.types(session) == ["session.started", "session.paired", "session.away", "session.resumed"]
        core.check()
        del worker

    play(scene, within_s=2_000)


def test_what_a_node_fills_after_a_loss_does_not_die_with_it() -> None:
    """A session that was given back is told on: what its node has not scheduled before its death is found where the client resumes."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        for name in ("n1", "n2"):
            await cluster.start(name, **telling())
        client, one = await cluster.client("n1")
        await settle()
        cluster.world.lose_everything()
        await settle(20)
        cluster.nodes["n1"].teller.scheduling.schedule = lambda: None  # type: ignore[method-assign]
        client.cut()
        await trio.sleep(1)
        cluster.kill("n1")
        client, _ = await cluster.restore("n2", one["recovery_token"])
        await settle()
        assert core.types(one["session"]) == ["session.started", "session.away", "session.resumed"]
        core.check()
        del client

    play(scene)


def test_an_agenda_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues for which the agenda has no room wait at their node, and are told when there is room again."""
    monkeypatch.setitem(ITEMS_MAX, "e", 3)

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = away
        node = await cluster.start("n1", **telling())
        begun = [(await cluster.client("n1"))[1]["session"] for _ in range(10)]
        await settle(5)
        assert len(names(cluster)) == 3
        assert node.teller.scheduling.refused
        core.behave = always(200)
        await settle(200)
        assert sorted(one.data["session"] for one in core.once() if one.type == "session.started") == sorted(begun)
        core.check()

    play(scene)


def test_names_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a name is left out and counted; the oldest are taken first; without a core server nothing is noted."""
    monkeypatch.setattr(untold, "NAMES_MAX", 3)
    wanted = [False]
    names_here = untold.Untold(lambda: wanted[0])
    names_here.note("s_0")
    assert len(names_here) == 0
    wanted[0] = True
    for name in ("s_1", "s_2", "s_1", "s_3", "s_4"):
        names_here.note(name)
    assert (len(names_here), names_here.left_out) == (3, 1)
    assert names_here.take(2) == ("s_1", "s_2")
    names_here.put_back(["s_9"])
    assert names_here.take(9) == ("s_3", "s_9")


def test_an_agenda_that_was_lost() -> None:
    """A store that comes back without what its agenda knew: with the next renewal of lives the queues are named again."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = away
        node = await cluster.start("n1", **telling(), session={"resume_ttl_s": 60.0})
        client, one = await cluster.client("n1")
        await settle(5)
        rows = cluster.world.rows
        for name in names(cluster):
            rows.drop_item("e", name)
        core.behave = always(200)
        await settle(40)
        assert not core.told
        node.hub.losses.store_went_back("a test says so")
        await settle(25)
        assert core.types(one["session"]) == ["session.started"]
        core.check()
        del client

    play(scene, within_s=2_000)


def test_a_reload_names_another_receiver() -> None:
    """The next attempt goes to the URL in force; a receiver that was gone is asked anew."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = always(410)
        node = await cluster.start("n1", **telling())
        _, one = await cluster.client("n1")
        await settle()
        core.behave = always(200)
        import attrs

        config = node.hub.config
        url = "https://other.test/"
        node.hub.renew(attrs.evolve(config, core=attrs.evolve(config.core, events_url=url)), node.hub.auth)
        await settle()
        assert core.types(one["session"]) == ["session.started"]
        assert core.told[0].url == url
        core.check()

    play(scene, within_s=2_000)
