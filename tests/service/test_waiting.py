"""The waiting line: no crowd stops what a free worker suits, tenants are apart, and a client that is gone takes no place."""

from contextlib import suppress
from typing import Any

import jwt
import trio
from trio_websocket import ConnectionClosed

from signald.core.wants import TENANT
from signald.store.registry.ops import Enqueue, KeepAlive, ListSuited, ListWaiting, RegisterWorker
from signald.store.sagas import end_session
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.test_opening import AUTH, SECRET

NOW = 1_700_000_000
"""When the clock of a cluster starts."""


def token(role: str, subject: str = "ann", **claims: Any) -> str:
    """Return a bearer token that is good for an hour."""
    return jwt.encode({"sub": subject, "role": role, "exp": NOW + 3600, **claims}, SECRET, algorithm="HS256")


async def waiting(cluster: Cluster) -> list[str]:
    """Read the waiting line of the store."""
    (found,) = cluster.world.execute([ListWaiting(100_000)])
    return [one.session for one in found.sessions]  # type: ignore[attr-defined]


async def crowd(cluster: Cluster, wants: list[dict[str, str]]) -> None:
    """Let sessions wait that are older than any other, as if they had been left in the store by other nodes."""
    now = cluster.world.now_ms()
    cluster.world.execute([KeepAlive(tuple(f"s_crowd{i}" for i in range(len(wants))), now + 3_600_000)])
    cluster.world.execute([Enqueue(f"s_crowd{i}", want, 1 + i, now + 3_600_000) for i, want in enumerate(wants)])


async def paired_within(client: Peer, seconds: float) -> None:
    """Expect the client to be paired."""
    with trio.fail_after(seconds):
        while (await client.expect("peer"))["state"] != "paired":
            pass


def test_a_queue_for_one_want_is_no_queue_for_another() -> None:
    """A client that a free worker suits is paired at once beside thousands that wait for a worker that is full."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        full, _ = await cluster.worker("n1", "full", capacity=1, labels={"lang": "fr"})
        await cluster.client("n1", want={"lang": "fr"})
        await full.accept()
        await crowd(cluster, [{"lang": "fr"}] * 3000)
        free, _ = await cluster.worker("n1", "free", labels={"lang": "en"})
        client, _ = await cluster.client("n1", want={"lang": "en"})
        await free.accept(within_s=0.1)
        await paired_within(client, 0.1)

    play(scene)


def test_wants_that_are_all_different_are_not_in_the_way() -> None:
    """A client that a free worker suits is paired at once beside thousands of wants that include its labels and one more each."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await crowd(cluster, [{"lang": "en", "x": str(i)} for i in range(3000)])
        worker, _ = await cluster.worker("n1", labels={"lang": "en", "zone": "a"}, capacity=100)
        for want in ({"lang": "en"}, {"lang": "en", "zone": "a"}, {}):
            client, _ = await cluster.client("n1", want=want)
            await worker.accept(within_s=0.1)
            await paired_within(client, 0.1)

    play(scene)


def test_a_pass_reads_what_workers_with_room_suit() -> None:
    """A pass asks for the offers of the workers with room, once each, and for nothing when none has room."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        asked: list[ListSuited] = []
        execute = node.committer.store.execute

        async def noting(ops: Any) -> Any:
            asked.extend(op for op in ops if isinstance(op, ListSuited))
            return await execute(ops)

        node.committer.store.execute = noting  # type: ignore[method-assign]
        await cluster.client("n1", want={"lang": "de"})
        await trio.sleep(3)
        assert asked == []
        for name, labels in (("a", {"lang": "en"}), ("b", {"lang": "en"}), ("c", {"lang": "fr"})):
            await cluster.worker("n1", name, labels=labels)
        asked.clear()
        await trio.sleep(1.5)
        assert {len(op.offers) for op in asked} == {2}

    play(scene)


def test_a_session_leaves_the_line_with_its_client() -> None:
    """A client that leaves while it waits waits no more; when it is back it stands where it stood, and is served in its turn."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        first, started = await cluster.client("n1")
        await trio.sleep(0.01)
        _, second = await cluster.client("n1")
        assert await waiting(cluster) == [started["session"], second["session"]]
        first.cut()
        await trio.sleep(1)
        assert await waiting(cluster) == [second["session"]]
        _, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["type"] == "session_restored"
        await trio.sleep(0.1)
        assert await waiting(cluster) == [started["session"], second["session"]]
        worker, _ = await cluster.worker("n1", capacity=1)
        assert (await worker.accept())["session"] == started["session"]

    play(scene)


def test_sessions_that_were_left_take_no_place_of_a_client_that_is_here() -> None:
    """Sessions that were opened and left before there was a worker are not given to it: the client that is here is."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        for _ in range(20):
            (await cluster.client("n1"))[0].cut()
        await trio.sleep(1)
        client, started = await cluster.client("n1")
        worker, _ = await cluster.worker("n1", capacity=1)
        assert (await worker.accept(within_s=0.1))["session"] == started["session"]
        await paired_within(client, 0.1)

    play(scene)


def test_with_both_parties_gone_a_session_takes_no_place() -> None:
    """When its worker has been given up while its client is away, a session waits for its client, and no worker is asked for it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        client, started, worker, _, session = await cluster.pair("n1")
        client.cut()
        worker.cut()
        await trio.sleep(10)
        assert await waiting(cluster) == []
        other, _ = await cluster.worker("n1", "other", capacity=1)
        assert await other.quiet(3) == []
        present, now = await cluster.client("n1")
        assert (await other.accept(within_s=0.1))["session"] == now["session"]
        await paired_within(present, 0.1)
        back, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["peer"] == {"state": "waiting", "id": None}
        third, accepted = await cluster.worker("n1", "third")
        assert (await third.accept())["session"] == session
        assert (await back.expect("peer"))["id"] == accepted["worker"]

    play(scene)


def test_with_both_parties_gone_by_a_kill_a_session_takes_no_place() -> None:
    """As above when their node was killed, so that neither was detached: the node is dead, and its clients are not there."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        await cluster.start("n2", worker={"resume_timeout_s": 5.0})
        await cluster.pair("n1")
        cluster.kill("n1")
        await trio.sleep(40)
        other, _ = await cluster.worker("n2", "other", capacity=1)
        assert await other.quiet(3) == []
        client, now = await cluster.client("n2")
        assert (await other.accept(within_s=0.1))["session"] == now["session"]
        await paired_within(client, 0.1)

    play(scene)


def test_a_worker_that_is_back_in_time_has_its_sessions_again() -> None:
    """Both parties away for a moment, as in a deploy, is nothing: the worker that resumes has the session, and so has the client."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        worker.cut()
        await trio.sleep(3)
        _, waits = await cluster.client("n1")
        again, answer = await cluster.resume(
            "n1", accepted["recovery_token"], {"session": session, "received": 0}, capacity=1
        )
        assert [one["session"] for one in answer["sessions"]] == [session]
        _, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["peer"] == {"state": "paired", "id": accepted["worker"]}
        assert not any(frame.get("session") == waits["session"] for frame in await again.quiet(2))

    play(scene)


def test_a_worker_without_memory_is_not_asked_for_a_client_that_is_away() -> None:
    """A worker that resumes and knows no session is not asked for one whose client is away, and has room for one that is here."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        worker.cut()
        await trio.sleep(3)
        again, answer = await cluster.resume("n1", accepted["recovery_token"], capacity=1)
        assert answer["sessions"] == []
        assert await again.quiet(2) == []
        present, now = await cluster.client("n1")
        assert (await again.accept(within_s=0.1))["session"] == now["session"]
        await paired_within(present, 0.1)
        await present.send({"type": "bye"})
        _, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["type"] == "session_restored"
        while (await again.receive()).get("session") != session:
            pass

    play(scene)


def test_tenants_meet_their_own_workers() -> None:
    """A client gets a worker of its tenant alone, one without a tenant a worker without one; each worker is told the subject."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        tenants: tuple[dict[str, Any], ...] = ({"tenant": "acme"}, {"tenant": "evil"}, {"tenant": ""}, {})
        for i, mine in enumerate(tenants):
            client, started = await cluster.client("n1", auth=token("client", f"c{i}", **mine))
            others = [
                (await cluster.worker("n1", f"{i}-{j}", auth=token("worker", "wes", **theirs)))[0]
                for j, theirs in enumerate(tenants)
                if theirs != mine
            ]
            assert await client.states() == []
            own, accepted = await cluster.worker("n1", f"{i}-own", auth=token("worker", "wes", **mine))
            assigned = await own.accept(within_s=0.1)
            assert assigned["session"] == started["session"]
            assert assigned["client"] == {"subject": f"c{i}"}
            assert await client.expect("peer") == {"type": "peer", "state": "paired", "id": accepted["worker"]}
            for peer in (*others, own, client):
                peer.cut()
            await trio.sleep(20)

    play(scene)


def test_a_party_cannot_say_its_tenant() -> None:
    """The label that holds the tenant is none that a party may send."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        for path, opening in (
            ("/v1/client", {"type": "connect", "want": {TENANT: "acme"}}),
            ("/v1/worker", {"type": "app_ready", "instance_id": "w", "labels": {TENANT: "acme"}}),
        ):
            peer = await cluster.dial("n1", path)
            await peer.send(opening)
            assert (await peer.refused())[0] == "bad_message"

    play(scene)


def test_a_pair_that_an_earlier_release_made_across_tenants_is_undone() -> None:
    """A node of release 0.1.0 pairs without regard to tenants: the worker here is not asked, and the session waits for its own."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        worker, accepted = await cluster.worker("n1", auth=token("worker", tenant="evil"))
        node = cluster.nodes["n1"]
        _, started = await cluster.client("n1", auth=token("client", tenant="acme"))
        rows = cluster.world.rows
        place = rows.place(started["session"])
        assert place is not None
        rows.save_place(type(place)(place.session, {}, place.order_ms, accepted["worker"]))
        node.hub.worker_links[accepted["worker"]].check()
        assert await worker.quiet(2) == []
        own, _ = await cluster.worker("n1", "own", auth=token("worker", tenant="acme"))
        assert (await own.accept())["session"] == started["session"]

    play(scene)


def test_an_earlier_release_knows_what_is_stored() -> None:
    """The tenant is stored as a label of the want that no worker of an earlier release has, and the worker's as its principal."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", want={"lang": "en"}, auth=token("client", tenant="acme"))
        place = cluster.world.rows.place(started["session"])
        record = cluster.world.rows.session(started["session"])
        assert place is not None
        assert record is not None
        assert place.want == {"lang": "en", TENANT: "acme"}
        assert record.want == {"lang": "en"}
        assert len(TENANT) > 64
        assert RegisterWorker.__struct_fields__[:4] == ("worker", "node", "nonce", "principal")

    play(scene)


async def alone(cluster: Cluster, name: str = "n1") -> tuple[Peer, dict[str, Any]]:
    """Start a session that wants no worker."""
    return await cluster.client(name, pair=False)


def test_a_session_that_wants_no_worker_stands_in_no_line() -> None:
    """It is told `none`, takes no worker that is free, and stays so when it resumes, at another node as well."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        worker, _ = await cluster.worker("n1")
        client, started = await alone(cluster)
        assert started["peer"] == {"state": "none", "id": None}
        assert await waiting(cluster) == []
        client.cut()
        await trio.sleep(1)
        client, restored = await cluster.restore("n2", started["recovery_token"])
        assert restored["peer"] == {"state": "none", "id": None}
        await trio.sleep(40)
        assert (await waiting(cluster), await client.quiet(), await worker.quiet()) == ([], [], [])

    play(scene)


def test_a_message_without_a_worker_is_refused_and_not_stored() -> None:
    """A message and realtime data of a session that wants no worker get `no_peer`; `expected` stays, and nothing is kept."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await alone(cluster)
        for said in ({"type": "message", "seq": 1, "data": 1}, {"type": "realtime", "data": 1}):
            error = await client.ask(said, "error")
            assert (error["code"], error["fatal"], error["expected"]) == ("no_peer", False, 1)
        client.cut()
        _, restored = await cluster.restore("n1", started["recovery_token"], history=10)
        assert (restored["accepted"], restored["chat_history"]) == (0, [])

    play(scene)


def test_a_flood_without_a_worker_ends_the_connection() -> None:
    """Messages without a receiver are answered within the rate of frames that are no messages; beyond it the connection ends."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _ = await alone(cluster)
        with suppress(ConnectionClosed):
            for seq in range(1, 1201):
                await client.send({"type": "message", "seq": seq, "data": "x"})
        assert await client.closed() == 4429

    play(scene)


def test_the_end_of_a_session_without_a_worker_tells_of_none() -> None:
    """When it is ended elsewhere, its client is told of the end, and of no worker that is gone."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await alone(cluster)
        cluster.world.execute(end_session(started["session"], ""))
        assert await client.closed() == 4410
        assert [frame["type"] for frame in client.aside] == ["session_ended"]

    play(scene)


def test_a_worker_that_a_release_before_has_given_it_is_taken_away() -> None:
    """A node that does not know of `pair` puts the session in line: the worker that gets it is not asked, and has room again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await alone(cluster)
        worker, _ = await cluster.worker("n1", capacity=1)
        now = cluster.world.now_ms()
        cluster.world.execute([Enqueue(started["session"], {}, 1, now + 60_000)])
        await trio.sleep(40)
        assert (await waiting(cluster), await client.quiet(), await worker.quiet()) == ([], [], [])
        await cluster.client("n1")
        await worker.accept()

    play(scene)


def test_a_session_without_a_worker_moves_in_a_drain() -> None:
    """Its client is told to go at once, because no worker is to move first, and its session is the same at the other node."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        await cluster.start("n2")
        client, started = await alone(cluster)
        await trio.sleep(5)
        old.shutdown.begin("signal")
        with trio.fail_after(5):
            ticket = (await client.expect("goaway"))["ticket"]
        _, restored = await cluster.restore("n2", started["recovery_token"], ticket=ticket)
        assert (restored["session"], restored["peer"]["state"]) == (started["session"], "none")
        assert await client.closed() == 4001

    play(scene)
