"""The opening message: its answer, the reasons to refuse it, and the error and close code of each."""

import json

import pytest
import trio
import trio.testing

from signald.config import AuthConfig
from signald.core import tickets
from signald.service.auth import Role, mint
from signald.testing.cluster import Cluster, play
from signald.testing.websocket import Client, frame
from signald.testing.wire import Json

SECRET = "correct horse battery staple, " * 3
AUTH: dict[str, object] = {"jwt_secret": SECRET}
CONNECT: Json = {"type": "connect"}
READY: Json = {"type": "app_ready", "instance_id": "i", "capacity": 3}


def token_for(subject: str, role: Role) -> str:
    """A bearer token that is good for an hour of the cluster's clock."""
    return mint(AuthConfig(jwt_secret=SECRET), subject=subject, role=role, ttl_s=3600, now=1_700_000_000)


async def first_frame(cluster: Cluster, path: str, opening: Json) -> Json:
    """Open a connection, say `opening` and return the first frame that comes."""
    peer = await cluster.dial("n1", path)
    await peer.send(opening)
    return await peer.receive()


def test_the_answer_is_the_first_frame() -> None:
    """Whatever waits to be delivered: the answer to the opening message comes before it, with all it has to say."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        accepted = await first_frame(cluster, "/v1/worker", READY)
        assert accepted["type"] == "app_accepted"
        assert {"status", "worker", "recovery_token", "heartbeat_ms"} <= set(accepted)
        client, _, worker, _, session = await cluster.pair("n1")
        for seq in range(1, 6):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        await client.quiet()
        started = await first_frame(cluster, "/v1/client", CONNECT)
        assert started["type"] == "session_started"
        assert started["peer"] == {"state": "waiting", "id": None}
        assert started["next_seq"] == 1
        assert {"recovery_token", "token_ttl_ms", "limits", "heartbeat_ms"} <= set(started)
        again, restored = await cluster.restore("n1", started["recovery_token"], history=5)
        assert (restored["type"], restored["session"]) == ("session_restored", started["session"])
        assert again.aside == []

    play(scene)


def test_replayed_messages_follow_the_answer_in_order() -> None:
    """First the answer, with their number; then what was not received; then what is new."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        for seq in range(1, 6):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        await client.quiet()
        again, restored = await cluster.restore("n1", started["recovery_token"], received=2)
        assert (restored["type"], restored["replaying"], restored["accepted"]) == ("session_restored", 3, 0)
        await worker.send({"type": "message", "session": session, "seq": 6, "data": 6})
        assert [(await again.receive())["seq"] for _ in range(4)] == [3, 4, 5, 6]

    play(scene)


@pytest.mark.parametrize(
    ("path", "opening", "word", "code"),
    [
        ("/v1/client", {"type": "ack", "seq": 1}, "out_of_place", 4400),
        ("/v1/client", {"type": "message", "seq": 1, "data": 1}, "out_of_place", 4400),
        ("/v1/client", {"type": "connect", "want": "x"}, "bad_message", 4400),
        ("/v1/worker", {"type": "app_state", "capacity": 1}, "out_of_place", 4400),
        ("/v1/worker", {"type": "app_ready"}, "bad_message", 4400),
        ("/v1/client", {"type": "restore_session", "recovery_token": "nonsense"}, "nothing_to_resume", 4404),
        ("/v1/client", {"type": "restore_session", "recovery_token": "w_a." + "A" * 43}, "nothing_to_resume", 4404),
        ("/v1/client", {"type": "restore_session", "recovery_token": "s_a." + "A" * 43}, "nothing_to_resume", 4404),
        ("/v1/worker", {**READY, "reconnection": True, "recovery_token": "nonsense"}, "nothing_to_resume", 4404),
        ("/v1/worker", {**READY, "reconnection": True, "recovery_token": "s_a." + "A" * 43}, "nothing_to_resume", 4404),
        ("/v1/worker", {**READY, "reconnection": True, "recovery_token": "w_a." + "A" * 43}, "nothing_to_resume", 4404),
    ],
)  # fmt: skip
def test_a_wrong_opening_is_named_and_closed(path: str, opening: Json, word: str, code: int) -> None:
    """The error says what was wrong, the close code what to do; a token of the wrong form is one that resumes nothing."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        peer = await cluster.dial("n1", path)
        await peer.send(opening)
        assert await peer.refused() == (word, code)

    play(scene)


def test_a_second_opening_is_out_of_place() -> None:
    """A connection has one session, or one worker, for good."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        await client.send({"type": "restore_session", "recovery_token": started["recovery_token"]})
        assert await client.refused() == ("out_of_place", 4400)
        worker, _ = await cluster.worker("n1")
        await worker.send(READY)
        assert await worker.refused() == ("out_of_place", 4400)

    play(scene)


def test_pings_and_unknown_types_may_come_before_it() -> None:
    """They are answered, and the opening is still awaited."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        peer = await cluster.dial("n1", "/v1/client")
        assert await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}
        error = await peer.ask({"type": "hologram"}, "error")
        assert (error["code"], error["fatal"]) == ("unknown_type", False)
        assert (await peer.ask(CONNECT, "session_started"))["next_seq"] == 1

    play(scene)


def test_a_party_that_says_nothing_is_closed() -> None:
    """`timeouts.hello_s` after the handshake: 4408; a ping does not count."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", timeouts={"hello_s": 3.0})
        peer = await cluster.dial("n1", "/v1/client")
        began = trio.current_time()
        await trio.sleep(2)
        await peer.send({"type": "ping"})
        assert await peer.refused() == ("hello_timeout", 4408)
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1)

    play(scene)


def test_a_party_that_says_nothing_keeps_its_connection_no_longer() -> None:
    """It is cut within a second of the 4408, though it never answers the Close: `close_s` is for parties that were one."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", timeouts={"hello_s": 3.0, "close_s": 5.0})
        ours, theirs = trio.testing.memory_stream_pair()
        node.hub.spawn(node.server.serve_stream, theirs)
        client = Client(ours)
        await client.open()
        began = trio.current_time()
        await client.send(frame(1, b"", length=60))  # the rest of it never comes, nor an answer to the Close
        assert await client.closed_with() == (4408, "hello_timeout")
        await client.hung_up_after()
        with trio.fail_after(1):
            while node.server.connections:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                await trio.sleep(0.01)
        assert trio.current_time() - began < 4.0

    play(scene)


def test_what_comes_behind_the_opening_in_one_read_is_kept() -> None:
    """A client may send its first messages without waiting for the answer."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        client = await cluster.dial("n1", "/v1/client")
        for message in (CONNECT, *({"type": "message", "seq": seq, "data": seq} for seq in (1, 2, 3))):
            await client.send(message)
        assert (await client.receive())["type"] == "session_started"
        session = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": session})
        assert [(await worker.expect("message"))["data"] for _ in range(3)] == [1, 2, 3]

    play(scene)


def test_without_a_credential_nobody_comes_in() -> None:
    """No token, one that is not ours, and one for the other role: 4401, 4401, 4403."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        rows: list[tuple[str, Json, str, int]] = [
            ("/v1/client", CONNECT, "unauthenticated", 4401),
            ("/v1/client", {**CONNECT, "auth": "nonsense"}, "unauthenticated", 4401),
            ("/v1/client", {**CONNECT, "auth": token_for("w", "worker")}, "forbidden", 4403),
            ("/v1/worker", {**READY, "auth": token_for("a", "client")}, "forbidden", 4403),
        ]
        for path, opening, word, code in rows:
            peer = await cluster.dial("n1", path)
            await peer.send(opening)
            assert await peer.refused() == (word, code)
        await cluster.client("n1", auth=token_for("ann", "client"))
        await cluster.worker("n1", auth=token_for("w", "worker"))

    play(scene)


def test_nobody_resumes_anothers_session() -> None:
    """token-once: a recovery token is worth something only with the principal it was given to, and is not spent by others."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        ann, eve = token_for("ann", "client"), token_for("eve", "client")
        client, started = await cluster.client("n1", auth=ann)
        token = started["recovery_token"]
        thief, answer = await cluster.restore("n1", token, auth=eve)
        assert (answer["code"], await thief.closed()) == ("forbidden", 4403)
        assert (await client.ask({"type": "ping"}, "pong")) == {"type": "pong"}
        _, restored = await cluster.restore("n1", token, auth=ann)
        assert restored["type"] == "session_restored"
        worker_token = (await cluster.worker("n1", auth=token_for("w1", "worker")))[1]["recovery_token"]
        other, answer = await cluster.resume("n1", worker_token, auth=token_for("w2", "worker"))
        assert (answer["code"], await other.closed()) == ("forbidden", 4403)

    play(scene)


def test_a_draining_node_refuses_and_says_when_to_come_again() -> None:
    """1013 with `retry_after_ms` as JSON in the reason, for new parties and for those that resume."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", drain={"unready_s": 5.0})
        client, _ = await cluster.client("n1")
        node.shutdown.signal()
        await trio.sleep(1)
        peer = await cluster.dial("n1", "/v1/client")
        assert await peer.closed() == 1013
        assert 1000 <= json.loads(peer.close_reason)["retry_after_ms"] <= 2000
        assert (await client.ask({"type": "ping"}, "pong")) == {"type": "pong"}

    play(scene)


def test_set_ups_are_bounded_and_resumes_have_their_share() -> None:
    """New parties fill only what is not reserved; a resume still gets in, and a ticket passes even a full gate."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", admission={"setups_in_progress_max": 4, "resume_reserved_share": 0.5})
        _, started = await cluster.client("n1")
        gate = node.hub.gate
        gate.in_progress = 2
        peer = await cluster.dial("n1", "/v1/client")
        error = await peer.ask(CONNECT, "error")
        assert (error["code"], error["fatal"]) == ("busy", True)
        assert error["retry_after_ms"] >= 1000
        assert await peer.closed() == 1013
        assert json.loads(peer.close_reason)["retry_after_ms"] == error["retry_after_ms"]
        _, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["type"] == "session_restored"
        gate.in_progress = 4
        peer, answer = await cluster.restore("n1", restored["recovery_token"])
        assert (answer["code"], await peer.closed()) == ("busy", 1013)
        ticket = tickets.make(node.hub.cluster.secret, started["session"], node.hub.store.now_ms() + 1000)
        _, answer = await cluster.restore("n1", restored["recovery_token"], ticket=ticket)
        assert answer["type"] == "session_restored"
        assert gate.in_progress == 4

    play(scene)


def test_while_the_store_is_away_nobody_is_let_in() -> None:
    """1013, to come again: a session that no store keeps would be a promise that cannot be held."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        cluster.world.outage = "down"
        peer = await cluster.dial("n1", "/v1/client")
        await peer.send(CONNECT)
        assert await peer.refused() == ("store_unavailable", 1013)
        assert "retry_after_ms" in json.loads(peer.close_reason)

    play(scene)


def test_an_opening_the_store_carried_out_too_late_leaves_nothing_behind() -> None:
    """no-ghost: a party was told to come again, and then the store did what it had been asked."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", session={"resume_ttl_s": 10.0})
        await trio.sleep(1)
        cluster.world.outage = "answers lost"
        client = await cluster.dial("n1", "/v1/client")
        await client.send(CONNECT)
        worker = await cluster.dial("n1", "/v1/worker")
        await worker.send(READY)
        assert await client.refused() == ("store_unavailable", 1013)
        assert await worker.refused() == ("store_unavailable", 1013)
        cluster.world.outage = ""
        await trio.sleep(60)
        rows = cluster.world.rows
        assert (rows.workers(), rows.waiting(10), rows.overdue(2**60, 10)) == ([], [], [])
        assert node.hub.sessions == {}

    play(scene)


def test_a_session_whose_client_was_gone_before_it_was_told_leaves_nothing_behind() -> None:
    """no-ghost: the client goes while the store is asked; no party has the token, so none takes a worker's place for it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        worker, _ = await cluster.worker("n1", capacity=1)
        cluster.world.outage = "down"
        client = await cluster.dial("n1", "/v1/client")
        await client.send(CONNECT)
        await trio.sleep(1)
        client.cut()
        cluster.world.outage = ""
        await worker.quiet(5.0)
        rows = cluster.world.rows
        assert (rows.waiting(10), rows.overdue(2**60, 10), node.hub.sessions) == ([], [], {})
        assert node.hub.counts.ended["unheard"] == 1
        _, started = await cluster.client("n1")
        assert (await worker.accept())["session"] == started["session"]

    play(scene)
