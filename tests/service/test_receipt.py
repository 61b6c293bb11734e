"""The receipt of a drain tells of each session what its applications saw."""

import pytest
import trio

from tests.cluster import Cluster, play
from tests.service.deploys import receipt, traffic


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
