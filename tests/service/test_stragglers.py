"""Parties that do not move when they are told to, or cannot: given up, terminated, or closed at the end."""

import pytest
import trio

from signald.testing.cluster import Cluster, play
from tests.service.deploys import receipt


def test_a_worker_that_does_not_move_is_given_up() -> None:
    """After its budget its sessions go to another worker, whose clients are told `replaced`, and then move as well."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", drain={"worker_timeout_s": 5.0})
        client, started, worker, _, session = await cluster.pair("old")
        await client.send({"type": "message", "seq": 1, "data": "one"})
        await worker.expect("message")
        await cluster.start("new")
        other, _ = await cluster.worker("new", "worker-b")
        old.shutdown.signal()
        await worker.expect("goaway")
        began = trio.current_time()
        with trio.fail_after(10):
            assigned = await other.expect("session_assigned")
        assert trio.current_time() - began >= 5
        assert assigned["session"] == session
        assert [entry["data"] for entry in assigned["chat_history"]] == ["one"]
        await other.send({"type": "session_accept", "session": session})
        assert (await other.expect("message"))["data"] == "one"
        await client.expect("goaway")
        moved, restored = await cluster.restore("new", started["recovery_token"])
        told = [frame["state"] for frame in client.aside if frame["type"] == "peer"]
        assert restored["peer"]["state"] == "paired" or told[-1:] == ["replaced"]
        await moved.send({"type": "message", "seq": 2, "data": "two"})
        assert (await other.expect("message"))["data"] == "two"
        await cluster.wait_exit("old")
        assert receipt(cluster, "old")["sessions"][session]["outcome"] == "moved"
        assert receipt(cluster, "old")["totals"]["workers_given_up"] == 1
        assert receipt(cluster, "old")["totals"]["goaway_before_pair_ready"] == 0

    play(scene)


def test_a_session_that_is_held_for_a_worker_that_is_away_holds_up_no_drain() -> None:
    """hold: the drain does not wait for a worker that is at no node; its client stays to the end and finds it again later."""

    async def scene(cluster: Cluster) -> None:
        drain: dict[str, object] = {"worker_timeout_s": 3.0, "timeout_s": 60.0, "stop_timeout_s": 70.0}
        worker: dict[str, object] = {"on_loss": "hold", "resume_timeout_s": 600.0}
        old = await cluster.start("old", drain=drain, worker=worker)
        client, started, paired, accepted, session = await cluster.pair("old")
        await cluster.start("new", drain=drain, worker=worker)
        other, _ = await cluster.worker("new", "worker-b")
        paired.cut()
        await trio.sleep(1.0)
        began = trio.current_time()
        old.shutdown.signal()
        assert await client.closed() == 1001
        await cluster.wait_exit("old")
        assert trio.current_time() - began < 30
        assert receipt(cluster, "old")["sessions"][session]["reason"] == "held for its worker"
        assert not [frame for frame in await other.quiet() if frame["type"] == "session_assigned"]
        _, answer = await cluster.resume("new", accepted["recovery_token"], {"session": session, "received": 0})
        assert answer["type"] == "reconnection_ack"
        _, restored = await cluster.restore("new", started["recovery_token"])
        assert restored["type"] == "session_restored"

    play(scene)


@pytest.mark.parametrize("policy", ["hold", "end"])
def test_the_policy_decides_about_the_sessions_of_a_worker_that_does_not_move(policy: str) -> None:
    """hold: the client stays until the end (1001) and finds its worker later; end: it is told that the session ended."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", drain={"worker_timeout_s": 3.0}, worker={"on_loss": policy})
        client, started, worker, accepted, session = await cluster.pair("old")
        await cluster.start("new", worker={"on_loss": policy})
        old.shutdown.signal()
        if policy == "end":
            assert await client.closed() == 4410
            assert client.aside[-1]["type"] == "session_ended"
            await cluster.wait_exit("old")
            assert cluster.world.rows.is_empty_of(session)
            return
        assert await client.closed() == 1001
        assert [frame["type"] for frame in client.aside] == [], "a client is not sent where its worker is not"
        assert await worker.closed() == 1001
        await cluster.wait_exit("old")
        again, answer = await cluster.resume("new", accepted["recovery_token"], {"session": session})
        assert answer["lost"] == []
        moved, restored = await cluster.restore("new", started["recovery_token"])
        assert restored["peer"]["state"] == "paired"
        await moved.send({"type": "message", "seq": 1, "data": 1})
        assert (await again.expect("message"))["data"] == 1

    play(scene)


def test_a_client_that_does_not_move_is_closed_at_the_end() -> None:
    """1001 after its budget; it resumes by its token, and nothing is lost."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", drain={"client_timeout_s": 4.0})
        client, started, worker, accepted, session = await cluster.pair("old")
        await cluster.start("new")
        old.shutdown.signal()
        await worker.expect("goaway")
        again, _ = await cluster.resume("new", accepted["recovery_token"], {"session": session})
        await client.expect("goaway")
        await client.send({"type": "message", "seq": 1, "data": "not yet"})
        assert (await again.expect("message"))["data"] == "not yet"
        assert await client.closed() == 1001
        await cluster.wait_exit("old")
        _, restored = await cluster.restore("new", started["recovery_token"])
        assert (restored["accepted"], restored["peer"]["state"]) == (1, "paired")
        line = receipt(cluster, "old")["sessions"][session]
        assert (line["outcome"], line["reason"]) == ("suspended", "not moved in time")

    play(scene)


@pytest.mark.parametrize("after_s", [0.2, 0.5])
def test_a_client_that_does_not_move_has_its_budget_once(after_s: float) -> None:
    """bounded: a successor that lives is not taken for lost, whenever nodes renew, so no party's time begins again."""

    async def scene(cluster: Cluster) -> None:
        node: dict[str, object] = {"lease_ttl_s": 3.0}
        old = await cluster.start("old", drain={"client_timeout_s": 5.0}, node=node)
        new = await cluster.start("new", node=node)
        _, _, worker, accepted, session = await cluster.pair("old")
        old.shutdown.signal()
        await worker.expect("goaway")
        await cluster.resume("new", accepted["recovery_token"], {"session": session})
        await trio.sleep(after_s)
        new.lease.poke()  # from here on it renews at other times than `old` looks
        with trio.fail_after(8):
            await cluster.wait_exit("old")

    play(scene)


@pytest.mark.parametrize("answers", [True, False])
def test_a_worker_of_an_older_time_is_terminated(answers: bool) -> None:
    """No subprotocol, no GOAWAY: `terminate_app`, closed with 1000 after `app_terminated`, with 1001 when it is late."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", drain={"terminate_timeout_s": 4.0, "worker_timeout_s": 4.0})
        legacy = await cluster.dial("old", "/v1/worker", subprotocol=None)
        await legacy.ask({"type": "app_ready", "instance_id": "legacy", "capacity": 5}, "app_accepted")
        client, started = await cluster.client("old")
        session = (await legacy.expect("session_assigned"))["session"]
        await legacy.send({"type": "session_accept", "session": session})
        await client.expect("peer")
        await cluster.start("new")
        other, _ = await cluster.worker("new", "worker-b")
        began = trio.current_time()
        old.shutdown.signal()
        assert (await other.expect("session_assigned"))["session"] == session
        assert trio.current_time() - began < 1, "it cannot move, so nobody waits for it"
        await other.send({"type": "session_accept", "session": session})
        await client.expect("goaway")
        moved, _ = await cluster.restore("new", started["recovery_token"])
        terminate = await legacy.expect("terminate_app")
        assert terminate["reason"]
        assert 0 < terminate["deadline_ms"] <= 4000
        if answers:
            await legacy.send(
                {"type": "app_terminated", "request_id": terminate["request_id"], "status": "OK", "message": ""}
            )
            assert await legacy.closed() == 1000
        else:
            assert await legacy.closed() == 1001
        assert [frame for frame in legacy.aside if frame["type"] == "goaway"] == []
        await cluster.wait_exit("old")
        assert trio.current_time() - began < 8
        await moved.send({"type": "message", "seq": 1, "data": 1})
        assert (await other.expect("message"))["data"] == 1

    play(scene)


def test_a_lone_legacy_worker_does_not_hold_up_the_clients_of_others() -> None:
    """There is no global barrier: sessions that are pair-ready go, while others have no worker to go to."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        worker, accepted = await cluster.worker("old", labels={"kind": "new"})
        legacy = await cluster.dial("old", "/v1/worker", subprotocol=None)
        await legacy.ask(
            {"type": "app_ready", "instance_id": "old", "capacity": 5, "labels": {"kind": "old"}}, "app_accepted"
        )
        for kind, peer in (("new", worker), ("old", legacy)):
            client, _ = await cluster.client("old", want={"kind": kind})
            session = (await peer.expect("session_assigned"))["session"]
            await peer.send({"type": "session_accept", "session": session})
            await client.expect("peer")
            if kind == "new":
                quick, quick_session = client, session
        await cluster.start("new")
        began = trio.current_time()
        old.shutdown.signal()
        await worker.expect("goaway")
        await cluster.resume("new", accepted["recovery_token"], {"session": quick_session})
        await quick.expect("goaway")
        assert trio.current_time() - began < 1
        await cluster.wait_exit("old")

    play(scene)


def test_parties_whose_claims_were_under_way_are_moved_like_the_others() -> None:
    """single-owner: a claim that the store grants while the drain runs is served here, and told to go."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, started, worker, accepted, session = await cluster.pair("n1")
        old = cluster.nodes["n2"].shutdown
        await cluster.client("n2")  # a party to move, so that there is a plan
        cluster.world.outage = "down"
        late_worker = await cluster.dial("n2", "/v1/worker")
        ready = {"type": "app_ready", "instance_id": "worker-a", "capacity": 10, "reconnection": True}
        token = accepted["recovery_token"]
        await late_worker.send({**ready, "recovery_token": token, "sessions": [{"session": session}]})
        late_client = await cluster.dial("n2", "/v1/client")
        await late_client.send({"type": "restore_session", "recovery_token": started["recovery_token"]})
        await trio.sleep(0.1)
        old.signal()
        await trio.sleep(3)
        cluster.world.outage = ""
        answer = await late_worker.receive()
        assert answer["type"] == "reconnection_ack"
        assert (await late_client.receive())["type"] == "session_restored"
        await late_worker.expect("goaway")
        await cluster.resume("n3", answer["recovery_token"], {"session": session})
        await late_client.expect("goaway")
        assert await worker.closed() == 4409
        assert await client.closed() == 4409

    play(scene)


def test_a_client_waits_for_a_worker_that_is_being_let_in() -> None:
    """worker-first: its worker is leaving a successor and resumes here; the store may have granted that, unheard of here."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2"):
            await cluster.start(name)
        client, _, _, accepted, _ = await cluster.pair("n2", "n1")
        old = cluster.nodes["n2"]
        with old.hub.attachments.resuming(accepted["worker"]):
            old.shutdown.signal()
            assert await client.quiet(3) == []
        assert (await client.expect("goaway"))["reason"] == "draining"

    play(scene)
