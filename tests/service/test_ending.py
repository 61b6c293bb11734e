"""How sessions end: by a bye or by expiry, never by a close; and nothing of them is left."""

from collections.abc import Sequence

import pytest
import trio

from signald.ids import new_session_id
from signald.store.base import Op, Result, Store
from signald.store.registry.ops import KeepAlive
from signald.store.session.ops import CreateSession
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json


def nothing_is_left(cluster: Cluster, session: str) -> None:
    """no-ghost: not in the store, and not in the memory of any node."""
    assert cluster.world.rows.is_empty_of(session)
    for node in cluster.nodes.values():
        assert session not in node.hub.sessions
        assert all(session not in link.seats for link in node.hub.worker_links.values())


def types(frames: list[Json]) -> list[str]:
    """Their types."""
    return [frame["type"] for frame in frames]


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_client_says_bye(worker_at: str) -> None:
    """no-ghost: `session_ended` and 1000 for the client, `session_ended` for the worker, whose connection goes on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, _, session = await cluster.pair("n1", worker_at)
        await client.send({"type": "bye", "reason": "all done"})
        assert await client.expect("session_ended") == {"type": "session_ended", "reason": "all done"}
        assert await client.closed() == 1000
        assert (await worker.expect("session_ended"))["session"] == session
        assert await worker.ask({"type": "ping"}, "pong") == {"type": "pong"}
        await trio.sleep(5)
        nothing_is_left(cluster, session)
        peer, answer = await cluster.restore("n2", started["recovery_token"])
        assert (answer["code"], await peer.closed()) == ("nothing_to_resume", 4404)
        await trio.sleep(1)
        nothing_is_left(cluster, session)

    play(scene)


@pytest.mark.parametrize("ended_at", ["n1", "n2", "n3"])
def test_a_session_is_ended_by_order(ended_at: str) -> None:
    """no-ghost: ended at any node, both parties are told, the client is closed with 4410, and a second order finds no session."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, started, worker, _, session = await cluster.pair("n1", "n2")
        endings = cluster.nodes[ended_at].hub.parts.endings
        assert await endings.by_order(session, "operator", "operator")
        assert await client.closed() == 4410
        assert types(client.aside)[-2:] == ["peer", "session_ended"]
        assert (await worker.expect("session_ended"))["session"] == session
        await trio.sleep(1)
        nothing_is_left(cluster, session)
        assert not await endings.by_order(session, "operator", "operator")
        assert [node.hub.counts.ended["operator"] for node in cluster.nodes.values()].count(1) == 1
        _, answer = await cluster.restore("n1", started["recovery_token"])
        assert answer["code"] == "nothing_to_resume"

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_worker_says_bye_for_one_session(worker_at: str) -> None:
    """The client is told that its peer is gone and that the session ended, and is closed with 4410; other sessions go on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        other, _ = await cluster.client("n1")
        kept = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": kept})
        await worker.send({"type": "bye", "session": session, "reason": "solved"})
        assert await worker.expect("session_ended") == {
            "type": "session_ended", "session": session, "reason": "solved",
        }  # fmt: skip
        assert (await client.expect("session_ended"))["reason"]
        assert await client.closed() == 4410
        assert [frame["state"] for frame in client.aside if frame["type"] == "peer"] == ["gone"]
        await trio.sleep(5)
        nothing_is_left(cluster, session)
        await other.send({"type": "message", "seq": 1, "data": "on we go"})
        assert (await worker.expect("message"))["session"] == kept

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_bye_waits_for_what_was_accepted(worker_at: str) -> None:
    """exactly-once: a message that was sent before the bye reaches the peer before `session_ended`."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
        await client.send({"type": "bye"})
        for seq in (1, 2, 3):
            assert (await worker.expect("message"))["seq"] == seq
            await worker.send({"type": "ack", "session": session, "seq": seq})
        assert await client.closed() == 1000
        assert client.aside[-1]["type"] == "session_ended"
        assert worker.aside == []
        await worker.expect("session_ended")
        nothing_is_left(cluster, session)

    play(scene)


def test_a_bye_does_not_wait_for_ever() -> None:
    """bounded: a peer that acks nothing holds a bye up for a moment only."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, _, _, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": 1})
        began = trio.current_time()
        await client.send({"type": "bye"})
        assert await client.closed() == 1000
        assert trio.current_time() - began < 5
        nothing_is_left(cluster, session)

    play(scene)


def test_a_client_that_says_bye_and_hangs_up_has_said_bye() -> None:
    """A client that does not wait for the answer leaves no ghost either."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", "n2")
        await client.send({"type": "bye"})
        client.cut()
        assert (await worker.expect("session_ended"))["session"] == session
        await trio.sleep(10)
        nothing_is_left(cluster, session)

    play(scene)


def test_a_bye_while_the_store_is_away_is_kept_for_it() -> None:
    """no-ghost: the parties are through at once, and the store hears of it when it is back."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        cluster.world.outage = "down"
        await client.send({"type": "bye"})
        assert await client.closed() == 1000
        await worker.expect("session_ended")
        cluster.world.outage = ""
        await trio.sleep(5)
        nothing_is_left(cluster, session)

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
@pytest.mark.parametrize("client_back", [False, True])
def test_a_session_whose_client_stays_away_ends(worker_at: str, client_back: bool) -> None:
    """no-ghost: after `session.resume_ttl_s`, not before; the worker is told, and the token resumes nothing."""

    async def scene(cluster: Cluster) -> None:
        life: dict[str, object] = {"resume_ttl_s": 20.0}
        await cluster.start("n1", session=life)
        await cluster.start("n2", session=life)
        client, started, worker, _, session = await cluster.pair("n1", worker_at)
        token = started["recovery_token"]
        await worker.send({"type": "message", "session": session, "seq": 1, "data": 1})
        await client.quiet()
        client.cut()
        await trio.sleep(17)
        if client_back:
            again, restored = await cluster.restore("n2", token)
            assert restored["type"] == "session_restored"
            await again.ask({"type": "ping"}, "pong")
            token = restored["recovery_token"]
            await again.quiet(60)
            again.cut()
            await trio.sleep(17)
        assert not cluster.world.rows.is_empty_of(session)
        assert "session_ended" not in types(await worker.quiet(0.5))
        with trio.fail_after(10):
            assert (await worker.expect("session_ended"))["session"] == session
        await trio.sleep(1)
        nothing_is_left(cluster, session)
        peer, answer = await cluster.restore("n1", token)
        assert (answer["code"], await peer.closed()) == ("nothing_to_resume", 4404)

    play(scene)


def test_a_session_whose_client_is_here_never_expires() -> None:
    """However silent: the life of a session is renewed while its client is attached."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 5.0})
        await cluster.start("n2", session={"resume_ttl_s": 5.0})
        client, _, worker, _, _ = await cluster.pair("n1", "n2")
        await client.quiet(200)
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await worker.expect("message"))["data"] == "still here"

    play(scene)


def test_a_session_that_waits_for_a_worker_expires_as_well() -> None:
    """no-ghost: its place in the waiting line goes with it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 5.0})
        client, started = await cluster.client("n1", want={"lang": "xx"})
        client.cut()
        await trio.sleep(20)
        nothing_is_left(cluster, started["session"])
        assert cluster.world.rows.waiting(10) == []

    play(scene)


def test_a_sessions_end_frees_its_workers_room() -> None:
    """The next in line gets the place, wherever the session was ended."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 5.0})
        await cluster.start("n2", session={"resume_ttl_s": 5.0})
        worker, _ = await cluster.worker("n1", capacity=1)
        first, _ = await cluster.client("n2")
        session = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": session})
        _, waits = await cluster.client("n2")
        first.cut()
        with trio.fail_after(20):
            assert (await worker.expect("session_assigned"))["session"] == waits["session"]

    play(scene)


def test_no_close_ends_a_session() -> None:
    """Bad messages, floods and cut connections of either party: the session is there afterwards."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        token = started["recovery_token"]
        for wrong in ({"type": "connect"}, {"type": "ack", "seq": "x"}):
            await client.send(wrong)
            assert await client.closed() == 4400
            client, restored = await cluster.restore("n1", token)
            token = restored["recovery_token"]
            assert restored["peer"]["state"] == "paired"
        await client.socket.aclose(1000, "leaving the page")
        await worker.socket.aclose(1000, "restarting")
        await trio.sleep(1)
        worker, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session})
        assert answer["lost"] == []
        _, restored = await cluster.restore("n1", token)
        assert (restored["type"], restored["peer"]["state"]) == ("session_restored", "paired")

    play(scene)


def test_a_session_that_a_node_has_lost_sight_of_expires_whoever_sweeps_first() -> None:
    """no-ghost: only the node that the store names can say that the party is gone, and the others let it be asked."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", session={"resume_ttl_s": 5.0})
        await cluster.start("n2", session={"resume_ttl_s": 5.0})
        now = node.hub.store.now_ms()
        names = [new_session_id(node.hub.entropy) for _ in range(40)]
        for place, name in enumerate(names):
            # Granted, and the answer was lost with the connection.
            created = CreateSession(name, "n1", f"nonce {place}", "", {}, b"{}", False, b"hash", now, 5000)
            await node.hub.committer.call_many([KeepAlive((name,), now + 1000 * place), created])
        await trio.sleep(50)
        for name in names:
            nothing_is_left(cluster, name)

    play(scene)


class OneSecond:
    """A store that takes a second for everything."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        await trio.sleep(1)
        return await self._store.execute(ops)


def test_what_ends_is_not_given_back_to_the_store() -> None:
    """no-ghost: a bye is on its way when the node finds that the store knows less of the session than it does."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        committer = node.hub.committer
        committer.store = OneSecond(committer.store)  # type: ignore[assignment]
        node.hub.attachments.behind(node.hub.sessions[session])
        await trio.sleep(0.5)
        await client.send({"type": "bye"})
        await client.expect("session_ended")
        assert (await worker.expect("session_ended"))["session"] == session
        await trio.sleep(10)
        nothing_is_left(cluster, session)

    play(scene)
