"""Jobs at the nodes of their parties: handed out, told, cancelled, ended in time, and going on over moves."""

from typing import Any

import trio

from signald.core.callers import ALL
from signald.ids import job_id
from signald.service.events import JobOver
from signald.store.base import Op
from signald.store.session.jobs.ops import CancelJob, CreateJob, JobMade, JobRead, ReadJob
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer


async def ask(cluster: Cluster, node: str, op: Op) -> Any:
    """Have a node do `op`, as its HTTP API does: what concerns a session that it holds it looks at by itself."""
    hub = cluster.nodes[node].hub
    result = await hub.committer.call(op)
    session = hub.sessions.get(op.session)  # type: ignore[attr-defined]
    if session is not None:
        hub.relay.look(session)
    return result


def creation(cluster: Cluster, node: str, session: str, number: int = 1, **said: Any) -> CreateJob:
    """Return the operation by which `node` makes a job."""
    now_ms = cluster.nodes[node].hub.context.now_ms()
    fields: dict[str, Any] = {"kind": "tts", "data": b'{"x":%d}' % number, "content_type": "", "deadline_ms": 0}
    fields.update(said)
    return CreateJob(
        session=session,
        node=node,
        access=ALL,
        nonce=f"nonce {number}",
        key=b"key %d" % number,
        payload=b"payload",
        trace="",
        too_big=False,
        in_flight_max=100,
        result_bytes_max=1 << 20,
        keep_ms=3_600_000,
        now_ms=now_ms,
        **fields,
    )


async def submit(cluster: Cluster, node: str, session: str, number: int = 1, **said: Any) -> str:
    """Make a job at `node` and return its id."""
    made = await ask(cluster, node, creation(cluster, node, session, number, **said))
    assert isinstance(made, JobMade)
    return job_id(session, made.job.n)


async def cancel(cluster: Cluster, node: str, session: str, n: int = 1, timeout_ms: int = 10_000) -> None:
    """Cancel a job at `node`."""
    await ask(cluster, node, CancelJob(session, n, ALL, node, timeout_ms, cluster.nodes[node].hub.context.now_ms()))


async def state(cluster: Cluster, node: str, session: str, n: int = 1) -> str:
    """Return the state of a job as `GET` shows it."""
    read = await ask(cluster, node, ReadJob(session, n, ALL, node, cluster.nodes[node].hub.context.now_ms()))
    assert isinstance(read, JobRead)
    return str(read.job.state)


async def told(client: Peer, count: int) -> list[tuple[str, int]]:
    """Return what the client is told next of its jobs: (state, attempt)."""
    frames = [await client.expect("job_state") for _ in range(count)]
    return [(frame["state"], frame["attempt"]) for frame in frames]


async def pair(cluster: Cluster, client_at: str = "n1", worker_at: str = "n1") -> tuple[Peer, Peer, str, Json]:
    """A client and a worker that takes all kinds, paired: client, worker, session, the answer to the worker."""
    worker, accepted = await cluster.worker(worker_at, jobs=["*"])
    client, started = await cluster.client(client_at)
    await worker.accept()
    while (await client.expect("peer"))["state"] != "paired":
        pass
    return client, worker, started["session"], {**accepted, "client_token": started["recovery_token"]}


def test_handed_out_and_told() -> None:
    """A job that any node has stored reaches the worker at its own, with its input; the client is told that it runs."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, worker, session, _ = await pair(cluster, "n1", "n2")
        for number, node in enumerate(("n1", "n2", "n3"), 1):
            name = await submit(cluster, node, session, number)
            job = await worker.expect("job")
            assert job == {
                "type": "job", "session": session, "job": name, "kind": "tts", "attempt": 1, "data": {"x": number},
            }  # fmt: skip
            while (await told(client, 1)) != [("running", 1)]:
                pass

    play(scene)


def test_reaches_the_worker_when_the_client_is_told_first() -> None:
    """The changes for the client may be read before the node acts on what it has stored itself: the worker gets the job too."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, worker, session, _ = await pair(cluster)
        first = await submit(cluster, "n1", session)
        assert (await worker.expect("job"))["job"] == first
        while (await told(client, 1)) != [("running", 1)]:
            pass
        hub = cluster.nodes["n1"].hub
        made: list[Any] = []
        # In one batch: the job is stored, and the end of another one has the changes read.
        hub.committer.submit(creation(cluster, "n1", session, 2), made.append)
        hub.context.events.emit(JobOver(session))
        assert await told(client, 1) == [("queued", 0)]
        hub.jobs.changed(session, made[0].job)
        assert (await worker.expect("job"))["job"] == job_id(session, 2)
        assert await told(client, 1) == [("running", 1)]

    play(scene)


def test_waits_for_a_worker() -> None:
    """Without a worker a job waits; the worker that comes gets it behind its acceptance and before the messages."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        await client.send({"type": "message", "seq": 1, "data": "hello"})
        await submit(cluster, "n1", started["session"], 1)
        await submit(cluster, "n1", started["session"], 2)
        worker, _ = await cluster.worker("n1", jobs=["tts"])
        assigned = await worker.expect("session_assigned")
        assert await worker.quiet() == []
        await worker.send({"type": "session_accept", "session": assigned["session"]})
        assert [(await worker.receive())["type"] for _ in range(3)] == ["job", "job", "message"]

    play(scene)


def test_of_a_worker_without_jobs() -> None:
    """A job goes to no worker that has named no kind: it fails, and the client is told so."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await submit(cluster, "n1", session)
        frames = [await client.expect("job_state") for _ in range(1)]
        while frames[-1]["state"] != "failed":
            frames.append(await client.expect("job_state"))
        assert frames[-1]["error"]["code"] == "kind_not_taken"
        assert [frame["type"] for frame in await worker.quiet()] == []

    play(scene)


def test_binary_input() -> None:
    """An input that is no JSON comes in a binary frame, with its content type."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        _, worker, session, _ = await pair(cluster)
        await submit(cluster, "n1", session, data=b"\x00\xff", content_type="audio/ogg")
        job = await worker.expect("job")
        assert (job["binary"], job["content_type"], job["attempt"]) == (b"\x00\xff", "audio/ogg", 1)
        assert "data" not in job

    play(scene)


def test_resumed_worker() -> None:
    """A worker that comes back gets the jobs that it does not list, under the same attempt; one that has ended is cancelled."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        _, worker, session, accepted = await pair(cluster)
        names = [await submit(cluster, "n1", session, number) for number in (1, 2, 3)]
        for _ in names:
            await worker.expect("job")
        await cancel(cluster, "n2", session, 3, timeout_ms=0)
        assert await state(cluster, "n2", session, 3) == "cancelled"
        worker.cut()
        await trio.sleep(0.1)
        position = {"session": session, "received": 0, "acked": 0, "jobs": [names[1], names[2], "j_other_1"]}
        again, answer = await cluster.resume("n2", accepted["recovery_token"], position, jobs=["*"])
        assert answer["type"] == "reconnection_ack"
        frames = await again.quiet()
        assert [(frame["type"], frame["job"]) for frame in frames] == [("job", names[0]), ("job_cancel", names[2])]
        assert (frames[0]["attempt"], frames[1]["reason"]) == (1, "requested")

    play(scene)


def test_moved_to_another_worker() -> None:
    """When its worker is lost, a job goes to the next one under the next attempt; the client is told of it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 1.0})
        client, worker, session, _ = await pair(cluster)
        await submit(cluster, "n1", session)
        assert (await worker.expect("job"))["attempt"] == 1
        other, _ = await cluster.worker("n1", instance="b", jobs=["*"])
        worker.cut()
        await other.accept(within_s=30)
        assert (await other.expect("job"))["attempt"] == 2
        states = [await client.expect("job_state")]
        while states[-1]["attempt"] != 2:
            states.append(await client.expect("job_state"))
        assert states[-1]["state"] == "running"

    play(scene)


def test_lost_with_three_workers() -> None:
    """A job with which three workers are lost fails; its session goes on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 1.0}, jobs={"failures_max": 3})
        client, worker, session, _ = await pair(cluster)
        await submit(cluster, "n1", session)
        for number in range(2, 5):
            await worker.expect("job")
            worker.cut()
            worker, _ = await cluster.worker("n1", instance=f"w{number}", jobs=["*"])
            await worker.accept(within_s=120)
        frame = await client.expect("job_state")
        while frame["state"] == "running":
            frame = await client.expect("job_state")
        assert (frame["state"], frame["error"]["code"]) == ("failed", "worker_lost")
        assert [one for one in await worker.quiet() if one["type"] == "job"] == []

    play(scene)


def test_deadline() -> None:
    """At its deadline a job is expired at once, wherever it was asked for: the worker is told to stop, the client that it is."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, worker, session, _ = await pair(cluster, "n1", "n2")
        deadline_ms = cluster.nodes["n1"].hub.context.now_ms() + 5000
        await submit(cluster, "n1", session, deadline_ms=deadline_ms)
        job = await worker.expect("job")
        assert 4000 < job["deadline_ms"] <= 5000
        began = trio.current_time()
        stop = await worker.expect("job_cancel")
        assert (stop["job"], stop["reason"]) == (job["job"], "deadline")
        assert 4 < trio.current_time() - began < 6
        frame = await client.expect("job_state")
        while frame["state"] != "expired":
            frame = await client.expect("job_state")

    play(scene)


def test_deadline_without_a_worker() -> None:
    """A job that waits for a worker expires as well, and the client is told."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        deadline_ms = cluster.nodes["n1"].hub.context.now_ms() + 5000
        await submit(cluster, "n1", started["session"], deadline_ms=deadline_ms)
        assert await told(client, 2) == [("queued", 0), ("expired", 0)]

    play(scene)


def test_cancelled_by_request() -> None:
    """The worker is asked once to end it, and has its time; after that signald ends it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, worker, session, _ = await pair(cluster, "n1", "n2")
        name = await submit(cluster, "n1", session)
        await worker.expect("job")
        await cancel(cluster, "n1", session)
        await cancel(cluster, "n1", session)
        began = trio.current_time()
        assert await worker.expect("job_cancel") == {
            "type": "job_cancel", "session": session, "job": name, "reason": "requested",
        }  # fmt: skip
        frame = await client.expect("job_state")
        while frame["state"] != "cancelled":
            frame = await client.expect("job_state")
        assert 9 < trio.current_time() - began < 12
        assert [one for one in await worker.quiet() if one["type"] == "job_cancel"] == []

    play(scene)


def test_progress() -> None:
    """What the worker says of its progress is told to the client, the last of it; too much of it is refused alone."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, worker, session, _ = await pair(cluster, "n1", "n2")
        name = await submit(cluster, "n1", session)
        await worker.expect("job")
        for percent in (10, 50, 99):
            await worker.send({"type": "job_progress", "session": session, "job": name, "progress": {"p": percent}})
        frame = await client.expect("job_state")
        while frame.get("progress") != {"p": 99}:
            frame = await client.expect("job_state")
        await worker.send({"type": "job_progress", "session": session, "job": name, "progress": "x" * 5000})
        assert (await worker.expect("error"))["code"] == "too_big"
        await worker.send({"type": "job_progress", "session": session, "job": "j_none_1", "progress": 1})
        assert await worker.quiet() == []

    play(scene)


def test_resumed_client() -> None:
    """A client that comes back finds its jobs in the answer, and is told of what changes from then on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, worker, session, accepted = await pair(cluster)
        names = [await submit(cluster, "n1", session, number) for number in (1, 2)]
        for _ in names:
            await worker.expect("job")
        await cancel(cluster, "n1", session, 1, timeout_ms=0)
        assert await state(cluster, "n1", session, 1) == "cancelled"
        client.cut()
        await trio.sleep(0.1)
        again, answer = await cluster.restore("n2", accepted["client_token"])
        assert answer["jobs"] == [
            {"job": names[0], "state": "cancelled", "attempt": 1},
            {"job": names[1], "state": "running", "attempt": 1},
        ]
        assert [frame for frame in await again.quiet() if frame["type"] == "job_state"] == []
        await cancel(cluster, "n1", session, 2, timeout_ms=0)
        await state(cluster, "n1", session, 2)
        frame = await again.expect("job_state")
        while frame["state"] != "cancelled":
            frame = await again.expect("job_state")
        assert frame["job"] == names[1]

    play(scene)


def test_a_client_without_jobs_is_told_of_none() -> None:
    """The answer to a resume is as it was for a session that never had a job."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        client.cut()
        await trio.sleep(0.1)
        _, answer = await cluster.restore("n1", started["recovery_token"])
        assert "jobs" not in answer

    play(scene)


def test_the_session_ends() -> None:
    """With the session its jobs end: the worker is told of each before the end, and they are cancelled."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, worker, session, _ = await pair(cluster)
        name = await submit(cluster, "n1", session)
        await worker.expect("job")
        await client.send({"type": "bye"})
        frames = await worker.quiet()
        assert [frame["type"] for frame in frames] == ["job_cancel", "session_ended"]
        assert (frames[0]["job"], frames[0]["reason"]) == (name, "session_ended")
        assert await state(cluster, "n1", session) == "cancelled"

    play(scene)


def test_over_a_drain() -> None:
    """Through a drain of both parties' node a job goes on where it was: nothing is handed out twice to a worker that has it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, worker, session, accepted = await pair(cluster)
        name = await submit(cluster, "n1", session)
        await worker.expect("job")
        await cluster.start("n2")
        cluster.nodes["n1"].shutdown.signal()
        await worker.expect("goaway")
        position = {"session": session, "received": 0, "acked": 0, "jobs": [name]}
        again, answer = await cluster.resume("n2", accepted["recovery_token"], position, jobs=["*"])
        assert answer["sessions"][0]["session"] == session
        assert [frame for frame in await again.quiet(0.5) if frame["type"].startswith("job")] == []
        await client.expect("goaway")
        resumed, restored = await cluster.restore("n2", accepted["client_token"])
        assert restored["jobs"] == [{"job": name, "state": "running", "attempt": 1}]
        await cancel(cluster, "n2", session, timeout_ms=0)
        assert (await again.expect("job_cancel"))["job"] == name
        del resumed

    play(scene)


def test_deadline_while_both_are_away() -> None:
    """No node watches the deadline then; whatever looks next finds the job expired, and no worker is given it."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, worker, session, accepted = await pair(cluster, "n1", "n2")
        deadline_ms = cluster.nodes["n1"].hub.context.now_ms() + 5000
        client.cut()
        worker.cut()
        await trio.sleep(1)
        await submit(cluster, "n1", session, deadline_ms=deadline_ms)
        await trio.sleep(10)
        assert await state(cluster, "n3", session) == "expired"
        await submit(cluster, "n1", session, 2, deadline_ms=deadline_ms + 10_000)
        await trio.sleep(10)
        again = await cluster.dial("n3", "/v1/client")
        back = {"type": "restore_session", "recovery_token": accepted["client_token"], "received": 0}
        await again.ask(back, "session_restored")
        assert await state(cluster, "n3", session, 2) == "expired"

    play(scene)


def test_jobs_that_wait_are_counted() -> None:
    """A job counts as waiting until a worker has it, or it is over; also at the node that its client has come back to."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started = await cluster.client("n1")
        session = started["session"]

        async def waiting() -> list[int]:
            await trio.sleep(1)
            return [node.hub.jobs.waiting() for node in cluster.nodes.values()]

        assert await waiting() == [0, 0]
        for number in (1, 2, 3):
            await submit(cluster, "n2", session, number)
        assert await waiting() == [3, 0]
        await cancel(cluster, "n2", session, 1)
        assert await waiting() == [2, 0]
        client.cut()
        assert await waiting() == [0, 0], "without a client they count nowhere"
        again = await cluster.dial("n2", "/v1/client")
        back = {"type": "restore_session", "recovery_token": started["recovery_token"], "received": 0}
        await again.ask(back, "session_restored")
        assert await waiting() == [0, 2]
        worker, _ = await cluster.worker("n1", jobs=["*"])
        await worker.accept()
        assert await waiting() == [0, 0]

    play(scene)
