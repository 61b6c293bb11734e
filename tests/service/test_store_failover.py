"""The store fails over to a replica that lacks the last of what was written: what is lost is found, and said."""

import copy
from collections.abc import Callable

import pytest
import trio
from msgspec import structs

from signald.errors import StoreUnavailable
from signald.store.base import WAKE_ALL, Op, Result
from signald.store.memory import MemoryRows
from signald.store.session.ops import Append, ClaimClient, Reseed
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.test_store_loss import faulty


def fail_over(cluster: Cluster, replica: MemoryRows) -> None:
    """A replica takes over, and all nodes connect to it."""
    cluster.world.rows = replica
    cluster.world.lives += 1
    for inboxes in cluster.world._inboxes.values():
        for inbox in inboxes:
            inbox.put(WAKE_ALL)


def keep_listed(cluster: Cluster, name: str) -> None:
    """Let a node that does not reach the store count as live there: a session whose client's node is dead waits for no worker."""
    [entry] = [info for info in cluster.world.rows.nodes() if info.id == name]
    cluster.world.rows.save_node(structs.replace(entry, lease_until_ms=entry.lease_until_ms + 300_000))


class CutOff:
    """A node's store while the node does not reach it."""

    async def execute(self, _: object) -> list[Result]:
        await trio.lowlevel.checkpoint()
        raise StoreUnavailable("cut off")


async def say(worker: Peer, client: Peer, session: str, *seqs: int) -> None:
    """Say something under each of `seqs`, and have it acked on both ways."""
    for seq in seqs:
        await worker.send({"type": "message", "session": session, "seq": seq, "data": f"old {seq}"})
        assert (await client.expect("message"))["seq"] == seq
    await client.send({"type": "ack", "seq": seqs[-1]})
    assert (await worker.expect("ack"))["seq"] == seqs[-1]
    await trio.sleep(0.5)


def test_a_new_worker_begins_behind_what_a_failover_has_lost() -> None:
    """The node of the client knows how far the worker before had come, though the store does not any more."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, _, worker, _, session = await cluster.pair("a", worker_at="b")
        replica = copy.deepcopy(cluster.world.rows)
        await say(worker, client, session, 1, 2, 3)
        fail_over(cluster, replica)
        await trio.sleep(0.5)
        await worker.send({"type": "bye"})
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept())["next_seq"] == 4
        await other.send({"type": "message", "session": session, "seq": 4, "data": "new"})
        assert (await client.expect("message"))["data"] == "new"

    play(scene)


def test_a_session_that_was_over_and_comes_back_goes_on_from_where_it_was() -> None:
    """A replica that has not heard of the end of a session gives it to its worker again: not to use the same numbers again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, _, worker, _, session = await cluster.pair("a", worker_at="b")
        replica = copy.deepcopy(cluster.world.rows)
        await say(worker, client, session, 1, 2, 3)
        await client.send({"type": "bye"})
        await worker.expect("session_ended")
        fail_over(cluster, replica)
        assert (await worker.accept(within_s=60))["next_seq"] == 4

    play(scene)


def test_a_new_worker_that_begins_too_early_is_told_so() -> None:
    """Numbers given before a failover are not reused unnoticed, however late the party comes that knows them."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        await cluster.start("c")
        client, _, worker, _, session = await cluster.pair("a", worker_at="c")
        replica = copy.deepcopy(cluster.world.rows)
        await say(worker, client, session, 1, 2, 3)
        committer = cluster.nodes["a"].committer
        store, committer.store = committer.store, CutOff()  # type: ignore[assignment]
        fail_over(cluster, replica)
        keep_listed(cluster, "a")
        cluster.kill("c")
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept(within_s=120))["next_seq"] == 1
        await other.send({"type": "message", "session": session, "seq": 1, "data": "too early"})
        assert (await other.expect("ack"))["seq"] == 1
        committer.store = store
        lost = await other.expect("error")
        assert (lost["code"], lost["lost_from"], lost["lost_to"]) == ("log_lost", 1, 1)
        assert (await other.expect("session_ended"))["session"] == session
        assert (await other.accept())["next_seq"] == 4
        await other.send({"type": "message", "session": session, "seq": 4, "data": "new"})
        assert (await client.expect("message"))["data"] == "new"

    play(scene)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_node_remembers_the_numbers_of_a_worker_that_has_just_gone(comes_back: bool) -> None:
    """A session lost by a failover is given to another worker at the node of the first, while the client's node is away.

    Nothing it says is lost then, whether the client comes to it or its node comes back.
    """

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, started, worker, _, session = await cluster.pair("a", worker_at="b")
        replica = copy.deepcopy(cluster.world.rows)
        await say(worker, client, session, 1, 2)
        # Its last words are stored when the session has been let go of.
        await worker.send({"type": "message", "session": session, "seq": 3, "data": "last words"})
        await worker.send({"type": "session_refuse", "session": session, "reason": "had enough"})
        await worker.send({"type": "bye"})
        assert (await client.expect("message"))["seq"] == 3
        come_back = cut_off(cluster, "a")
        fail_over(cluster, replica)
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept(within_s=120))["next_seq"] == 4
        await says(other, session, 4)
        if comes_back:
            come_back()
            assert (await client.expect("message"))["data"] == "new 4"
            assert [frame for frame in await client.quiet() if frame["type"] == "error"] == []
            return
        again, restored = await cluster.restore("b", started["recovery_token"], received=3)
        assert restored["replaying"] == 1
        assert (await again.expect("message"))["data"] == "new 4"

    play(scene)


def test_of_two_workers_at_one_node_one_has_the_session() -> None:
    """A store that forgot the second pairing gives the session back to the first worker, and the second is told."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, _, first, _, session = await cluster.pair("a", worker_at="b")
        second, _ = await cluster.worker("b", "worker-b")
        replica = copy.deepcopy(cluster.world.rows)
        await first.send({"type": "session_refuse", "session": session, "reason": "had enough"})
        await second.accept()
        await second.send({"type": "message", "session": session, "seq": 1, "data": "of the second"})
        assert (await client.expect("message"))["data"] == "of the second"
        for name in ("a", "b"):
            # What is forgotten would be given back later.
            doubts = cluster.nodes[name].hub.inboxes.doubts
            doubts.session_behind = lambda session: None  # type: ignore[method-assign]
        fail_over(cluster, replica)
        assert (await first.accept(within_s=60))["next_seq"] == 2
        assert (await second.expect("session_ended"))["session"] == session
        await second.send({"type": "message", "session": session, "seq": 2, "data": "of the second"})
        assert (await second.expect("error"))["code"] == "unknown_session"

    play(scene)


def cut_off(cluster: Cluster, name: str) -> Callable[[], None]:
    """Keep a node from the store until what is returned is called."""
    committer = cluster.nodes[name].committer
    store, committer.store = committer.store, CutOff()  # type: ignore[assignment]

    def restore() -> None:
        committer.store = store

    return restore


async def says(worker: Peer, session: str, *seqs: int) -> None:
    """Say something under each of `seqs`, and have it acked."""
    for seq in seqs:
        await worker.send({"type": "message", "session": session, "seq": seq, "data": f"new {seq}"})
    while (await worker.expect("ack"))["seq"] < seqs[-1]:
        pass


async def losses(peer: Peer) -> list[tuple[str, int, int]]:
    """What a party, which gets no message, is told that it has lost, until it is told nothing more: direction, from, to."""
    frames = await peer.quiet(2.0)
    assert "message" not in [frame["type"] for frame in frames]
    lost = [frame for frame in frames if frame.get("code") == "log_lost"]
    return [(frame["direction"], frame["lost_from"], frame["lost_to"]) for frame in lost]


@pytest.mark.parametrize("resumes", [False, True])
def test_a_worker_gives_way_to_one_that_was_given_its_numbers_again(resumes: bool) -> None:
    """The node that knows of the first claim comes too late: what the client misses is said to it and to both workers.

    Both claims have one epoch, or the first a higher one.
    """

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, started = await cluster.client("a")
        session = started["session"]
        await trio.sleep(0.5)
        replica = copy.deepcopy(cluster.world.rows)
        worker, accepted = await cluster.worker("a")
        await worker.accept()
        if resumes:
            position = {"session": session, "received": 0}
            worker, _ = await cluster.resume("a", accepted["recovery_token"], position)
        await say(worker, client, session, 1, 2, 3)
        come_back = cut_off(cluster, "a")
        fail_over(cluster, replica)
        await worker.send({"type": "message", "session": session, "seq": 4, "data": "waits"})
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept(within_s=120))["next_seq"] == 1
        await says(other, session, 1, 2, 3, 4, 5)
        come_back()
        assert await losses(client) == [("received", 4, 5), ("received", 6, 6)]
        assert (await other.expect("error"))["lost_to"] == 5
        assert (await other.expect("session_ended"))["session"] == session
        assert (await worker.expect("session_ended"))["reason"] == "log lost"
        assert 4 not in [frame.get("seq") for frame in worker.aside]
        assert (await other.accept())["next_seq"] == 7
        await other.send({"type": "message", "session": session, "seq": 7, "data": "heard"})
        assert (await client.expect("message"))["data"] == "heard"

    play(scene)


def test_a_new_worker_that_has_gone_on_past_what_was_lost_is_told_so() -> None:
    """No number is missing then, and its claim is a newer one: that it began inside what the client has heard tells it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        await cluster.start("c")
        client, _, worker, _, session = await cluster.pair("a", worker_at="c")
        replica = copy.deepcopy(cluster.world.rows)
        await say(worker, client, session, 1, 2, 3)
        come_back = cut_off(cluster, "a")
        fail_over(cluster, replica)
        keep_listed(cluster, "a")
        cluster.kill("c")
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept(within_s=120))["next_seq"] == 1
        await says(other, session, 1, 2, 3, 4, 5)
        come_back()
        assert await losses(client) == [("received", 4, 5), ("received", 6, 6)]
        lost = await other.expect("error")
        assert (lost["direction"], lost["lost_from"], lost["lost_to"]) == ("sent", 1, 5)
        assert (await other.expect("session_ended"))["session"] == session
        assert (await other.accept())["next_seq"] == 7
        await other.send({"type": "message", "session": session, "seq": 7, "data": "heard"})
        assert (await client.expect("message"))["data"] == "heard"

    play(scene)


@pytest.mark.parametrize("resumes", [False, True])
def test_a_worker_gives_way_to_one_that_its_client_has_heard_since(resumes: bool) -> None:
    """Its undelivered messages are not given back behind those of another worker: it is told, and has the session no more."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, started = await cluster.client("a")
        session = started["session"]
        await trio.sleep(0.5)
        replica = copy.deepcopy(cluster.world.rows)
        worker, accepted = await cluster.worker("a")
        await worker.accept()
        if resumes:
            position = {"session": session, "received": 0}
            worker, _ = await cluster.resume("a", accepted["recovery_token"], position)
        client.cut()
        await trio.sleep(0.5)
        await says(worker, session, 1, 2, 3, 4, 5)
        come_back = cut_off(cluster, "a")
        fail_over(cluster, replica)
        client, _ = await cluster.restore("b", started["recovery_token"], received=0)
        other, _ = await cluster.worker("b", "worker-b")
        assert (await other.accept(within_s=120))["next_seq"] == 1
        await says(other, session, 1, 2, 3)
        assert [(await client.expect("message"))["data"] for _ in range(3)] == ["new 1", "new 2", "new 3"]
        come_back()
        lost = await worker.expect("error")
        assert (lost["code"], lost["direction"], lost["lost_from"], lost["lost_to"]) == ("log_lost", "sent", 1, 5)
        assert (await worker.expect("session_ended"))["reason"] == "log lost"
        await says(other, session, 4)
        assert (await client.expect("message"))["data"] == "new 4"
        assert "message" not in [frame["type"] for frame in await client.quiet()]

    play(scene)


def test_a_worker_whose_claim_was_lost_keeps_its_sessions() -> None:
    """Its node gives its claim back: to the others it would be one that has been away for too long."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        client, _, worker, accepted, session = await cluster.pair("a")
        worker.cut()
        await trio.sleep(1)
        replica = copy.deepcopy(cluster.world.rows)
        again, answer = await cluster.resume("a", accepted["recovery_token"], {"session": session, "received": 0})
        assert answer["type"] == "reconnection_ack"
        await again.send({"type": "ping"})
        await again.expect("pong")
        await trio.sleep(0.5)
        fail_over(cluster, replica)
        assert "replaced" not in [frame.get("state") for frame in await client.quiet(60)]
        assert [frame["type"] for frame in await again.quiet() if frame["type"] != "pong"] == []
        again.cut()
        await trio.sleep(1)
        positions = {"session": session, "received": 0}
        _, answer = await cluster.resume("a", answer["recovery_token"], positions)
        assert [one["session"] for one in answer["sessions"]] == [session]

    play(scene)


def test_acks_that_a_failover_has_lost_are_given_again() -> None:
    """The receiver has no reason to ack once more, and the sender's backlog would stay full for ever."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits={"backlog_messages_max": 2})
        client, _, worker, _, session = await cluster.pair("a")
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.expect("message")
        replica = copy.deepcopy(cluster.world.rows)
        await worker.send({"type": "ack", "session": session, "seq": 2})
        await trio.sleep(1)
        fail_over(cluster, replica)
        await trio.sleep(1)
        await client.send({"type": "message", "seq": 3, "data": "goes on"})
        with trio.fail_after(5):
            assert (await worker.expect("message"))["data"] == "goes on"

    play(scene)


@pytest.mark.parametrize("resumes", [False, True])
def test_a_worker_that_has_taken_a_session_keeps_it(resumes: bool) -> None:
    """sticky: the store has lost that the session was accepted, and perhaps a claim since; no worker is asked once more."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        worker, accepted = await cluster.worker("a")
        client, started = await cluster.client("a")
        session = started["session"]
        assert (await worker.expect("session_assigned"))["session"] == session
        await trio.sleep(0.5)
        replica = copy.deepcopy(cluster.world.rows)
        await worker.send({"type": "session_accept", "session": session})
        assert (await client.states())[-1] == "paired"
        if resumes:
            await cluster.start("b")
            worker, _ = await cluster.resume("b", accepted["recovery_token"], {"session": session, "received": 0})
            await client.quiet()
        fail_over(cluster, replica)
        assert (await client.states())[-1:] in ([], ["paired"])
        record = cluster.world.rows.session(session)
        assert record is not None
        assert record.worker_state == "paired"
        await client.send({"type": "message", "seq": 1, "data": "still there"})
        assert (await worker.expect("message"))["data"] == "still there"

    play(scene)


def test_a_claim_that_is_overtaken_by_an_append_of_the_peer_finds_no_loss() -> None:
    """A head that is older than what the store has answered since is no sign that it lost something: it is given nothing back."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        store, asked = faulty(node), list[Op]()
        store.before = asked.extend
        store.held_until = trio.Event()
        await client.send({"type": "message", "seq": 1, "data": "on its way"})
        await trio.sleep(0.1)
        again = await cluster.dial("n1", "/v1/client")
        await again.send({"type": "restore_session", "recovery_token": started["recovery_token"], "received": 0})
        await trio.sleep(0.1)
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "behind the claim"})
        await trio.sleep(0.1)
        store.held_until.set()
        assert (await again.expect("session_restored"))["accepted"] == 1
        assert (await again.expect("message"))["data"] == "behind the claim"
        await trio.sleep(5)
        kinds = [type(op) for op in asked if isinstance(op, ClaimClient | Append | Reseed)]
        assert kinds == [Append, ClaimClient, Append]

    play(scene)
