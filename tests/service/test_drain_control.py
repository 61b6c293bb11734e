"""What an operator may do with a drain: workers only, clients only, all; call it off; roll back; wait; make it final."""

import pytest
import trio

from signald.core.head import Party
from signald.node import Node
from signald.testing.cluster import Cluster, play
from signald.wire.close_codes import CloseCode
from tests.service.deploys import Load, receipt, traffic


async def held(node: Node) -> None:
    """Wait until an operator's drain has done what it can."""
    with trio.fail_after(120):
        while node.shutdown.status.phase.value != "hold":  # noqa: ASYNC110 - in virtual time a poll costs nothing
            await trio.sleep(0.01)


def drain(node: Node, *parties: Party) -> bool:
    """Begin an operator's drain of `parties`."""
    return node.shutdown.begin("rollout", parties=frozenset(parties))


def check_all_here(load: Load) -> None:
    """Nothing was lost, and every session has the worker it had."""
    load.check()
    load.check_same_workers()


def test_workers_are_handed_over_before_any_client() -> None:
    """worker-first, as a gate before the traffic is switched: clients stay where they are, new ones still come in."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        async with traffic(cluster, workers=3, clients=9) as load:
            await cluster.start("n2")
            load.workers_at = "n2"
            assert drain(old, "worker")
            assert not old.shutdown.status.refuses_clients
            await held(old)
            assert not old.hub.worker_links
            assert sum(session.client.link is not None for session in old.hub.sessions.values()) == 9
            assert old.shutdown.status.line(trio.current_time()).startswith("drained (workers)")
            peer = await cluster.dial("n1", "/v1/worker")
            assert await peer.closed() == CloseCode.REFUSED
            _, started = await cluster.client("n1")
            assert started["type"] == "session_started"
            await trio.sleep(3)
            await load.settle()
            check_all_here(load)
            assert not any(client.goaways for client in load.clients)

    play(scene)


def test_a_gated_rollout_moves_each_party_once() -> None:
    """one-hop: workers by the gate, clients after the switch, then SIGTERM finds no party; the receipt tells all of it."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        async with traffic(cluster, workers=3, clients=9) as load:
            await cluster.start("n2")
            load.workers_at = "n2"
            assert drain(old, "worker")
            await held(old)
            load.clients_at = "n2"
            assert not drain(old, "client"), "a drain is under way"
            assert old.shutdown.extend(frozenset({"client"}))
            await trio.sleep(0.1)
            await held(old)
            assert old.shutdown.status.refuses_clients
            assert not old.hub.links
            assert receipt(cluster, "n1")["totals"]["outcomes"] == {"moved": 9}
            old.shutdown.signal()
            began = trio.current_time()
            await cluster.wait_exit("n1")
            assert trio.current_time() - began < 1
            await load.settle()
            check_all_here(load)
            for party in [*load.clients, *load.workers]:
                assert len(party.dials) == 2
            assert receipt(cluster, "n1")["totals"]["outcomes"] == {"moved": 9}

    play(scene)


def test_clients_only_leaves_those_whose_worker_is_here() -> None:
    """worker-first: the workers were not asked to move, so their clients are not sent ahead of them."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, _ = await cluster.pair("n1")
        lonely, started = await cluster.client("n1", want={"gpu": "none like it"})
        assert drain(old, "client")
        assert (await lonely.expect("goaway"))["reason"] == "rollout"
        await cluster.restore("n2", started["recovery_token"], received=0)
        await held(old)
        assert old.shutdown.status.plan["stayed"] == 1
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await worker.expect("message"))["data"] == "still here"
        assert not [frame for frame in client.aside + worker.aside if frame["type"] == "goaway"]

    play(scene)


def test_a_drain_is_called_off_before_it_has_done_anything() -> None:
    """An operator may abort a drain at once."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        assert drain(node, "worker", "client")
        assert node.shutdown.abort()
        await trio.sleep(1)
        assert not node.shutdown.status.draining
        _, started = await cluster.client("n1")
        assert started["type"] == "session_started"

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("after_s", [0.0, 0.06, 0.2, 0.5, 30.0])
def test_a_rollback_in_the_middle_loses_nothing(after_s: float) -> None:
    """exactly-once, sticky: a drain is called off after any time, the new node is drained instead, and all come back."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", pace={"sessions_per_s": 40.0})
        async with traffic(cluster, workers=4, clients=20) as load:
            new = await cluster.start("n2", pace={"sessions_per_s": 40.0})
            load.clients_at = load.workers_at = "n2"
            assert drain(old, "worker", "client")
            await trio.sleep(after_s)
            assert old.shutdown.abort()
            load.clients_at = load.workers_at = "n1"
            await trio.sleep(0.1)
            assert not old.shutdown.status.draining
            new.shutdown.signal()
            await cluster.wait_exit("n2")
            await load.settle()
            check_all_here(load)
            assert sum(session.client.link is not None for session in old.hub.sessions.values()) == 20
            for party in [*load.clients, *load.workers]:
                assert len(party.dials) <= 3, "at most there and back"

    play(scene)


@pytest.mark.long
def test_an_operators_drain_waits_for_a_successor() -> None:
    """No session is suspended for an operator: the drain goes on when a node comes, and the parties notice nothing of the wait."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        async with traffic(cluster, workers=2, clients=4) as load:
            assert drain(old, "worker", "client")
            await trio.sleep(200)
            assert old.shutdown.status.phase.value == "successor"
            await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            await held(old)
            assert not old.hub.links
            await load.settle()
            check_all_here(load)
            old.shutdown.signal()
            await cluster.wait_exit("n1")

    play(scene)


def test_who_does_not_move_is_served_on() -> None:
    """No party is given up for an operator's drain: it ends, names those that stayed, and a signal gives them their last chance."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", drain={"worker_timeout_s": 2.0})
        await cluster.start("n2")
        client, _, worker, accepted, session = await cluster.pair("n1")
        assert drain(old, "worker", "client")
        await held(old)
        assert old.shutdown.status.plan["stayed"] >= 1
        await client.send({"type": "message", "seq": 1, "data": "one"})
        assert (await worker.expect("message"))["data"] == "one"
        await worker.expect("goaway")
        old.shutdown.signal()
        await worker.expect("goaway")
        await cluster.resume("n2", accepted["recovery_token"], {"session": session, "received": 1})
        await client.expect("goaway")
        await cluster.wait_exit("n1")

    play(scene)


@pytest.mark.parametrize("signals", [2, 3])
def test_signals_at_once_end_a_node_that_holds(signals: int) -> None:
    """bounded: a node that an operator has drained goes by its signals, also when they come before the first is heeded."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        drain(node, "worker", "client")
        await held(node)
        for _ in range(signals):
            node.shutdown.signal()
        with trio.fail_after(30):
            await cluster.wait_exit("n1")

    play(scene)


def test_a_node_that_holds_serves_again_when_no_other_is_ready() -> None:
    """A rollout is aborted after its gate: the old node gets no recall, and the new one goes. All come back, nothing is lost."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        async with traffic(cluster, workers=3, clients=9) as load:
            new = await cluster.start("n2")
            load.workers_at = "n2"
            assert drain(old, "worker")
            await held(old)
            await trio.sleep(60)
            assert old.shutdown.status.phase.value == "hold", "there is another node: it waits for its operator"
            load.workers_at = "n1"
            new.shutdown.signal()
            await cluster.wait_exit("n2")
            assert not old.shutdown.status.draining
            assert len(old.hub.worker_links) == 3
            await load.settle()
            check_all_here(load)
            for worker in load.workers:
                assert len(worker.dials) <= 4, "there and back, and once or twice too early"

    play(scene)


def test_a_node_that_holds_outlives_one_that_is_killed() -> None:
    """The only other node dies without a word: when its lease is over, the one that holds serves again."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        await cluster.start("n2")
        assert drain(old, "worker", "client")
        await held(old)
        cluster.kill("n2")
        with trio.fail_after(30):
            while old.shutdown.status.draining:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                await trio.sleep(0.1)
        _, started = await cluster.client("n1")
        assert started["type"] == "session_started"

    play(scene)


def test_a_lone_node_that_is_told_to_admit_nobody_does_not() -> None:
    """It holds although no other node is ready: there was none when its operator spoke."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        assert drain(node, "client", "worker")
        await held(node)
        await trio.sleep(60)
        assert node.shutdown.status.phase.value == "hold"


def test_a_drain_that_is_called_off_leaves_its_receipt() -> None:
    """Parties moved, on the way and stayed: an operator wants to know before the new node is drained instead."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", pace={"sessions_per_s": 10.0})
        async with traffic(cluster, workers=4, clients=20) as load:
            await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            assert drain(old, "worker", "client")
            await trio.sleep(1.5)
            assert old.shutdown.abort()
            await trio.sleep(0.1)
            assert not old.shutdown.status.draining
            await trio.sleep(3)
            told = receipt(cluster, "n1")
            moved = sum(len(client.dials) == 2 for client in load.clients)
            totals = told["totals"]
            assert totals["sessions"] == totals["moved"] + totals["stayed"] == 20
            on_the_way = [
                line for line in told["sessions"].values() if line["reason"] == "called off when it had been told"
            ]
            assert totals["moved"] + len(on_the_way) == moved
            assert 0 < moved < 20
            assert totals["gap_ms_max"] is not None
            await load.settle()
            check_all_here(load)

    play(scene)


def test_a_signal_is_heeded_beside_an_abort() -> None:
    """An operator calls a drain off and the supervisor stops the node in the same moment: it stops."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        drain(node, "worker")
        await held(node)
        assert node.shutdown.abort()
        node.shutdown.signal()
        with trio.fail_after(100):
            await cluster.wait_exit("n1")


def test_a_drain_that_was_called_off_does_not_tell_of_the_next_one() -> None:
    """The receipt of the drain that ends the node is the one that is kept, however soon it follows."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", pace={"sessions_per_s": 1000.0})
        async with traffic(cluster, workers=1, clients=4) as load:
            await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            assert drain(old, "worker", "client")
            await held(old)
            assert old.shutdown.abort()
            old.shutdown.signal()
            await cluster.wait_exit("n1")
            await trio.sleep(3)
            assert receipt(cluster, "n1")["phases"][-1][0] == "flush"
            await load.settle()
            check_all_here(load)

    play(scene)
