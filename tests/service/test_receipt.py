"""The receipt of a drain tells of each session what its applications saw."""

import json

import pytest
import trio
from msgspec import json as packed

from signald.ids import SessionId
from signald.service.drain.ledger import Ledger
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json
from tests.service.deploys import receipt, traffic

SESSION = SessionId("s_1")


def test_every_session_with_its_steps() -> None:
    """goaway, claim, live at the successor, replayed: in order, for each session, with the successor's name."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 50.0})
        async with traffic(cluster, workers=3, clients=30) as load:
            await load.deploy("n1", "n2")
            await load.settle()
            load.check()
        ledger = receipt(cluster, "n1")
        totals = ledger["totals"]
        assert {name: totals[name] for name in ("sessions", "moved", "left", "stayed", "suspended", "lost")} == {
            "sessions": 30,
            "moved": 30,
            "left": 0,
            "stayed": 0,
            "suspended": 0,
            "lost": 0,
        }
        assert totals["pace_per_s"] == 50.0
        assert 0 < totals["pace_peak_per_s"] <= 55
        assert totals["gap_ms_max"] <= 50
        for line in ledger["sessions"].values():
            assert line["pair_ready_ms"] <= line["goaway_ms"] <= line["moved_ms"]
            assert line["node"] == "n2"
            assert line["live_ms"] >= line["goaway_ms"] - 1
            assert line["replayed"] >= 0
            assert line["worker"].startswith("w_")

    play(scene)


def test_what_was_sent_again_is_counted() -> None:
    """replayed: what the client had not had when it came to the successor."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        client, started, worker, accepted, session = await cluster.pair("old")
        await cluster.start("new")
        for seq in (1, 2, 3):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
            await client.expect("message")
        old.shutdown.signal()
        await worker.expect("goaway")
        await cluster.resume("new", accepted["recovery_token"], {"session": session, "received": 0})
        await client.expect("goaway")
        await cluster.restore("new", started["recovery_token"], received=1)
        await cluster.wait_exit("old")
        assert receipt(cluster, "old")["sessions"][session]["replayed"] == 2
        assert receipt(cluster, "old")["totals"]["replayed"] == 2

    play(scene)


def phases(ledger: Json) -> list[str]:
    """The phases a drain has gone through."""
    return [name for name, _ in ledger["phases"]]


def steps(cluster: Cluster, session: str) -> list[tuple[str, str, str]]:
    """The parties that a drain has cut off, by the session's trail: party, step and detail."""
    told = [json.loads(step) for step in cluster.world.rows.steps(session)]
    return [(step["party"], step["what"], step["detail"]) for step in told if step["what"] == "suspended"]


LONELY = ["unready", "successor", "terminate", "flush"]
"""Up to the moment in which the receipt is stored."""
ALONE = "no other node was ready"


def test_without_a_successor_each_session_is_counted_and_its_trail_shows_the_cut() -> None:
    """suspended: all sessions with a party here, with the parties that were closed, and a gate on suspended>0 does not pass."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", drain={"successor_timeout_s": 5.0})
        async with traffic(cluster, workers=2, clients=6) as load:
            waiting, started = await cluster.client("n1", want={"lang": "none"})
            await trio.sleep(2)
            began = trio.current_time()
            cluster.nodes["n1"].shutdown.signal()
            assert await waiting.closed() == 1012
            await cluster.wait_exit("n1")
            assert trio.current_time() - began < 8
            ledger = receipt(cluster, "n1")
            totals = ledger["totals"]
            assert (totals["sessions"], totals["suspended"], totals["moved"], totals["lost"]) == (7, 7, 0, 0)
            assert phases(ledger) == LONELY
            detail = f"by the drain of n1 (draining): {ALONE}"
            for name, line in ledger["sessions"].items():
                parties = ["client"] if name == started["session"] else ["client", "worker"]
                assert (line["outcome"], line["reason"], line["parties"]) == ("suspended", ALONE, parties)
                assert steps(cluster, name) == [(party, "suspended", detail) for party in parties]
            load.clients_at = load.workers_at = "later"
            await cluster.start("later")
            await trio.sleep(5)
            await load.settle()
            load.check()

    play(scene)


def test_a_session_with_its_worker_alone_here_is_counted() -> None:
    """Both nodes of a cluster end together: each receipt names the party that it closed."""

    async def scene(cluster: Cluster) -> None:
        drain: dict[str, object] = {"successor_timeout_s": 2.0}
        await cluster.start("n1", drain=drain)
        await cluster.start("n2", drain=drain)
        _, _, _, _, session = await cluster.pair("n1", worker_at="n2")
        for name in ("n1", "n2"):
            cluster.nodes[name].shutdown.signal()
        for name in ("n1", "n2"):
            await cluster.wait_exit(name)
        for name, party in (("n1", "client"), ("n2", "worker")):
            line = receipt(cluster, name)["sessions"][session]
            assert (line["outcome"], line["parties"]) == ("suspended", [party])
        assert sorted(party for party, _, _ in steps(cluster, session)) == ["client", "worker"]

    play(scene)


def test_a_worker_that_is_terminated_is_counted_with_its_session() -> None:
    """A worker that knows no goaway is gone before FLUSH, for which another is waited for: the receipt names it all the same."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", drain={"successor_timeout_s": 2.0, "terminate_timeout_s": 3.0})
        worker = await cluster.dial("n1", "/v1/worker", subprotocol=None)
        await worker.ask({"type": "app_ready", "instance_id": "legacy", "capacity": 1}, "app_accepted")
        await cluster.client("n1")
        assigned = await worker.expect("session_assigned")
        await worker.send({"type": "session_accept", "session": assigned["session"]})
        slow = await cluster.dial("n1", "/v1/worker", subprotocol=None)
        await slow.ask({"type": "app_ready", "instance_id": "slow", "capacity": 1}, "app_accepted")
        cluster.nodes["n1"].shutdown.signal()
        asked = await worker.expect("terminate_app")
        await worker.send({"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""})
        assert await worker.closed() == 1000
        await cluster.wait_exit("n1")
        (line,) = receipt(cluster, "n1")["sessions"].values()
        assert (line["outcome"], line["parties"]) == ("suspended", ["client", "worker"])

    play(scene)


@pytest.mark.parametrize("signals", [2, 3])
def test_a_hurried_drain_leaves_a_receipt(signals: int) -> None:
    """Two signals skip to FLUSH, three to CLOSE: the receipt and the trail tell what became of each session all the same."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, _, _, session = await cluster.pair("n1")
        for _ in range(signals):
            cluster.nodes["n1"].shutdown.signal()
        assert await client.closed() == 1012
        await cluster.wait_exit("n1")
        ledger = receipt(cluster, "n1")
        assert ledger["totals"]["suspended"] == 1
        line = ledger["sessions"][session]
        assert (line["reason"], line["parties"]) == ("a signal ended the drain early", ["client", "worker"])
        assert [party for party, _, _ in steps(cluster, session)] == ["client", "worker"]

    play(scene)


@pytest.mark.parametrize("wait_s", [0.05, 0.06, 1.0, 1.03, 2.5, 4.0])
def test_a_lonely_node_waits_once(wait_s: float) -> None:
    """The wait for a successor is one budget, also where it equals that of all moves: its end leads to TERMINATE."""

    async def scene(cluster: Cluster) -> None:
        flush_s, close_s = 1.0, 1.0
        drain: dict[str, object] = {
            "unready_s": 0.0,
            "successor_timeout_s": wait_s,
            "timeout_s": wait_s + flush_s + close_s,
            "flush_timeout_s": flush_s,
            "close_timeout_s": close_s,
        }
        await cluster.start("n1", drain=drain)
        client, *_ = await cluster.pair("n1")
        began = trio.current_time()
        cluster.nodes["n1"].shutdown.signal()
        assert await client.closed() == 1012
        await cluster.wait_exit("n1")
        assert wait_s <= trio.current_time() - began <= wait_s + flush_s + close_s
        ledger = receipt(cluster, "n1")
        assert phases(ledger) == LONELY
        (line,) = ledger["sessions"].values()
        assert line["reason"] == ALONE

    play(scene)


@pytest.mark.parametrize("policy", ["reassign", "end"])
def test_who_was_not_moved_is_named_with_the_reason(policy: str) -> None:
    """A worker that does not move is given up: its session is suspended with its client, or lost where the policy ends it."""

    async def scene(cluster: Cluster) -> None:
        worker: dict[str, object] = {"on_loss": policy}
        old = await cluster.start("old", drain={"worker_timeout_s": 2.0, "client_timeout_s": 2.0}, worker=worker)
        await cluster.pair("old")
        await cluster.start("new", worker=worker)
        old.shutdown.signal()
        await cluster.wait_exit("old")
        ledger = receipt(cluster, "old")
        (line,) = ledger["sessions"].values()
        assert line["reason"] in ("worker given up", "not moved in time")
        assert line["outcome"] == ("lost" if policy == "end" else "suspended")
        assert ledger["totals"]["lost"] == (1 if policy == "end" else 0)
        await trio.sleep(1)

    play(scene)


@pytest.mark.parametrize(
    ("step", "replayed"),
    [
        ({"detail": "epoch 3 from n1, replaying 12", "replaying": 12}, 12),
        ({"detail": "in any words of a later release", "replaying": 4}, 4),
        ({"detail": "epoch 3 from n1, replaying 2"}, 2),
        ({"detail": "epoch 3 from n1"}, None),
        ({}, None),
    ],
    ids=["field", "field alone", "release 0.1.0", "no number", "no detail"],
)
def test_a_number_in_a_trail_has_a_field(step: Json, replayed: int | None) -> None:
    """What a successor sent again is read from a field; from the words of its step only where an earlier release wrote it."""
    ledger = Ledger("old")
    ledger.phase("unready", 0.0, 1_000)
    ledger.begin({SESSION: True}, {}, {SESSION: "signald.v1"}, 10.0)
    ledger.told(SESSION, 1.0)
    ledger.moved(SESSION, 1.5)
    ledger.follow(
        SESSION, [packed.encode({"at_ms": 2_600, "node": "new", "party": "client", "what": "resumed", **step})]
    )
    line = ledger.line(SESSION)
    assert line is not None
    assert (line.node, line.replayed) == ("new", replayed)
