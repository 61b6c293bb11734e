"""A reload in a node that serves: what holds at once, what waits, and that no party notices."""

import attrs
import trio

from signald.config import Config
from signald.daemon import apply_config
from signald.node import Node
from signald.service.auth import mint
from signald.service.reloading import prepare
from signald.testing.cluster import Cluster, play
from tests.service.deploys import traffic

OLD, NEW = "the old secret, more than 32 bytes", "the new secret, more than 32 bytes"


def reload(node: Node, **sections: dict[str, object]) -> Config:
    """Apply the node's configuration with `sections` changed."""
    config = node.hub.config
    for section, values in sections.items():
        config = attrs.evolve(config, **{section: attrs.evolve(getattr(config, section), **values)})
    apply_config(node, prepare(config))
    return config


def test_another_key_keeps_who_is_here_and_refuses_the_old_token() -> None:
    """Rotation of the shared secret: connections stay, the old key opens nothing more, the new one does."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"jwt_secret": OLD})
        now = node.hub.store.now_ms() / 1000

        def token() -> str:
            return mint(node.hub.config.auth, subject="alice", role="client", ttl_s=3600, now=now)

        old = token()
        client, started = await cluster.client("n1", auth=old)
        reload(node, auth={"jwt_secret": NEW})
        peer = await cluster.dial("n1", "/v1/client")
        await peer.send({"type": "connect", "auth": old})
        assert await peer.refused() == ("unauthenticated", 4401)
        await cluster.client("n1", auth=token())
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await client.expect("ack"))["seq"] == 1
        peer, answer = await cluster.restore("n1", started["recovery_token"], received=0, auth=token())
        assert answer["type"] == "session_restored"

    play(scene)


def test_the_backlog_of_a_live_session_is_bounded_anew() -> None:
    """A narrower backlog holds for sessions that are here, and what is accepted already stays accepted."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, _ = await cluster.client("n1")
        for seq in range(1, 4):
            await client.send({"type": "message", "seq": seq, "data": "x"})
        await trio.sleep(1)
        reload(node, limits={"backlog_messages_max": 4})
        for seq in range(4, 6):
            await client.send({"type": "message", "seq": seq, "data": "x"})
        assert (await client.expect("error"))["code"] == "backlog"
        acks = [frame["seq"] for frame in await client.quiet(2) if frame["type"] == "ack"]
        assert max(acks) == 4

    play(scene)


def test_a_wider_backlog_is_there_at_once() -> None:
    """A sender that was pushed back goes on after the reload, in the same session."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits={"backlog_bytes_max": 2000})
        client, _ = await cluster.client("n1")
        for seq in range(1, 4):
            await client.send({"type": "message", "seq": seq, "data": "x" * 900})
        assert (await client.expect("error"))["code"] == "backlog"
        reload(node, limits={"backlog_bytes_max": 20_000})
        await trio.sleep(1)
        for seq in range(3, 8):
            await client.send({"type": "message", "seq": seq, "data": "x" * 900})
        acks = [frame["seq"] for frame in await client.quiet(2) if frame["type"] == "ack"]
        assert max(acks) == 7

    play(scene)


def test_a_shorter_life_is_the_whole_life_of_a_session() -> None:
    """Sessions are renewed by the new time from the reload on: one whose node dies has all of it left to resume in."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", session={"resume_ttl_s": 3000.0}, node={"lease_ttl_s": 1.0, "id": "n1"})
        await cluster.start("n2", session={"resume_ttl_s": 6.0}, node={"lease_ttl_s": 1.0, "id": "n2"})
        await trio.sleep(5)
        reload(node, session={"resume_ttl_s": 6.0})
        _, started = await cluster.client("n1")
        assert started["token_ttl_ms"] == 6000
        await trio.sleep(7.5)
        cluster.kill("n1")
        await trio.sleep(4)
        _, answer = await cluster.restore("n2", started["recovery_token"], received=0)
        assert answer["type"] == "session_restored"

    play(scene)


def test_a_drain_under_way_follows_the_new_pace() -> None:
    """paced: an operator may find a drain too slow, or too fast, and change the pace without beginning again."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", pace={"sessions_per_s": 2.0})
        async with traffic(cluster, workers=10, clients=40) as load:
            await cluster.start("n2", pace={"sessions_per_s": 2.0})
            load.clients_at = load.workers_at = "n2"
            assert old.shutdown.begin("rollout")
            await trio.sleep(3)
            assert old.hub.links
            budget = old.shutdown.status.deadline
            reload(old, pace={"sessions_per_s": 500.0}, drain={"timeout_s": 30.0})
            with trio.fail_after(10):
                while old.hub.links:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                    await trio.sleep(0.05)
            assert old.shutdown.status.deadline == budget, "the budgets are those it began with"
            await load.settle()
            load.check()

    play(scene)


def test_the_next_drain_has_the_new_budgets() -> None:
    """bounded: what a reload says of the drain holds for every drain that begins after it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.client("n1")
        reload(node, drain={"successor_timeout_s": 2.0, "unready_s": 4.0})
        began = trio.current_time()
        node.shutdown.signal()
        await cluster.wait_exit("n1")
        assert 4 < trio.current_time() - began < 9

    play(scene)


def test_admission_judges_by_the_new_bounds() -> None:
    """New connections are measured by the new limits; those that are open stay open."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, _ = await cluster.client("n1")
        config = reload(
            node, admission={"connections_max": 1, "setups_in_progress_max": 7}, listen={"allowed_origins": ("*",)}
        )
        refusal = node.admission.begin_connection("192.0.2.1", trio.current_time())
        node.admission.connections += refusal is None
        assert node.admission.settings.connections_max == config.admission.connections_max
        assert [node.hub.gate.enter(resume=True) > 0 for _ in range(8)] == [False] * 7 + [True]
        await client.send({"type": "ping"})
        await client.expect("pong")

    play(scene)
