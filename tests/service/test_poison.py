"""Messages at which every worker fails: the session is set aside, its client and the operator are told, and others go on."""

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import structlog
import trio
import trio_websocket

from signald.core.failures import PAUSES_S, Failures
from signald.errors import OperationRefused
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from signald.testing.wire_parties import Client, Worker

RESUME_S = 1.0
"""How long a lost worker is waited for."""
QUICK: dict[str, object] = {"resume_timeout_s": RESUME_S}
STEADY = {"kind": "steady"}

Fate = Callable[[Peer, Json], Awaitable[None]]
"""What a worker does with the first message of a session that it is given."""


async def crash(worker: Peer, _message: Json) -> None:
    """The process ends."""
    worker.cut()


async def refuse(worker: Peer, message: Json) -> None:
    """The handler raises."""
    await worker.send({"type": "session_refuse", "session": message["session"], "reason": "handler failed"})


class Doomed:
    """Workers, one after the other or one that stays, that meet the same fate at each message."""

    def __init__(self, cluster: Cluster, node: str, fate: Fate) -> None:
        self.cluster = cluster
        self.node = node
        self.fate = fate
        self.handed_out: list[float] = []
        """When a message was given to a worker."""
        self.seqs: list[int] = []

    async def run(self) -> None:
        """Begin a worker whenever one has crashed."""
        while True:
            worker, _ = await self.cluster.worker(self.node)
            try:
                await self._serve(worker)
            finally:
                worker.cut()

    async def _serve(self, worker: Peer) -> None:
        while True:
            frame = await worker.receive()
            if frame["type"] == "session_assigned":
                await worker.send({"type": "session_accept", "session": frame["session"], "epoch": frame["epoch"]})
            elif frame["type"] == "message":
                self.handed_out.append(trio.current_time())
                self.seqs.append(frame["seq"])
                await self.fate(worker, frame)
                if self.fate is crash:
                    return


def failures(cluster: Cluster, session: str) -> Failures:
    """What the store has noted of the session."""
    record = cluster.world.rows.session(session)
    assert record is not None
    return record.failed.current(record.up.acked)


async def listen(peer: Peer, heard: list[Json]) -> None:
    """Read whatever comes, so that the connection lives, until it is closed."""
    while True:
        try:
            heard.append(await peer.receive())
        except trio_websocket.ConnectionClosed:
            return


async def told(client: Peer) -> list[int]:
    """The seqs of all `undeliverable` the client is told until it is told nothing more."""
    errors = [frame for frame in await client.quiet(1.0) if frame["type"] == "error"]
    assert all(error["code"] == "undeliverable" and error["fatal"] is False for error in errors)
    return [error["seq"] for error in errors]


async def poisoned(cluster: Cluster, node: str, doomed: Doomed, nursery: trio.Nursery) -> tuple[Peer, Json]:
    """A client whose first message has failed everywhere: set aside, and told so."""
    nursery.start_soon(doomed.run)
    client, started = await cluster.client(node)
    await client.send({"type": "message", "seq": 1, "data": "poison"})
    with trio.fail_after(80):
        error = await client.expect("error")
    assert (error["code"], error["seq"], error["fatal"]) == ("undeliverable", 1, False)
    return client, started


@pytest.mark.parametrize("apart", [False, True])
def test_a_message_that_ends_each_worker_is_set_aside(apart: bool) -> None:
    """Five workers are lost with it; then no worker is asked. The client is told, goes on being heard, and may leave."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker=QUICK)
        node = await cluster.start("n2", worker=QUICK)
        doomed = Doomed(cluster, "n2" if apart else "n1", crash)
        async with trio.open_nursery() as nursery:
            client, started = await poisoned(cluster, "n1", doomed, nursery)
            assert [frame["state"] for frame in client.aside if frame["type"] == "peer"][-1] == "waiting"
            assert doomed.seqs == [1] * 5
            pauses = [after - before for before, after in pairwise(doomed.handed_out)]
            assert all(pause >= least for pause, least in zip(pauses, PAUSES_S, strict=True))
            await client.quiet(120)
            assert len(doomed.seqs) == 5
            await client.send({"type": "message", "seq": 2, "data": "behind it"})
            assert (await client.expect("ack"))["seq"] == 2
            noted = cluster.nodes["n1"].hub.counts.set_aside + node.hub.counts.set_aside
            assert noted == 1
            await client.send({"type": "bye"})
            assert await client.closed() == 1000
            assert cluster.world.rows.is_empty_of(started["session"])
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_message_that_each_handler_refuses_is_set_aside() -> None:
    """The worker lives on: it gets the message five times, three of them at most in any five seconds."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        doomed = Doomed(cluster, "n1", refuse)
        async with trio.open_nursery() as nursery:
            with structlog.testing.capture_logs() as logs:
                _, started = await poisoned(cluster, "n1", doomed, nursery)
            (line,) = [one for one in logs if one["event"] == "session_set_aside"]
            assert (line["log_level"], line["session"], line["seq"]) == ("warning", started["session"], 1)
            at = doomed.handed_out
            assert len(at) == 5
            assert all(at[place + 3] - at[place] > 5 for place in range(2))
            assert at[4] - at[0] < 62
            (listed,) = node.operations.sessions(10, stuck=True)["sessions"]
            assert (listed["session"], listed["stuck_at"], listed["failures"]) == (started["session"], 1, 5)
            await trio.sleep(120)
            assert len(at) == 5
            nursery.cancel_scope.cancel()

    play(scene)


@pytest.mark.parametrize("fate", [crash, refuse])
def test_others_go_on(fate: Fate) -> None:
    """While one session fails again and again, the others are served without a break, also by the only other place there is."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker=QUICK)
        steady = Worker(cluster, lambda: "n1", labels=STEADY)
        others = [Client(cluster, lambda: "n1", want=STEADY) for _ in range(4)]
        doomed = Doomed(cluster, "n1", fate)
        async with trio.open_nursery() as nursery:
            await nursery.start(steady.run)
            for other in others:
                await nursery.start(other.run)
            nursery.start_soon(doomed.run)
            # One that may have any worker: the steady one takes it whenever the doomed one fails, and fails at it as well.
            client, _ = await cluster.client("n1", want={"kind": "none"})
            await client.send({"type": "message", "seq": 1, "data": "poison"})
            for number in range(60):
                for other in others:
                    await other.say(other.talk, number)
                await trio.sleep(1)
            assert all(other.talk.heard == list(range(60)) for other in others)
            assert all(other.told == ["(waiting)", "paired"] for other in others)
            nursery.cancel_scope.cancel()

    play(scene)


@pytest.mark.parametrize("way", ["no room", "no answer", "bye", "leaving", "kill", "drain"])
def test_what_counts_nothing(way: str) -> None:
    """Workers that have no room, that leave in good order, or that are lost with their node or by a drain blame no session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={**QUICK, "failures_max": 2}, timeouts={"assign_s": 2.0})
        client, started = await cluster.client("n1")
        heard: list[Json] = []
        cluster.nodes["n1"].hub.spawn(listen, client, heard)
        await client.send({"type": "message", "seq": 1, "data": "work"})
        for number in range(4):
            with trio.fail_after(40):
                await end_hand_out(cluster, way, number)
        assert failures(cluster, started["session"]) == Failures()
        last, _ = await cluster.worker("n1", "last")
        await last.accept(within_s=30.0)
        assert (await last.expect("message"))["data"] == "work"
        assert [frame for frame in heard if frame["type"] == "error"] == []

    play(scene)


async def end_hand_out(cluster: Cluster, way: str, number: int) -> None:
    """A worker is given the session, and gives it back in good order, or is lost through no fault of the session."""
    at = f"m{number}" if way in ("kill", "drain") else "n1"
    if at != "n1":
        drain: dict[str, object] = {"timeout_s": 8.0, "worker_timeout_s": 2.0, "client_timeout_s": 1.0}
        await cluster.start(at, worker=QUICK, drain=drain)
    worker, _ = await cluster.worker(at, f"worker-{number}")
    with trio.fail_after(20):
        assigned = await worker.expect("session_assigned")
    session = assigned["session"]
    if way == "no room":
        await worker.send({"type": "session_refuse", "session": session, "reason": "no room"})
        await worker.send({"type": "bye"})
        return
    if way == "no answer":
        await worker.expect("session_ended")
        await worker.send({"type": "bye"})
        return
    await worker.send({"type": "session_accept", "session": session})
    await worker.expect("message")
    if way == "bye":
        await worker.send({"type": "bye"})
    elif way == "leaving":
        await worker.send({"type": "app_state", "capacity": 10, "leaving": True})
        await worker.send({"type": "session_refuse", "session": session, "reason": "redeployed"})
    elif way == "kill":
        cluster.kill(at)
        worker.cut()
        await trio.sleep(20)
    elif way == "drain":
        cluster.nodes[at].shutdown.signal()
        await cluster.wait_exit(at)
        await trio.sleep(3 * RESUME_S)


def test_a_drain_that_cuts_a_worker_off_counts_nothing() -> None:
    """A worker that a stopping node has closed, and that does not come back, is lost by the deploy and not by a session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={**QUICK, "failures_max": 2})
        await cluster.start(
            "n2", worker={**QUICK, "on_loss": "hold"}, drain={"timeout_s": 6.0, "worker_timeout_s": 2.0}
        )
        client, _, worker, _, session = await cluster.pair("n1", worker_at="n2")
        await client.send({"type": "message", "seq": 1, "data": "work"})
        await worker.expect("message")
        cluster.nodes["n2"].shutdown.signal()
        await cluster.wait_exit("n2")
        assert await worker.closed() == 1001
        await trio.sleep(5 * RESUME_S)
        record = cluster.world.rows.session(session)
        assert record is not None
        assert record.worker == ""
        assert failures(cluster, session) == Failures()

    play(scene)


def test_an_ack_resets_the_count() -> None:
    """Four failures at one message and four at the next are no five at one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        heard: list[Json] = []
        cluster.nodes["n1"].hub.spawn(listen, client, heard)
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": "hard"})
        worker, _ = await cluster.worker("n1")
        for seq in (1, 2):
            for count in range(1, 5):
                await worker.accept(within_s=60.0)
                message = await worker.expect("message")
                assert message["seq"] == seq
                await refuse(worker, message)
                await worker.quiet(0.1)
                found = failures(cluster, started["session"])
                assert (found.seq, found.count, found.set_aside) == (seq, count, False)
            await worker.accept(within_s=60.0)
            await worker.expect("message")
            await worker.send({"type": "ack", "session": started["session"], "seq": seq})
            await trio.sleep(0.5)
            assert failures(cluster, started["session"]) == Failures()
            if seq == 1:
                assert (await worker.expect("message"))["seq"] == 2
                await worker.send({"type": "app_state", "capacity": 10, "leaving": True})
                await refuse(worker, message)
                await worker.send({"type": "app_state", "capacity": 10, "leaving": False})
        assert [frame for frame in heard if frame["type"] == "error"] == []

    play(scene)


@pytest.mark.parametrize("ended", ["resume", "kill", "empty"])
def test_what_is_set_aside_stays_so(ended: str) -> None:
    """Its client resumes elsewhere, its node is killed, or the store comes back empty: no worker is asked, and it is told again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker=QUICK)
        await cluster.start("n2", worker=QUICK)
        doomed = Doomed(cluster, "n2", refuse)
        async with trio.open_nursery() as nursery:
            client, started = await poisoned(cluster, "n1", doomed, nursery)
            at = "n1"
            if ended == "kill":
                cluster.kill("n1")
                client.cut()
                await trio.sleep(20)
                at = "n2"
            assert len(doomed.seqs) == 5
            nursery.cancel_scope.cancel()
        await trio.sleep(5 * RESUME_S)
        if ended == "empty":
            cluster.world.lose_everything()
            await trio.sleep(5)
            assert failures(cluster, started["session"]).set_aside
            assert cluster.world.rows.place(started["session"]) is None, "it waits in no line"
        again, restored = await cluster.restore(at if ended != "resume" else "n2", started["recovery_token"])
        assert (restored["type"], restored["peer"]["state"]) == ("session_restored", "waiting")
        assert await told(again) == [1]
        assert cluster.world.rows.place(started["session"]) is None, "it waits in no line"
        fresh, _ = await cluster.worker("n2", "fresh")
        assert await fresh.quiet(100) == []

    play(scene)


def test_a_worker_that_comes_back_without_the_session_has_failed() -> None:
    """A process that ends by a message, and resumes by the token that it has kept, is given the message five times at most."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        heard: list[Json] = []
        cluster.nodes["n1"].hub.spawn(listen, client, heard)
        await client.send({"type": "message", "seq": 1, "data": "poison"})
        token = accepted["recovery_token"]
        for count in range(1, 6):
            await worker.expect("message")
            worker.cut()
            await trio.sleep(1)
            worker, answer = await cluster.resume("n1", token)
            token = answer["recovery_token"]
            assert (answer["sessions"], answer["lost"]) == ([], [])
            assert failures(cluster, session).count == count
            if count < 5:
                await worker.accept()
        assert await worker.quiet(30) == []
        assert [frame["seq"] for frame in heard if frame["type"] == "error"] == [1]
        assert cluster.world.rows.place(session) is None

    play(scene)


def test_an_operator_lets_it_go_on() -> None:
    """Any node can be asked; a worker that has been mended gets the message, and all that waits behind it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker=QUICK)
        node = await cluster.start("n2", worker=QUICK)
        doomed = Doomed(cluster, "n1", crash)
        async with trio.open_nursery() as nursery:
            client, started = await poisoned(cluster, "n1", doomed, nursery)
            nursery.cancel_scope.cancel()
        await client.send({"type": "message", "seq": 2, "data": "behind it"})
        await client.expect("ack")
        answer = await node.operations.retry(started["session"])
        assert answer == {"session": started["session"], "seq": 1, "failures": 5}
        mended, _ = await cluster.worker("n1", "mended")
        await mended.accept()
        assert [(await mended.expect("message"))["data"] for _ in range(2)] == ["poison", "behind it"]
        with pytest.raises(OperationRefused, match="is not set aside") as not_stuck:
            await node.operations.retry(started["session"])
        with pytest.raises(OperationRefused, match="there is no session") as unknown:
            await node.operations.retry("s_0000000000000000000000")
        assert (not_stuck.value.because, unknown.value.because) == ("state", "unknown")

    play(scene)


def test_the_turn_comes_though_the_node_that_waits_dies() -> None:
    """A pause is spent at the node of the worker; should it die, the node of the client puts the session in line."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker=QUICK)
        await cluster.start("n2", worker=QUICK)
        client, started, worker, _, _ = await cluster.pair("n1", worker_at="n2")
        await client.send({"type": "message", "seq": 1, "data": "hard"})
        await worker.expect("message")
        for count in (1, 2):
            await refuse(worker, {"session": started["session"]})
            await trio.sleep(0.3)
            assert failures(cluster, started["session"]).count == count
            if count == 1:
                await worker.accept()
        await trio.sleep(0.7)
        assert cluster.world.rows.place(started["session"]) is None, "only the node of the worker knows that it is due"
        cluster.kill("n2")
        other, _ = await cluster.worker("n1", "other")
        await other.accept(within_s=20.0)
        assert (await other.expect("message"))["data"] == "hard"

    play(scene)


@pytest.mark.parametrize("trouble", ["outage", "resume", "empty"])
def test_a_pause_is_not_cut_short(trouble: str) -> None:
    """What puts sessions in line again that wait (a store that was away or is empty, a resume) heeds the pause of each."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        doomed = Doomed(cluster, "n1", refuse)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(doomed.run)
            client, started = await cluster.client("n1")
            await client.send({"type": "message", "seq": 1, "data": "poison"})
            while len(doomed.seqs) < 3:  # noqa: ASYNC110
                await trio.sleep(0.1)
            await trio.sleep(1)
            if trouble == "outage":
                cluster.world.outage = "down"
                await trio.sleep(1)
                cluster.world.outage = ""
            elif trouble == "empty":
                cluster.world.lose_everything()
            else:
                await cluster.restore("n1", started["recovery_token"])
            while len(doomed.seqs) < 4:  # noqa: ASYNC110
                await trio.sleep(0.1)
            assert doomed.handed_out[3] - doomed.handed_out[2] >= PAUSES_S[2]
            nursery.cancel_scope.cancel()

    play(scene)


def test_what_is_set_aside_waits_in_no_line_that_an_older_release_makes() -> None:
    """A node of a release that counts no failures puts the session in line: no worker here is asked, and its place is free again."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", worker=QUICK)
        doomed = Doomed(cluster, "n1", refuse)
        async with trio.open_nursery() as nursery:
            _, started = await poisoned(cluster, "n1", doomed, nursery)
            session = node.hub.sessions[started["session"]]
            await trio.sleep(2)
            await node.hub.giving_up.take_from(session)
            await trio.sleep(10)
            assert len(doomed.seqs) == 5
            assert cluster.world.rows.place(started["session"]) is None
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_client_whose_meta_ends_each_handler_is_set_aside() -> None:
    """Without any message the same holds, if each hand-out ends soon; it is told the seq of its next message."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _ = await cluster.client("n1", meta={"name": 10**18})
        heard: list[Json] = []
        cluster.nodes["n1"].hub.spawn(listen, client, heard)
        worker, _ = await cluster.worker("n1")
        for _ in range(5):
            assigned = await worker.accept(within_s=60.0)
            await trio.sleep(0.1)
            await refuse(worker, assigned)
        assert await worker.quiet(100.0) == []
        (error,) = [frame for frame in heard if frame["type"] == "error"]
        assert (error["code"], error["seq"]) == ("undeliverable", 1)

    play(scene)
