"""A core server that is slow, away, silent, busy, gone or wrong: events wait, and sessions do not."""

import pytest
import trio

from signald.core.deliveries import RETRY_AFTER_MAX_S
from signald.core.life import Event
from signald.service.telling import messages, turn
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.service.telling.core import Attempt, always, answer, away, silent, slow, telling
from tests.service.telling.test_events import names, settle, started


async def converse(client: Peer, worker: Peer, session: str, seqs: range) -> float:
    """Let messages go there and back, and return the longest round trip."""
    longest = 0.0
    for seq in seqs:
        began = trio.current_time()
        await client.send({"type": "message", "seq": seq, "data": "there"})
        await worker.expect("message")
        await worker.send({"type": "message", "session": session, "seq": seq, "data": "back"})
        await worker.send({"type": "ack", "session": session, "seq": seq})
        await client.expect("message")
        await client.send({"type": "ack", "seq": seq})
        longest = max(longest, trio.current_time() - began)
        await trio.sleep(1)
    return longest


async def begun(cluster: Cluster, name: str, count: int) -> list[tuple[Peer, Json]]:
    """Begin sessions."""
    return [await cluster.client(name) for _ in range(count)]


def test_a_slow_receiver_costs_sessions_nothing() -> None:
    """With each answer after 9 s round trips stay as they are; all is told in order, and no more at once than is configured."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = slow(9)
        await cluster.start("n1", **telling(events_in_flight_max=4))
        client, _, worker, _, session = await cluster.pair("n1")
        others = await begun(cluster, "n1", 12)
        assert await converse(client, worker, session, range(1, 20)) < 0.2
        await settle(120)
        assert core.types(session)[:2] == ["session.started", "session.paired"]
        assert all(core.types(one["session"])[:1] == ["session.started"] for _, one in others)
        assert core.at_once_max == 4
        core.check()

    play(scene, within_s=10_000)


def test_while_the_receiver_is_away_one_queue_probes() -> None:
    """A receiver that refuses connections gets a few attempts, not one for each event, and all events when it is back."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = away
        await cluster.start("n1", **telling())
        others = await begun(cluster, "n1", 50)
        await settle(60)
        assert len(core.attempts) < 30
        many = await begun(cluster, "n1", 50)
        before = len(core.attempts)
        await settle(600)
        assert len(core.attempts) - before < 45, "one each 15 to 30 s"
        assert core.at_once_max <= 16
        core.behave = always(200)
        await settle(700)
        assert all(core.types(one["session"]) == ["session.started"] for _, one in others + many)
        core.check()

    play(scene, within_s=10_000)


def test_a_silent_receiver_is_given_up_in_time() -> None:
    """An attempt without an answer ends after its time-out, and is repeated with the same bytes."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = silent
        await cluster.start("n1", **telling(events_timeout_s=2.0))
        _, one = await cluster.client("n1")
        await settle(30)
        assert len(core.attempts) > 1
        core.behave = always(200)
        await settle(60)
        assert core.types(one["session"]) == ["session.started"]
        assert len({attempt.body for attempt in core.attempts}) == 1
        core.check()

    play(scene, within_s=10_000)


def test_410_ends_the_telling_until_an_operator_says_so() -> None:
    """Then nothing is sent by this node, the events wait, and `ctl events retry` tells them."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = always(410)
        node = await cluster.start("n1", **telling())
        _, one = await cluster.client("n1")
        await settle(10)
        assert len(core.attempts) == 1
        _, two = await cluster.client("n1")
        await settle(1000)
        assert len(core.attempts) == 1
        shown = await node.operations.events(10)
        assert (shown["state"], shown["waiting"]["queues"]) == ("gone", 2)
        core.behave = always(200)
        assert (await node.operations.retry_events())["queues"] == 2
        await settle()
        for session in (one["session"], two["session"]):
            assert core.types(session) == ["session.started"]
        assert (await node.operations.events(10))["state"] == "ok"
        core.check()

    play(scene, within_s=10_000)


def test_a_node_that_knows_no_better_tells_what_another_has_given_up() -> None:
    """A 410 that one node gets ends its telling; a node that comes later asks for itself, and takes the queues."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = always(410)
        await cluster.start("n1", **telling())
        _, one = await cluster.client("n1")
        await settle(10)
        core.behave = always(200)
        await cluster.start("n2", **telling())
        _, two = await cluster.client("n1")
        await settle(5)
        assert core.types(two["session"]) == ["session.started"]
        await settle(100)
        assert core.types(one["session"]) == ["session.started"]
        core.check()

    play(scene, within_s=10_000)


def test_a_busy_receiver_gets_the_time_that_it_asks_for() -> None:
    """`Retry-After` of a 503 holds for all queues, and a lie about it for an hour at most."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = always(503, retry_after="120")
        await cluster.start("n1", **telling())
        await begun(cluster, "n1", 5)
        await settle(118)
        assert len(core.attempts) <= 5
        core.behave = always(503, retry_after="99999999")
        await settle(60)
        count = len(core.attempts)
        core.behave = always(200)
        await settle(RETRY_AFTER_MAX_S - 120)
        assert len(core.attempts) == count
        await settle(400)
        assert len(core.types()) == 5
        core.check()

    play(scene, within_s=10_000)


def test_one_session_that_is_refused_keeps_back_no_other() -> None:
    """An event that the receiver refuses is retried with growing pauses, in its place; other sessions are told."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        client, bad = None, ""

        async def refuses_one(attempt: Attempt) -> object:
            await trio.lowlevel.checkpoint()
            return answer(422 if attempt.data.get("session") == bad else 200)

        core.behave = refuses_one  # type: ignore[assignment]
        node = await cluster.start("n1", **telling())
        client, one = await cluster.client("n1")
        await settle()
        bad = one["session"]
        client.cut()
        await settle(100)
        assert 2 <= sum(attempt.data.get("session") == bad for attempt in core.attempts[1:]) < 12
        shown = await node.operations.events(10)
        assert shown["queues"][0]["queue"] == bad
        assert shown["queues"][0]["failures"] > 1
        assert shown["state"] == "ok"
        others = await begun(cluster, "n1", 5)
        await settle(5)
        assert all(core.types(two["session"]) == ["session.started"] for _, two in others)
        bad = ""
        await settle(400)
        assert core.types(one["session"])[:2] == ["session.started", "session.away"]
        core.check()

    play(scene, within_s=10_000)


def test_an_error_of_our_own_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue whose turn fails by an error of signald's own waits as after any failure; the node and the other queues go on."""
    bad: set[str] = set()
    turns: list[str] = []

    def message_of(queue: str, event: Event) -> messages.Message:
        turns.append(queue)
        if queue in bad:
            raise ValueError(queue)
        return messages.message_of(queue, event)

    monkeypatch.setattr(turn, "message_of", message_of)

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        client, one = await cluster.client("n1")
        await settle()
        bad.add(one["session"])
        client.cut()
        await settle(60)
        assert 2 < turns.count(one["session"]) < 12
        _, two = await cluster.client("n1")
        await settle()
        assert core.types(two["session"]) == ["session.started"]
        bad.clear()
        await settle(300)
        assert core.types(one["session"])[:2] == ["session.started", "session.away"]
        core.check()

    play(scene, within_s=10_000)


def test_what_cannot_be_told_for_long_expires_and_is_counted() -> None:
    """After `core.events_keep_s` an event that fails once more is dropped; later ones go on behind it."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = away
        node = await cluster.start("n1", **telling(events_keep_s=60.0))
        client, one = await cluster.client("n1")
        await settle(500)
        assert node.teller.tally.dropped["expired"] == 1
        assert not names(cluster)
        core.behave = always(200)
        await settle(100)
        client.cut()
        await settle(100)
        assert core.types(one["session"]) == ["session.away"]
        assert core.once(one["session"])[0].data["n"] == 2

    play(scene, within_s=10_000)


def test_a_full_queue_drops_new_events_and_says_how_many() -> None:
    """Beyond `core.events_queue_max` an event takes no number; the next that fits says it, and the end always fits."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        core.behave = away
        node = await cluster.start("n1", **telling(events_queue_max=10))
        client, one = await cluster.client("n1")
        for _ in range(8):
            client.cut()
            await trio.sleep(1)
            client, one = await cluster.restore("n1", one["recovery_token"])
        await client.send({"type": "bye"})
        await client.closed()
        core.behave = always(200)
        await settle(600)
        told = core.once(one["session"])
        assert [event.data["n"] for event in told] == list(range(1, 12))
        assert told[-1].type == "session.ended"
        assert told[-1].data["dropped"] == 7
        assert node.teller.tally.dropped["full"] == 7
        core.check()

    play(scene, within_s=10_000)
