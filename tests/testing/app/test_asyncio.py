"""The cluster for programs on asyncio, in real time over loopback: the same story, with the same names."""

import asyncio
import inspect

import pytest

import signald.testing
from signald.sdk.asyncio import WorkerSession, open_client
from signald.testing import asyncio as twin
from signald.testing.asyncio import SignaldCluster, StepKind, open_cluster, run, signald_test
from tests.testing.app.handlers import asks, shout

pytestmark = pytest.mark.real


def test_both_have_the_same_names() -> None:
    """But for the seed, which repeats nothing in real time, with the same options."""
    assert set(twin.__all__) == set(signald.testing.__all__)
    for name in ("open_cluster", "run"):
        here = set(inspect.signature(getattr(signald.testing, name)).parameters)
        assert here - set(inspect.signature(getattr(twin, name)).parameters) == {"seed"}


@signald_test(config={"worker": {"resume_timeout_s": 1.0}})
async def test_a_conversation_through_everything(cluster: SignaldCluster) -> None:
    """Deploys step by step, a kill, cuts, lost answers and a worker that crashes: each answer comes once, in order."""
    async with cluster.worker(shout, name="w") as worker, cluster.client(name="c") as client:
        await asks(client, "1")
        await cluster.deploy()
        await asks(client, "2")
        kinds = []
        async for step in cluster.deploying():
            kinds.append((step.kind, step.party))
            if step.kind is StepKind.CLIENT_GOAWAY:
                await client.send("mid")
                await asyncio.sleep(0.2)
                assert client.connections == 2
        assert (await anext(client)).data == "MID"
        assert kinds == [
            (StepKind.NODE_READY, ""),
            (StepKind.DRAIN_BEGUN, ""),
            (StepKind.WORKER_GOAWAY, "w"),
            (StepKind.WORKER_RESUMED, "w"),
            (StepKind.CLIENT_GOAWAY, "c"),
            (StepKind.CLIENT_RESUMED, "c"),
            (StepKind.NODE_EXITED, ""),
        ]
        await cluster.kill()
        await cluster.lose_answer(client)
        await asks(client, "3")
        await cluster.cut(worker)
        await asks(client, "4")
        await worker.crash()
        await asks(client, "5")
        assert worker.lives == 2
        kinds = [(step.kind, step.party) async for step in worker.deploying()]
        assert kinds == [
            (StepKind.WORKER_READY, "w"),
            (StepKind.WORKER_LEAVES, "w"),
            (StepKind.CLIENT_REPLACED, "c"),
            (StepKind.WORKER_EXITED, "w"),
        ]
        await asks(client, "6")
        assert worker.lives == 3
        assert "lose_answer c" in cluster.transcript()
        assert client.recovery_token not in cluster.transcript()


@signald_test
async def test_jobs_and_a_program_of_its_own(cluster: SignaldCluster) -> None:
    """HTTP goes through the same door, and any program reaches the cluster by an address."""

    async def double(job: object) -> object:
        await asyncio.sleep(0)
        return 2 * getattr(job, "data")  # noqa: B009 - a job of both event loops

    async with cluster.worker(shout, on_job=double), cluster.client(jobs=True) as client:
        job = await client.submit("double", 4)
        await cluster.deploy()
        assert await job.result() == 8
        async with open_client(await cluster.url("browser")) as browser:
            await asks(browser, "hello")
        assert "browser      opens browser#" in cluster.transcript()


def test_an_error_comes_out_as_it_is() -> None:
    """With a note; the thread of the nodes has ended by then."""

    async def broken(_session: WorkerSession) -> None:
        raise LookupError("broken handler")

    async def scene(cluster: SignaldCluster) -> None:
        async with cluster.worker(broken), cluster.client() as client:
            await client.send("1")
            await asyncio.sleep(0.3)

    with pytest.raises(LookupError) as failed:
        run(scene)
    assert "◂ node-1 session_assigned" in failed.value.__notes__[-1]


def test_a_cluster_that_has_ended_says_so() -> None:
    """A call behind its end, and a start that fails."""

    async def main() -> None:
        async with open_cluster() as cluster:
            pass
        with pytest.raises(RuntimeError, match="has ended"):
            await cluster.deploy()
        with pytest.raises(TypeError):
            async with open_cluster(config={"worker": {"no_such_key": 1}}):
                pass

    asyncio.run(main())
