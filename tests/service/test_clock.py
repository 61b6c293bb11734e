"""The clock of the store's machine is set: nothing that lives ends by it, and nothing that is dead stays for ever."""

import trio

from signald.store.memory import MemoryWorld
from signald.testing.cluster import Cluster, play


def set_clock(world: MemoryWorld, by_s: float) -> None:
    """Set the clock of the store."""
    assert world._started_ms is not None
    world._started_ms += round(by_s * 1000)


class TestSetForward:
    """An hour passes in no time."""

    def test_sessions_with_a_client_live(self) -> None:
        """No node ends a session whose client is attached at another one."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            await trio.sleep(2)
            await cluster.start("b")
            one, _, worker, _, session = await cluster.pair("b", worker_at="a")
            set_clock(cluster.world, 3600)
            await trio.sleep(40)
            assert cluster.world.rows.session(session) is not None
            assert {"state": "gone"} not in [{"state": frame.get("state")} for frame in await one.quiet()]
            await one.send({"type": "message", "seq": 1, "data": "still here"})
            assert (await worker.expect("message"))["data"] == "still here"

        play(scene)

    def test_a_worker_that_is_away_keeps_its_time(self) -> None:
        """The time a worker may be away begins again: no other worker gets its sessions at once."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            _, _, worker, accepted, session = await cluster.pair("a")
            worker.cut()
            await trio.sleep(5)
            set_clock(cluster.world, 3600)
            await trio.sleep(3)
            _, answer = await cluster.resume("a", accepted["recovery_token"], {"session": session, "received": 0})
            assert answer["type"] == "reconnection_ack"
            assert [one["session"] for one in answer["sessions"]] == [session]

        play(scene)


class TestSetBack:
    """An hour is there twice."""

    def test_parties_resume(self) -> None:
        """A claim is not late because the one before it was made at a time that has yet to come."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            client, started, worker, accepted, session = await cluster.pair("a")
            set_clock(cluster.world, -3600)
            client.cut()
            worker.cut()
            _, answer = await cluster.restore("a", started["recovery_token"], received=0)
            assert answer["type"] == "session_restored"
            _, answer = await cluster.resume("a", accepted["recovery_token"], {"session": session, "received": 0})
            assert [one["session"] for one in answer["sessions"]] == [session]

        play(scene)

    def test_a_worker_that_stays_away_is_given_up(self) -> None:
        """A worker that was lost at a time that has yet to come is not waited for until then."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            _, _, worker, _, session = await cluster.pair("a")
            worker.cut()
            await trio.sleep(1)
            set_clock(cluster.world, -3600)
            other, _ = await cluster.worker("a", "worker-b")
            assert (await other.accept(within_s=90))["session"] == session

        play(scene)

    def test_a_node_that_dies_is_missed(self) -> None:
        """A lease from before the clock was set back does not keep a dead node alive for an hour."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            await cluster.start("b")
            _, _, _, _, session = await cluster.pair("a", worker_at="b")
            set_clock(cluster.world, -3600)
            cluster.kill("b")
            other, _ = await cluster.worker("a", "worker-b")
            assert (await other.accept(within_s=120))["session"] == session

        play(scene)
