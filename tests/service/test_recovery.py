"""Recovery tokens from the parties' side: a lost answer locks no party out, and a stolen token opens nothing."""

import trio

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json
from signald.testing.wire_parties import Client, Worker


async def lose_the_answer(cluster: Cluster, opening: Json, path: str = "/v1/client", name: str = "n1") -> None:
    """Open a connection, resume, and be cut after the store has granted and before the answer is read."""
    peer = await cluster.dial(name, path)
    await peer.send(opening)
    peer.cut()
    await trio.sleep(0.5)


def test_a_lost_answer_locks_nobody_out() -> None:
    """The claim was granted and its answer never arrived: the old token still works, again and again."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        worker.cut()
        await trio.sleep(0.5)
        for _ in range(3):
            await lose_the_answer(cluster, {"type": "restore_session", "recovery_token": started["recovery_token"]})
            ready = {"type": "app_ready", "instance_id": "worker-a", "reconnection": True, "sessions": []}
            await lose_the_answer(cluster, {**ready, "recovery_token": accepted["recovery_token"]}, "/v1/worker")
        assert node.hub.counters.resumes == 6
        client, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["type"] == "session_restored"
        worker, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session})
        assert (answer["type"], answer["session_restored"]) == ("reconnection_ack", True)
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        await worker.send({"type": "session_accept", "session": session})
        assert (await worker.expect("message"))["data"] == "still here"

    play(scene)


def test_after_the_new_token_was_used_the_old_one_is_theft() -> None:
    """token-once: the old token is refused and counted, and with it every token of the session is worth nothing."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, started = await cluster.client("n1")
        first = started["recovery_token"]
        _, restored = await cluster.restore("n1", first)
        second = restored["recovery_token"]
        client, restored = await cluster.restore("n1", second)
        third = restored["recovery_token"]
        assert len({first, second, third}) == 3
        thief, answer = await cluster.restore("n1", first)
        assert (answer["code"], await thief.closed()) == ("token_reuse", 4403)
        assert node.hub.counters.token_reuse == 1
        for token in (second, third):
            owner, answer = await cluster.restore("n1", token)
            assert await owner.closed() == 4403
            assert answer["code"] in ("token_reuse", "token_revoked")
        assert (await client.ask({"type": "ping"}, "pong")) == {"type": "pong"}

    play(scene)


def test_a_claim_that_comes_behind_the_next_one_takes_nothing() -> None:
    """single-owner: the network delivers what a client had given up; the connection it is on stays, and so does its token."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        _, started, worker, _, session = await cluster.pair("n1")
        token = started["recovery_token"]
        client, restored = await cluster.restore("n2", token, attempt=2)
        late, answer = await cluster.restore("n1", token, attempt=1)
        assert (answer["code"], await late.closed()) == ("late", 1013)
        assert node.hub.counters.token_reuse == 0
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "still there?"})
        assert (await client.expect("message"))["data"] == "still there?"
        client.cut()
        _, again = await cluster.restore("n1", restored["recovery_token"], attempt=3)
        assert again["type"] == "session_restored"

    play(scene)


def test_a_workers_claim_that_comes_behind_the_next_one_takes_nothing() -> None:
    """The same for workers, whose sessions stay where they are."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, _, accepted, session = await cluster.pair("n1")
        token = accepted["recovery_token"]
        worker, _ = await cluster.resume("n2", token, {"session": session}, attempt=2)
        late, answer = await cluster.resume("n1", token, {"session": session}, attempt=1)
        assert (answer["code"], await late.closed()) == ("late", 1013)
        await client.send({"type": "message", "seq": 1, "data": "still there?"})
        assert (await worker.expect("message"))["data"] == "still there?"

    play(scene)


def test_any_frame_shows_that_the_new_token_has_arrived() -> None:
    """A ping after the answer is enough: from then on the old token is theft."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        _, started = await cluster.client("n1")
        client, _ = await cluster.restore("n2", started["recovery_token"])
        await client.ask({"type": "ping"}, "pong")
        await trio.sleep(0.1)
        _, answer = await cluster.restore("n1", started["recovery_token"])
        assert answer["code"] == "token_reuse"
        assert node.hub.counters.token_reuse == 1

    play(scene)


def test_a_workers_old_token_is_theft_as_well() -> None:
    """The same two slots for workers."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, accepted = await cluster.worker("n1")
        old = accepted["recovery_token"]
        worker, answer = await cluster.resume("n1", old)
        assert answer["type"] == "reconnection_ack"
        await worker.ask({"type": "ping"}, "pong")
        await trio.sleep(0.1)
        thief, refusal = await cluster.resume("n1", old)
        assert (refusal["code"], await thief.closed()) == ("token_reuse", 4403)
        owner, refusal = await cluster.resume("n1", answer["recovery_token"])
        assert await owner.closed() == 4403
        assert node.hub.counters.token_reuse >= 1

    play(scene)


def test_of_two_that_resume_at_once_the_later_holds_the_session() -> None:
    """single-owner: one is closed with 4409, and what it sends is not taken."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, _, _ = await cluster.pair("n1")
        token = started["recovery_token"]
        here, there = await cluster.dial("n1", "/v1/client"), await cluster.dial("n2", "/v1/client")
        for peer in (here, there):
            await peer.send({"type": "restore_session", "recovery_token": token})
        answers = [(await here.receive())["type"], (await there.receive())["type"]]
        assert answers == ["session_restored"] * 2
        assert await client.closed() == 4409
        codes: list[int] = []

        async def closes(peer: object) -> None:
            with trio.move_on_after(5):
                codes.append(await peer.closed())  # type: ignore[attr-defined]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(closes, here)
            nursery.start_soon(closes, there)
        assert codes == [4409]
        assert await worker.quiet() == []

    play(scene)


def test_a_client_comes_back_on_the_node_it_was_on() -> None:
    """single-owner: a new connection before the old one is known to be dead; messages from another node still arrive."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, _, session = await cluster.pair("n1", worker_at="n2")
        again, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["peer"]["state"] == "paired"
        assert await client.closed() == 4409
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "hi"})
        with trio.fail_after(0.5):
            assert (await again.expect("message"))["data"] == "hi"

    play(scene)


def test_a_worker_comes_back_on_the_node_it_was_on() -> None:
    """The same for a worker whose clients are elsewhere."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, accepted, session = await cluster.pair("n1", worker_at="n2")
        again, answer = await cluster.resume("n2", accepted["recovery_token"], {"session": session, "received": 0})
        assert answer["sessions"] == [{"session": session, "accepted": 0, "replaying": 0}]
        assert await worker.closed() == 4409
        await client.send({"type": "message", "seq": 1, "data": "hi"})
        with trio.fail_after(0.5):
            assert (await again.expect("message"))["data"] == "hi"

    play(scene)


def test_a_worker_that_has_forgotten_a_session_is_asked_again() -> None:
    """A `session_assigned` that was lost with its connection is not lost for the session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": "hi"})
        worker.cut()
        await trio.sleep(0.5)
        again, answer = await cluster.resume("n1", accepted["recovery_token"])
        assert (answer["sessions"], answer["lost"]) == ([], [])
        with trio.fail_after(2):
            assert (await again.expect("session_assigned"))["session"] == session
        await again.send({"type": "session_accept", "session": session})
        assert (await again.expect("message"))["data"] == "hi"

    play(scene)


def test_a_worker_is_told_which_sessions_it_has_lost() -> None:
    """What was given to another meanwhile, or ended, is `lost`; the rest goes on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        worker.cut()
        await client.send({"type": "bye"})
        assert await client.closed() == 1000
        _, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session}, {"session": "s_odd"})
        assert (answer["sessions"], answer["lost"]) == ([], [session, "s_odd"])

    play(scene)


def test_parties_that_are_cut_again_and_again_lose_nothing() -> None:
    """exactly-once: 40 cuts of either party on two nodes, and every message arrives once and in order, both ways."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        turn = 0

        def entry() -> str:
            nonlocal turn
            turn += 1
            return f"n{turn % 2 + 1}"

        async with trio.open_nursery() as nursery:
            worker, client = Worker(cluster, entry), Client(cluster, entry)
            await nursery.start(worker.run)
            await nursery.start(client.run)
            for step in range(120):
                await client.say(client.talk, step)
                if step % 3 == 0:
                    (client if step % 2 else worker).cut()
                await trio.sleep(0.2)
            await trio.sleep(5)
            assert worker.talks[client.talk.session].heard == list(range(120))
            assert client.talk.heard == list(range(120))
            assert client.talk.gaps == []
            assert (len(client.dials), worker.workers) == (21, [worker.worker])
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)
