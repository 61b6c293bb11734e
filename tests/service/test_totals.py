"""fair: no address and no principal uses up what is there for all parties of a node or of the cluster."""

import json

import trio

from signald.config import AuthConfig
from signald.service.auth import Role, mint
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer

SECRET = "correct horse battery staple, " * 3


async def hoard(cluster: Cluster, number: int, size: int, remote: str) -> list[Peer]:
    """Open connections whose opening message never ends; each makes the node hold `size` bytes."""
    peers = []
    for _ in range(number):
        peer = await cluster.dial("a", "/v1/worker", remote=remote)
        # The header of a longer frame, and most of its payload.
        await peer._stream.send_all(b"\x81\xff" + (size + 100).to_bytes(8, "big") + bytes(4 + size))
        peers.append(peer)
    return peers


def test_silent_connections_give_way_to_a_newcomer() -> None:
    """When every place before the opening message is taken by silent peers, the oldest is told to come again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", admission={"handshakes_in_progress_max": 3})
        silent = [await cluster.dial("a", "/v1/client", remote="192.0.2.1") for _ in range(3)]
        await trio.sleep(1.5)
        _, started = await cluster.client("a")
        assert started["type"] == "session_started"
        assert await silent[0].closed() == 1013
        assert silent[0].close_reason
        assert cluster.nodes["a"].hub.gate.strangers.evicted == 1

    play(scene)


def test_what_strangers_make_a_node_hold_has_one_budget() -> None:
    """Unfinished opening messages of one address stay below the budget; a worker of another address keeps its place."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", admission={"strangers_bytes_max": 1_048_576})
        (honest,) = await hoard(cluster, 1, 150_000, "192.0.2.2")
        hoarders = await hoard(cluster, 20, 150_000, "192.0.2.1")
        await trio.sleep(0.1)
        assert 0 < node.hub.gate.budget.bytes <= 1_048_576
        assert node.hub.gate.budget.evicted >= 14
        assert await hoarders[0].closed() == 1013
        assert not honest.socket.closed
        await trio.sleep(6.0)
        assert node.hub.gate.budget.bytes == 0
        _, started = await cluster.client("a", meta=json.dumps("m" * 1000))
        assert started["type"] == "session_started"
        assert node.hub.gate.strangers.taken == 0

    play(scene)


FILL: dict[str, dict[str, object]] = {
    "limits": {"address_bytes_max": 1_048_576, "sessions_max": 8, "messages_burst": 1000}
}


async def begin(cluster: Cluster, remote: str, **fields: object) -> tuple[Peer, dict[str, object]]:
    """Let a client from `remote` say its opening message; return it with the answer."""
    client = await cluster.dial("a", "/v1/client", remote=remote)
    await client.send({"type": "connect", **fields})
    return client, await client.receive()


def test_an_address_has_its_share_of_the_sessions_in_the_store() -> None:
    """At its share an address begins no further session; another address does, and a resume always passes."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **FILL)
        began = [await begin(cluster, "192.0.2.1") for _ in range(4)]
        assert [answer["type"] for _, answer in began] == ["session_started"] * 4
        for client, _ in began:
            client.cut()
        await trio.sleep(1.0)
        refused, answer = await begin(cluster, "192.0.2.1")
        assert (answer["code"], answer["fatal"]) == ("busy", True)
        assert answer["retry_after_ms"]
        assert await refused.closed() == 1013
        assert (await begin(cluster, "192.0.2.2"))[1]["type"] == "session_started"
        back = await cluster.dial("a", "/v1/client", remote="192.0.2.1")
        restore = {"type": "restore_session", "recovery_token": began[0][1]["recovery_token"]}
        restored = await back.ask({**restore, "received": 0, "acked": 0}, "session_restored")
        assert restored["session"] == began[0][1]["session"]
        await back.send({"type": "bye"})
        await back.closed()
        assert (await begin(cluster, "192.0.2.1"))[1]["type"] == "session_started"
        assert cluster.nodes["a"].hub.counts.sessions_refused == {"store": 0, "share": 1, "bytes": 0}

    play(scene)


def test_the_sessions_in_the_store_are_bounded() -> None:
    """When as many sessions live as the store may have, no address begins another."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **FILL)
        for number in range(8):
            _, answer = await begin(cluster, f"192.0.2.{number}")
            assert answer["type"] == "session_started"
        assert (await begin(cluster, "192.0.2.9"))[1]["code"] == "busy"

    play(scene)


def test_sessions_of_an_address_that_are_gone_are_counted_no_more() -> None:
    """Sessions that expire, of nodes that were killed as well, give their places back."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **FILL)
        await cluster.start("b", **FILL)
        for _ in range(4):
            client, answer = await begin(cluster, "192.0.2.1")
            assert answer["type"] == "session_started"
            client.cut()
        assert (await begin(cluster, "192.0.2.1"))[1]["code"] == "busy"
        await trio.sleep(500.0)
        assert (await begin(cluster, "192.0.2.1"))[1]["type"] == "session_started"
        assert len(cluster.nodes["a"].hub.holdings._address_of) == 1

    play(scene)


def test_what_an_address_leaves_for_absent_peers_has_one_budget() -> None:
    """Beyond the budget the sender of much is pushed back and a large meta is refused; a session whose worker acks goes on."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **FILL)
        worker, _ = await cluster.worker("a", labels={"lang": "en"})
        talking, _ = await begin(cluster, "192.0.2.1", want={"lang": "en"})
        assigned = await worker.accept()
        hoarder, _ = await begin(cluster, "192.0.2.1", want={"lang": "none"})
        for seq in range(1, 101):
            await hoarder.send({"type": "message", "seq": seq, "data": "x" * 20_000})
        pushed = await hoarder.expect("error")
        assert (pushed["code"], pushed["fatal"]) == ("backlog", False)
        assert node.hub.holdings.bytes <= 1_048_576
        assert (await begin(cluster, "192.0.2.1", meta="m" * 30_000))[1]["code"] == "busy"
        assert (await begin(cluster, "192.0.2.1", meta="m"))[1]["type"] == "session_started"
        assert (await begin(cluster, "192.0.2.2", meta="m" * 30_000))[1]["type"] == "session_started"
        for seq in range(1, 100):
            await talking.send({"type": "message", "seq": seq, "data": "y" * 1000})
            await worker.expect("message")
            await worker.send({"type": "ack", "session": assigned["session"], "seq": seq})
            await talking.expect("ack")

    play(scene)


def test_unfinished_messages_of_parties_have_one_budget() -> None:
    """Clients that have a session and begin messages they do not end are closed to come again; one of another address is not."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", admission={"strangers_bytes_max": 1_048_576})
        honest, _ = await begin(cluster, "192.0.2.2")
        half = b"\x81\xfe" + (60_100).to_bytes(2, "big") + bytes(4 + 60_000)
        await honest._stream.send_all(half)
        hoarders = [(await begin(cluster, "192.0.2.1"))[0] for _ in range(40)]
        for hoarder in hoarders:
            await hoarder._stream.send_all(half)
        await trio.sleep(0.1)
        assert 0 < node.hub.gate.party_budget.bytes <= 1_048_576
        assert node.hub.gate.party_budget.evicted > 20
        assert await hoarders[0].closed() == 1013
        assert not honest.socket.closed

    play(scene)


def test_the_logs_of_all_sessions_have_one_budget() -> None:
    """While the store is away, senders with much waiting are pushed back beyond the budget; those with little are not."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", limits={"logs_bytes_max": 8_388_608, "messages_burst": 1000})
        talking = [(await cluster.pair("a"))[0] for _ in range(12)]
        cluster.world.outage = "down"
        await trio.sleep(1.0)
        for client in talking[:-1]:
            for seq in range(1, 21):
                await client.send({"type": "message", "seq": seq, "data": "x" * 50_000})
        await trio.sleep(1.0)
        assert node.hub.attachments.logs_bytes() <= 8_388_608
        heard = [[frame["type"] for frame in await client.quiet(0.1)] for client in talking[:-1]]
        assert any("error" in types for types in heard)
        await talking[-1].send({"type": "message", "seq": 1, "data": "small"})
        await trio.sleep(0.5)
        cluster.world.outage = ""
        assert (await talking[-1].expect("ack"))["seq"] == 1
        assert "error" not in [frame["type"] for frame in talking[-1].aside]

    play(scene)


def test_all_trails_have_one_budget() -> None:
    """Sessions that come and go leave trails up to the budget; the oldest give way, and the newest can be read."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", limits={"trails_bytes_max": 1_048_576})
        for number in range(6000):
            node.hub.trail.note(f"s_{number:04}", "client", "started", "x" * 9999)
            if number % 1000 == 999:
                await trio.sleep(1.0)
        kept = [number for number in range(6000) if cluster.world.rows.steps(f"s_{number:04}")]
        size = sum(len(step) for number in kept for step in cluster.world.rows.steps(f"s_{number:04}"))
        assert 500_000 < size <= 1_048_576
        assert kept == list(range(6000 - len(kept), 6000))
        assert node.hub.trail.given_way == 6000 - len(kept)

    play(scene)


def credential(subject: str, role: Role) -> str:
    """Return a credential of `subject` for the time of the tests."""
    return mint(AuthConfig(jwt_secret=SECRET), subject=subject, role=role, ttl_s=3600, now=1_700_000_000)


def test_a_principal_has_its_share_of_the_connections() -> None:
    """From many addresses a principal holds half of them; another resumes, its own resume in place passes, and so do workers."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", admission={"connections_max": 20}, auth={"jwt_secret": SECRET})
        ann, eve = credential("ann", "client"), credential("eve", "client")
        hers, answer = await begin(cluster, "192.0.2.200", auth=ann)
        hers.cut()
        began = [await begin(cluster, f"192.0.2.{number}", auth=eve) for number in range(11)]
        assert [answer.get("code") for _, answer in began] == [None] * 10 + ["busy"]
        assert await began[10][0].closed() == 1013
        for name, remote, subject in ((answer, "192.0.2.200", ann), (began[0][1], "192.0.2.0", eve)):
            client = await cluster.dial("a", "/v1/client", remote=remote)
            token = {"type": "restore_session", "recovery_token": name["recovery_token"]}
            await client.ask({**token, "received": 0, "acked": 0, "auth": subject}, "session_restored")
        fleet = credential("fleet", "worker")
        for number in range(5):
            await cluster.worker("a", f"worker-{number}", auth=fleet)
        for client, _ in began:
            client.cut()
        await trio.sleep(1.0)
        assert (await begin(cluster, "192.0.2.1", auth=eve))[1]["type"] == "session_started"

    play(scene)
