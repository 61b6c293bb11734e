"""The faults of one party, what both ends notice of each, and how a run says that it failed."""

import logging

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from signald.sdk.trio import Disconnected, JobFailed, Resumed, WorkerJob, WorkerSession
from signald.testing import RunTooLong, SignaldCluster, StepKind, run, signald_test
from tests.testing.app.handlers import asks, shout
from tests.testing.app.test_deploys import told


@signald_test
async def test_a_cut_connection(cluster: SignaldCluster) -> None:
    """Both parties resume, and the conversation goes on."""
    async with cluster.worker(shout) as worker, cluster.client() as client:
        await asks(client, "1")
        await cluster.cut(client)
        await cluster.cut(worker)
        await asks(client, "2")
        notices = [type(event) for event in told(client) if isinstance(event, Disconnected | Resumed)]
        assert notices == [Disconnected, Resumed]
        assert client.connections == 2


@signald_test
async def test_a_tunnel(cluster: SignaldCluster) -> None:
    """A short one only delays; a long one costs the connection, and no message."""
    async with cluster.worker(shout), cluster.client(name="traveller") as client:
        await asks(client, "1")
        for seconds, connections in ((2.0, 1), (120.0, 2)):
            await cluster.stall("traveller", seconds)
            at = trio.current_time()
            await asks(client, "through")
            assert client.connections == connections
            assert trio.current_time() - at >= 2.0


@signald_test
async def test_delay(cluster: SignaldCluster) -> None:
    """A round trip takes longer, until the delay is ended, over new connections as well."""
    async with cluster.worker(shout), cluster.client() as client:
        await asks(client, "1")
        await cluster.delay(client, 4.0)
        await cluster.cut(client)
        at = trio.current_time()
        await asks(client, *[str(number) for number in range(5)])
        assert trio.current_time() - at > 1.0
        await cluster.delay(client, 0.0)
        await trio.sleep(10)
        at = trio.current_time()
        await asks(client, "2")
        assert trio.current_time() == at


@signald_test
async def test_a_slow_client_holds_up_its_worker(cluster: SignaldCluster) -> None:
    """What waits for the client is bounded, so the handler's `send` waits; all of it arrives in the end."""
    count, size = 60, 50_000
    sent: list[float] = []

    async def flood(session: WorkerSession) -> None:
        async for _ in session:
            for number in range(count):
                await session.send([number, "x" * size])
                sent.append(trio.current_time())

    async with cluster.worker(flood), cluster.client() as client:
        await client.send("go")
        await cluster.slow(client, 100_000)
        assert [(await anext(client)).data[0] for _ in range(count)] == list(range(count))
        assert trio.current_time() >= count * size / 100_000
        await cluster.slow(client, 0)
        at = trio.current_time()
        await client.send("again")
        assert (await anext(client)).data[0] == 0
        assert trio.current_time() - at < 5


@signald_test
async def test_a_lost_answer(cluster: SignaldCluster) -> None:
    """The worker gets the message once, though its ack was lost and the client has sent it again."""
    got: list[str] = []

    async def count(session: WorkerSession) -> None:
        async for message in session:
            got.append(message.data)
            await session.send(message.data.upper())

    async with cluster.worker(count), cluster.client() as client:
        await asks(client, "1")
        await cluster.lose_answer(client)
        await asks(client, "2")
        await asks(client, "3")
        assert got == ["1", "2", "3"]
        assert client.connections == 2


@signald_test
async def test_jobs_streams_rooms_and_blobs_over_a_deploy(cluster: SignaldCluster) -> None:
    """All that the SDK does works in the cluster."""

    async def add(job: WorkerJob) -> object:
        await trio.sleep(2)
        if job.data is None:
            raise ValueError("nothing to add")
        return sum(job.data)

    async def tell(session: WorkerSession) -> None:
        async for message in session:
            async with session.stream() as out:
                for word in message.data.split():
                    await out.write(word)
                    await trio.sleep(1)

    async with cluster.worker(tell, on_job={"add": add}), cluster.client(jobs=True) as client:
        job, failing = await client.submit("add", [1, 2, 3]), await client.submit("add", None)
        await client.send("a b c")
        async with client.room("board", state=True) as room:
            await room.patch("shape", {"x": 1})
            blob = await client.upload(b"audio", content_type="audio/ogg")
            await cluster.deploy()
            assert await job.result() == 6
            with pytest.raises(JobFailed):
                await failing.result()
            while (text := next(iter(client.streams.values()))).outcome is None:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                await trio.sleep(1)
            assert (text.text, text.outcome) == ("abc", "complete")
            assert room.records["shape"]["x"] == 1
            assert await client.blob(blob.id).read() == b"audio"
        assert len(client.api_token) > 20
        assert "token=" not in cluster.transcript()
        for secret in (client.recovery_token.rpartition(".")[2], client.api_token.rpartition(".")[2]):
            assert secret[:12] not in cluster.transcript()


async def broken(_session: WorkerSession) -> None:
    """Fail."""
    raise LookupError("broken handler")


def test_an_error_of_a_handler_comes_out() -> None:
    """It comes out behind the worker's block, as it is; `may_raise` keeps it in the list."""

    async def scene(cluster: SignaldCluster) -> None:
        async with cluster.worker(broken, may_raise=True) as worker, cluster.client() as client:
            await client.send("1")
            await trio.sleep(1)
        assert isinstance(worker.errors[0], LookupError)
        async with cluster.worker(broken), cluster.client() as client:
            await client.send("1")
            await trio.sleep(1)

    with pytest.raises(LookupError, match="broken handler"):
        run(scene)


def test_a_failure_tells_its_seed_and_its_transcript() -> None:
    """The error of the test comes out as it is, with a note."""

    async def scene(cluster: SignaldCluster) -> None:
        async with cluster.worker(shout), cluster.client() as client:
            await client.send("1")
            cluster.note("now it fails")
            assert (await anext(client)).data == "2"

    with pytest.raises(AssertionError) as failed:
        run(scene, seed=5)
    note = failed.value.__notes__[-1]
    assert "SIGNALD_SEED=5" in note
    assert "test         now it fails" in note
    assert "client-1     ◂ node-1 message seq=1 data=1" in note


def test_a_test_that_waits_in_vain_ends() -> None:
    """After its time, though the parties ping one another for ever."""

    async def scene(cluster: SignaldCluster) -> None:
        async with cluster.client() as client:
            await anext(client)

    async def held(cluster: SignaldCluster) -> None:
        async with cluster.worker(shout), cluster.client() as client:
            async for step in cluster.deploying():
                if step.kind is StepKind.WORKER_RESUMED:
                    await asks(client, "of a worker that hears nothing")

    with pytest.raises(RunTooLong, match="within 30 s of its clock\n"):
        run(scene, within_s=30)
    with pytest.raises(RunTooLong, match="while the step worker_resumed node-2 worker-1 was held"):
        run(held)


def test_the_environment_names_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before that of the program; what is no number is refused."""

    async def scene(cluster: SignaldCluster) -> None:
        async with cluster.client():
            pass

    expected = run(scene, seed=4)
    monkeypatch.setenv("SIGNALD_SEED", "4")
    assert run(scene, seed=3) == expected
    monkeypatch.setenv("SIGNALD_SEED", "four")
    with pytest.raises(ValueError, match="four"):
        run(scene)


def test_loggers_of_other_programs_are_left_alone() -> None:
    """What nodes log is in the transcript and nowhere else; a program's own lines go their way, and the settings come back."""
    before = structlog.get_config()

    async def scene(cluster: SignaldCluster) -> None:
        structlog.get_logger("app").info("of the app")
        assert "is ready" in cluster.transcript()
        assert "of the app" not in cluster.transcript()
        async with cluster.worker(broken, may_raise=True), cluster.client() as client:
            await client.send("1")
            await trio.sleep(1)
        assert "logs worker_registered" in cluster.transcript()
        assert "LookupError('broken handler')" in cluster.transcript()

    with capture_logs() as caught:
        run(scene)
    assert [line["event"] for line in caught] == ["of the app"]
    assert structlog.get_config() == before
    assert not logging.getLogger("signald.sdk").handlers
