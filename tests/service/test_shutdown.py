"""Handovers, phase by phase."""

from tests.cluster import Cluster, play


def test_a_worker_moves_first_and_its_client_follows() -> None:
    """GOAWAY goes to the worker; only when it has claimed the session on the successor does its client get one."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        client, started, worker, accepted, session = await cluster.pair("old")
        await client.send({"type": "message", "seq": 1, "data": "one"})
        assert (await worker.expect("message"))["seq"] == 1
        await cluster.start("new")
        old.shutdown.signal()
        assert (await worker.expect("goaway"))["deadline_ms"] > 0
        again = await cluster.dial("new", "/v1/worker")
        ack = await again.ask(
            {
                "type": "app_ready",
                "instance_id": "worker-a",
                "capacity": 10,
                "reconnection": True,
                "recovery_token": accepted["recovery_token"],
                "sessions": [{"session": session, "received": 1}],
            },
            "reconnection_ack",
        )
        assert ack["sessions"] == [{"session": session, "accepted": 0, "replaying": 0}]
        assert ack["session_restored"] is True
        assert await worker.closed() == 4001
        assert (await client.expect("goaway"))["deadline_ms"] > 0
        # Make before break: the old connection still serves.
        await client.send({"type": "message", "seq": 2, "data": "two"})
        assert (await again.expect("message"))["data"] == "two"
        moved = await cluster.dial("new", "/v1/client")
        restored = await moved.ask(
            {"type": "restore_session", "recovery_token": started["recovery_token"], "received": 0}, "session_restored"
        )
        assert (restored["accepted"], restored["replaying"]) == (2, 0)
        assert restored["peer"]["state"] == "paired"
        assert await client.closed() == 4001
        await moved.send({"type": "message", "seq": 3, "data": "three"})
        assert (await again.expect("message"))["data"] == "three"
        await cluster.wait_exit("old")

    play(scene)
