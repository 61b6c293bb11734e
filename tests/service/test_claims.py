"""A party that claims positions which were never given out, and a stranger with a token: it costs that party alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import jwt
import pytest
import structlog
import trio

from signald.service.meters import METRICS
from signald.store.base import WAKE_ALL, Op
from signald.store.memory import MemoryRows
from signald.store.registry.ops import ClaimWorker
from signald.store.session.ops import ClaimWorkerSide
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from signald.wire.close_codes import CloseCode
from signald.wire.fields import SEQ_MAX
from tests.service.test_store_loss import faulty

LIES = (101 + 3, 10**6, 2**53 - 2, SEQ_MAX)
LIMITS: dict[str, object] = {"claim_ahead_max": 100}


@pytest.fixture(name="logged")
def _logged() -> Iterator[list[Any]]:
    """Everything that is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def alarms(lines: list[Any]) -> list[Any]:
    """The lines that an operator is alerted to."""
    return [line for line in lines if line["log_level"] in ("warning", "error", "critical")]


async def said(peer: Peer, *seqs: int, session: str = "") -> None:
    """Say messages, and wait until they are stored."""
    name = {"session": session} if session else {}
    for seq in seqs:
        await peer.send({"type": "message", "seq": seq, "data": seq, **name})
    while (await peer.expect("ack"))["seq"] < seqs[-1]:
        pass


async def talks_on(worker: Peer, client: Peer, session: str, seq: int) -> None:
    """A session goes on in both directions."""
    await said(client, seq)
    while (await worker.expect("message"))["session"] != session:
        pass
    await said(worker, seq, session=session)
    assert (await client.expect("message"))["seq"] == seq


async def two_sessions(cluster: Cluster) -> tuple[Peer, str, Peer, Json, Peer, Json]:
    """A victim's session and a liar's, at one worker: victim, its session, worker, its answer, liar, its answer."""
    victim, _, worker, accepted, session = await cluster.pair("n1")
    liar, started = await cluster.client("n1")
    await worker.accept()
    await talks_on(worker, victim, session, 1)
    await said(liar, 1, 2, 3)
    await worker.quiet()
    await victim.quiet()
    return victim, session, worker, accepted, liar, started


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("word", ["received", "acked"])
def test_a_client_that_claims_too_much_is_refused(word: str, lie: int, logged: list[Any]) -> None:
    """nobody-hurts: the liar hears it, its session and token are kept, and neither operator nor worker notices."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits=LIMITS)
        victim, session, worker, _, liar, started = await two_sessions(cluster)
        liar.cut()
        await trio.sleep(0.2)
        again, answer = await cluster.restore("n1", started["recovery_token"], **{word: lie})
        assert (answer["code"], answer["fatal"]) == ("too_far_ahead", True)
        assert await again.closed() == CloseCode.FORBIDDEN
        honest, restored = await cluster.restore("n1", started["recovery_token"], acked=3)
        assert (restored["type"], restored["accepted"]) == ("session_restored", 3)
        await said(honest, 4)
        await talks_on(worker, victim, session, 2)
        assert {frame["type"] for frame in await worker.quiet()} <= {"message", "ack"}
        assert {frame["type"] for frame in await victim.quiet()} <= {"ack"}
        assert alarms(logged) == []
        assert node.hub.losses.refused == 1
        assert node.hub.counts.resumes["too_far_ahead"] == 1

    play(scene)


@pytest.mark.parametrize("ahead", [5, 100])
def test_a_client_within_the_bound_is_believed_for_its_session(ahead: int, logged: list[Any]) -> None:
    """nobody-hurts: its own numbers go on behind the claim; that is told to the parties of the session, and rings no alarm."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits=LIMITS)
        victim, session, worker, _, liar, started = await two_sessions(cluster)
        mine = started["session"]
        liar.cut()
        await trio.sleep(0.2)
        again, restored = await cluster.restore("n1", started["recovery_token"], received=ahead, acked=3 + ahead)
        assert (restored["accepted"], restored["replaying"]) == (3 + ahead, 0)
        lost = [await again.expect("error") for _ in range(2)]
        assert [(one["direction"], one["lost_from"], one["lost_to"]) for one in lost] == [
            ("sent", 4, 3 + ahead),
            ("received", 1, ahead),
        ]
        assert (await worker.expect("session_ended"))["session"] == mine
        assigned = await worker.accept()
        assert (assigned["session"], assigned["next_seq"]) == (mine, ahead + 1)
        await said(again, 4 + ahead)
        await said(worker, ahead + 1, session=mine)
        assert (await again.expect("message"))["seq"] == ahead + 1
        await talks_on(worker, victim, session, 2)
        assert "peer" not in [frame["type"] for frame in await victim.quiet()]
        assert alarms(logged) == []
        assert {"claim_ahead"} == {line["event"] for line in logged if "lost_from" in line}
        assert (node.hub.losses.believed, node.hub.losses.shown) == (1, 0)

    play(scene)


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_claims_too_much_in_one_session_loses_that_one(lie: int, logged: list[Any]) -> None:
    """nobody-hurts: a claim that is too far ahead in one listed session costs that session, not the worker or the others."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits=LIMITS)
        victim, session, worker, accepted, _, started = await two_sessions(cluster)
        mine = started["session"]
        worker.cut()
        await trio.sleep(0.2)
        positions: list[Json] = [
            {"session": session, "received": 1, "acked": 1},
            {"session": mine, "received": lie, "acked": lie},
        ]
        worker, answer = await cluster.resume("n1", accepted["recovery_token"], *positions)
        assert answer["type"] == "reconnection_ack"
        assert ([one["session"] for one in answer["sessions"]], answer["lost"]) == ([session], [mine])
        await talks_on(worker, victim, session, 2)
        assigned = await worker.accept(within_s=10)
        assert (assigned["session"], assigned["next_seq"]) == (mine, 1)
        assert [(await worker.expect("message"))["seq"] for _ in range(3)] == [1, 2, 3]
        assert alarms(logged) == []

    play(scene)


def test_a_worker_cannot_swallow_what_its_client_says(logged: list[Any]) -> None:
    """nobody-hurts: a worker claims messages that are yet to be said. They are delivered all the same, and to the next one too."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits=LIMITS)
        client, _, worker, accepted, session = await cluster.pair("n1")
        await said(client, 1)
        assert (await worker.expect("message"))["seq"] == 1
        worker.cut()
        await trio.sleep(0.2)
        position: Json = {"session": session, "received": 101, "acked": 0}
        worker, answer = await cluster.resume("n1", accepted["recovery_token"], position)
        assert [(one["session"], one["replaying"]) for one in answer["sessions"]] == [(session, 0)]
        await said(client, 2, 3)
        assert [(await worker.expect("message"))["seq"] for _ in range(2)] == [2, 3]
        assert "error" not in [frame["type"] for frame in [*worker.aside, *await worker.quiet()]]
        await worker.send({"type": "session_refuse", "session": session})
        other, _ = await cluster.worker("n1", "worker-b")
        await other.accept(within_s=10)
        assert [(await other.expect("message"))["seq"] for _ in range(2)] == [2, 3]
        assert "error" not in [frame["type"] for frame in await client.quiet()]
        assert alarms(logged) == []
        assert node.hub.losses.believed == 1

    play(scene)


@pytest.mark.parametrize("at_once", [False, True])
def test_acks_never_handed_out(at_once: bool, logged: list[Any]) -> None:
    """nobody-hurts: an ack of far more than there is counts for nothing; a little too much is everything there is, as ever."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits=LIMITS)
        victim, session, worker, _, liar, started = await two_sessions(cluster)
        mine = started["session"]
        await worker.send({"type": "ack", "session": mine, "seq": SEQ_MAX if at_once else 104})
        error = await worker.expect("error")
        assert (error["code"], error["session"], error["fatal"]) == ("too_far_ahead", mine, False)
        await worker.send({"type": "ack", "session": mine, "seq": 103})
        await said(liar, 4)
        assert (await worker.expect("message"))["seq"] == 4
        await said(worker, 1, session=mine)
        await liar.expect("message")
        await liar.send({"type": "ack", "seq": SEQ_MAX if at_once else 102})
        assert await liar.refused() == ("too_far_ahead", CloseCode.FORBIDDEN)
        _, restored = await cluster.restore("n1", started["recovery_token"], acked=4)
        assert (restored["accepted"], restored["replaying"]) == (4, 1)
        await talks_on(worker, victim, session, 2)
        assert alarms(logged) == []

    play(scene)


@pytest.mark.parametrize("at", ["n1", "n2"])
def test_what_a_claim_has_swallowed_is_not_acked(at: str, logged: list[Any]) -> None:
    """exactly-once: a worker whose client claims its next numbers is told so; what it says meanwhile is not acked."""

    async def scene(cluster: Cluster) -> None:
        for name in {"n1", at}:
            await cluster.start(name, limits=LIMITS)
        client, started, worker, _, session = await cluster.pair(at, worker_at="n1")
        await said(worker, 1, session=session)
        client.cut()
        await trio.sleep(0.2)
        peer = await cluster.dial(at, "/v1/client")
        await peer.send({"type": "restore_session", "recovery_token": started["recovery_token"], "received": 9})
        for seq in (2, 3):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        frames = await worker.quiet()
        assert [frame["seq"] for frame in frames if frame["type"] == "ack"] in ([], [3])
        assert "session_ended" in [frame["type"] for frame in frames]
        assert [frame["next_seq"] for frame in frames if frame["type"] == "session_assigned"] in ([10], [12])
        assert alarms(logged) == []

    play(scene)


@pytest.mark.parametrize("sign", ["", "another server", "empty", "numbers"])
def test_claims_ring_behind_a_sign_of_the_store_only(sign: str, logged: list[Any]) -> None:
    """nobody-hurts: that the store was away shows nothing. Another server, a store without its data or fewer numbers do."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, started, _, _, session = await cluster.pair("n1")
        other, _, _, _, _ = await cluster.pair("n1")
        await said(client, 1, 2, 3)
        await said(other, 1, 2, 3)
        client.cut()
        await trio.sleep(1)
        cluster.world.outage = "down"
        node.hub.inboxes.doubts.check()
        await trio.sleep(2)
        if sign == "another server":
            cluster.world.lives += 1
        if sign == "empty":
            known = cluster.world.rows.session(session)
            assert known is not None
            cluster.world.rows = MemoryRows()
            cluster.world.rows.save_session(known)
        if sign == "numbers":
            for one in cluster.world.rows._sessions.values():
                one.up.last = one.up.acked = min(one.up.last, 1)
        cluster.world.outage = ""
        node.wakes.take(WAKE_ALL)
        await trio.sleep(2)
        record = cluster.world.rows.session(session)
        assert record is not None
        record.up.last = 1
        await cluster.restore("n1", started["recovery_token"], acked=3)
        told = [(line["event"], line["log_level"]) for line in logged if line.get("lost_from") == 2]
        assert told == ([("log_lost", "error")] if sign else [("claim_ahead", "info")])
        assert ("store_went_back" in [line["event"] for line in logged]) is bool(sign)

    play(scene)


def test_a_sign_of_the_store_counts_for_as_long_as_its_witnesses_may_resume(logged: list[Any]) -> None:
    """A claim that comes later than `session.resume_ttl_s` after it is one party's word again."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", session={"resume_ttl_s": 30.0})
        cluster.world.lives += 1
        assert node.hub.losses.is_store_in_doubt()
        await trio.sleep(29)
        assert node.hub.losses.is_store_in_doubt()
        await trio.sleep(2)
        assert not node.hub.losses.is_store_in_doubt()
        assert [line["event"] for line in logged].count("store_went_back") == 1

    play(scene)


def test_what_both_parties_claim_rings(logged: list[Any]) -> None:
    """Two parties that know more than the store, each by itself, are believed about the store as well."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        await said(client, 1, 2, 3)
        await worker.quiet()
        for peer in (client, worker):
            peer.cut()
            await trio.sleep(1)
        record = cluster.world.rows.session(session)
        assert record is not None
        record.up.last = 1
        await cluster.restore("n1", started["recovery_token"], acked=3)
        assert [line["event"] for line in logged if "lost_from" in line] == ["claim_ahead"]
        await cluster.resume("n1", accepted["recovery_token"], {"session": session, "received": 3})
        assert [line["log_level"] for line in logged if line["event"] == "log_lost"] == ["error"]
        assert node.hub.losses.shown == 1

    play(scene)


def test_a_snapshot_of_yesterday(logged: list[Any]) -> None:
    """Honest parties go on after a restore: a day at 20 messages/s lies within the default bound, in both directions."""
    day = 24 * 3600 * 20

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        for peer in (client, worker):
            peer.cut()
            await trio.sleep(1)
        position = {"session": session, "received": day, "acked": day}
        worker, answer = await cluster.resume("n1", accepted["recovery_token"], position)
        assert answer["lost"] == []
        client, restored = await cluster.restore("n1", started["recovery_token"], received=day, acked=day)
        assert restored["accepted"] == day
        await talks_on(worker, client, session, day + 1)

    play(scene)


@pytest.mark.parametrize("way", ["up", "down"])
def test_numbers_that_run_out_end_their_session(way: str, logged: list[Any]) -> None:
    """nobody-hurts: no number above 2^53 - 1 leaves; the session ends with a word, and the worker and its others go on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"claim_ahead_max": SEQ_MAX})
        victim, session, worker, _, liar, started = await two_sessions(cluster)
        mine = started["session"]
        liar.cut()
        await trio.sleep(0.2)
        last = SEQ_MAX - 2
        liar, restored = await cluster.restore(
            "n1", started["recovery_token"], **({"acked": last} if way == "up" else {"received": last})
        )
        assert restored["type"] == "session_restored"
        if way == "down":
            assert (await worker.accept(within_s=10))["next_seq"] == SEQ_MAX - 1
        else:
            await worker.send({"type": "ack", "session": mine, "seq": last})  # it was told that these are lost
            await trio.sleep(0.2)
        speaker, name = (liar, "") if way == "up" else (worker, mine)
        await said(speaker, SEQ_MAX - 1, session=name)
        await speaker.send({"type": "message", "seq": SEQ_MAX, "data": 0, **({"session": name} if name else {})})
        assert await liar.closed() == CloseCode.SESSION_ENDED
        frames = [*liar.aside, *await worker.quiet()]
        errors = [frame for frame in frames if frame["type"] == "error" and frame["code"] == "numbers_spent"]
        assert len(errors) == 1
        assert "expected" not in errors[0]
        ended = [frame for frame in frames if frame["type"] == "session_ended"]
        assert ("numbers spent", mine) in [(frame["reason"], frame.get("session")) for frame in ended]
        await talks_on(worker, victim, session, 2)
        assert alarms(logged) == []

    play(scene)


def test_a_session_without_numbers_is_given_to_no_worker(logged: list[Any]) -> None:
    """nobody-hurts: a session whose numbers an earlier release let a client use up ends before any worker is assigned."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        record = cluster.world.rows.session(started["session"])
        assert record is not None
        record.down.last = record.down.acked = SEQ_MAX
        worker, _ = await cluster.worker("n1")
        assert await client.closed() == CloseCode.SESSION_ENDED
        await cluster.client("n1")
        assert (await worker.accept())["next_seq"] == 1
        assert all(frame.get("next_seq", 0) <= SEQ_MAX for frame in await worker.quiet())
        assert cluster.world.rows.session(started["session"]) is None

    play(scene)


def test_the_answer_is_the_first_frame_a_worker_gets(logged: list[Any]) -> None:
    """`log_lost` follows `reconnection_ack`, which tells a program that its sessions go on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        _, _, worker, accepted, session = await cluster.pair("n1")
        await said(worker, 1, 2, 3, session=session)
        worker.cut()
        await trio.sleep(0.2)
        position = {"session": session, "received": 0, "acked": 7}
        worker, first = await cluster.resume("n1", accepted["recovery_token"], position)
        assert (first["type"], first["sessions"][0]["accepted"]) == ("reconnection_ack", 7)
        second = await worker.receive()
        assert (second["code"], second["lost_from"], second["lost_to"]) == ("log_lost", 4, 7)

    play(scene)


SECRET = "s" * 48


def auth(subject: str, role: str) -> str:
    """A credential that is good for long."""
    return jwt.encode({"sub": subject, "role": role, "exp": 4_000_000_000}, SECRET, algorithm="HS256")


@pytest.mark.parametrize("shown", ["retired", "current", "never issued"])
def test_a_stranger_with_a_clients_token(shown: str, logged: list[Any]) -> None:
    """token-once: whatever it shows of another's session, the answer is `forbidden`; nothing is revoked, counted or noted."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"jwt_secret": SECRET})
        ann, eve = auth("ann", "client"), auth("eve", "client")
        client, started = await cluster.client("n1", auth=ann)
        client, restored = await cluster.restore("n1", started["recovery_token"], auth=ann)
        await client.ask({"type": "ping"}, "pong")
        tokens = {
            "retired": started["recovery_token"],
            "current": restored["recovery_token"],
            "never issued": f"{started['session']}.{'A' * 43}",
        }
        stranger, answer = await cluster.restore("n1", tokens[shown], auth=eve)
        assert (answer["code"], answer["message"]) == ("forbidden", "this token belongs to another subject")
        assert await stranger.closed() == CloseCode.FORBIDDEN
        assert node.hub.counters.token_reuse == 0
        assert alarms(logged) == []
        client.cut()
        await trio.sleep(0.2)
        _, again = await cluster.restore("n1", restored["recovery_token"], auth=ann)
        assert again["type"] == "session_restored"

    play(scene)


@pytest.mark.parametrize("shown", ["retired", "current", "never issued"])
def test_a_stranger_with_a_workers_token(shown: str, logged: list[Any]) -> None:
    """token-once: as for clients."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"jwt_secret": SECRET})
        one, two = auth("w1", "worker"), auth("w2", "worker")
        worker, accepted = await cluster.worker("n1", auth=one)
        worker, resumed = await cluster.resume("n1", accepted["recovery_token"], auth=one)
        await worker.ask({"type": "ping"}, "pong")
        tokens = {
            "retired": accepted["recovery_token"],
            "current": resumed["recovery_token"],
            "never issued": f"{accepted['worker']}.{'A' * 43}",
        }
        stranger, answer = await cluster.resume("n1", tokens[shown], auth=two)
        assert answer["code"] == "forbidden"
        assert await stranger.closed() == CloseCode.FORBIDDEN
        assert node.hub.counters.token_reuse == 0
        worker.cut()
        await trio.sleep(0.2)
        _, again = await cluster.resume("n1", resumed["recovery_token"], auth=one)
        assert again["type"] == "reconnection_ack"

    play(scene)


def test_what_is_counted() -> None:
    """Both counters are exported: the alarm asks for one, and the other shows that parties claim too much."""
    names = {metric.name for metric in METRICS}
    assert {"signald_log_lost_total", "signald_claims_ahead_total"} <= names


@pytest.mark.parametrize("honest", [False, True])
def test_only_a_claim_that_is_granted_holds_a_worker(honest: bool, logged: list[Any]) -> None:
    """A stranger that resumes with a worker's id holds up neither its loss nor a drain, however often it tries."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, _, worker, accepted, session = await cluster.pair("n1")
        worker.cut()
        await trio.sleep(0.2)
        held: list[tuple[type[Op], bool]] = []
        name = accepted["worker"]

        def note(ops: Sequence[Op]) -> None:
            kinds = [type(op) for op in ops if isinstance(op, ClaimWorker | ClaimWorkerSide)]
            held.extend((kind, node.hub.attachments.holds(name)) for kind in kinds)

        faulty(node).before = note
        token = accepted["recovery_token"] if honest else f"{name}.{'A' * 43}"
        _, answer = await cluster.resume("n1", token, {"session": session})
        assert answer["type"] == ("reconnection_ack" if honest else "error")
        assert held == [(ClaimWorker, False), *([(ClaimWorkerSide, True)] if honest else [])]
        assert node.hub.attachments.holds(name) is honest
        assert not node.hub.attachments.is_resuming(name)

    play(scene)
