"""Deploys of a worker in the public cluster: what is handed over, to which release of the handler, and the steps one by one."""

import pytest
import trio

from signald.sdk.trio import Client, Handler, Leave, LifecycleEvent, Mode, Replaced, WorkerSession
from signald.testing import SignaldCluster, StepKind, signald_test
from tests.testing.app.handlers import asks, shout

STEPS = [StepKind.WORKER_READY, StepKind.WORKER_LEAVES, StepKind.CLIENT_REPLACED, StepKind.WORKER_EXITED]


async def count(session: WorkerSession) -> None:
    """Answer the sum so far, which the next worker goes on with."""
    total = session.state or 0
    async for message in session:
        total += message.data
        session.keep(total)
        await session.send(total)


def replaced(client: Client) -> list[LifecycleEvent]:
    """What the client was told of another worker so far."""
    return [event for event in iter(client.events.receive_nowait, None) if isinstance(event, Replaced)]


@signald_test
async def test_a_worker_that_is_deployed(cluster: SignaldCluster) -> None:
    """The next process has the session and its state at once, and the one before has ended; no node has changed."""
    async with cluster.worker(count) as worker, cluster.client() as client:
        await client.send(2)
        assert (await anext(client)).data == 2
        first, began = worker.worker, trio.current_time()
        await worker.deploy()
        assert trio.current_time() - began < 1
        assert (worker.lives, cluster.nodes) == (2, ["node-1"])
        assert worker.worker is not None
        assert first is not None
        assert first.over
        await client.send(3)
        assert (await anext(client)).data == 5
        assert replaced(client) == [Replaced(worker.worker.worker)]
        assert client.connections == 1
        assert "worker-1     process 1 has exited" in cluster.transcript()


@signald_test
async def test_the_next_release_of_a_handler(cluster: SignaldCluster) -> None:
    """It goes on in the text that the release before has begun, and stays the handler of the processes behind it."""

    def saying(word: str) -> Handler:
        async def answer(session: WorkerSession) -> None:
            async for message in session:
                async with session.stream(f"answer-{message.seq}", go_on=True) as out:
                    for _ in range(len(out.said), 6):
                        await out.write(word)
                        await trio.sleep(1)

        return answer

    async with cluster.worker(saying("a")) as worker, cluster.client() as client:
        await client.send("tell")
        await trio.sleep(2.5)
        await worker.deploy(saying("b"))
        text = ""
        while not (piece := await anext(client)).end:
            assert piece.attempt == 1
            text += piece.data
        assert text == "aaaabb"
        await worker.crash()
        await client.send("again")
        while not (piece := await anext(client)).end:
            assert piece.data == "b"


@signald_test
async def test_a_deploy_of_a_worker_step_by_step(cluster: SignaldCluster) -> None:
    """In each step a message is answered or kept, and while the frame to the client is held, it is told nothing."""
    async with cluster.worker(count, name="w") as worker, cluster.client(name="c") as client:
        await client.send(1)
        assert (await anext(client)).data == 1
        kinds = []
        async for step in worker.deploying():
            kinds.append(step.kind)
            assert step.party == ("c" if step.kind is StepKind.CLIENT_REPLACED else "w")
            await client.send(1)
            if step.kind is StepKind.CLIENT_REPLACED:
                await trio.sleep(3)
                assert not replaced(client)
        assert kinds == STEPS
        assert [(await anext(client)).data for _ in kinds] == [2, 3, 4, 5]
        assert replaced(client)


@signald_test
async def test_a_loop_over_a_worker_that_is_left_early(cluster: SignaldCluster) -> None:
    """Behind the block the process before has ended; meanwhile no deploy of signald begins."""
    async with cluster.worker(shout) as worker, cluster.client() as client:
        await asks(client, "1")
        async with worker.deploying() as steps:
            assert (await anext(steps)).kind is StepKind.WORKER_READY
            with pytest.raises(RuntimeError, match="under way"):
                await cluster.deploy()
        assert worker.lives == 2
        assert "process 1 has exited" in cluster.transcript()
        await cluster.deploy()
        await asks(client, "2")


@signald_test
async def test_a_worker_and_signald_at_the_same_time(cluster: SignaldCluster) -> None:
    """Neither deploy waits for the other for long, and each answer comes once."""
    async with cluster.worker(shout) as worker, cluster.client() as client:
        await asks(client, "1")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.deploy)
            nursery.start_soon(worker.deploy)
            await asks(client, "2", "3")
        assert trio.current_time() - began < 10
        await asks(client, "4")
        assert (worker.lives, cluster.nodes) == (2, ["node-2"])


@signald_test
async def test_a_handler_that_comes_to_no_good_moment(cluster: SignaldCluster) -> None:
    """It is waited for as `leave` says; then the next process gets its message again, which is no failure of the message."""
    attempts: list[int] = []

    async def stuck(session: WorkerSession) -> None:
        async for _ in session:
            attempts.append(session.attempt)
            await trio.sleep_forever()

    async with cluster.worker(stuck) as worker, cluster.client() as client:
        await client.send("work")
        await trio.sleep(1)
        for leave, least_s in ((Leave(graceful_s=4.0), 4.0), (Leave(Mode.IMMEDIATE), 0.0)):
            began = trio.current_time()
            await worker.deploy(leave=leave)
            assert least_s <= trio.current_time() - began < least_s + 1
        await trio.sleep(1)
        assert len(attempts) == 3


@signald_test
async def test_a_worker_that_does_not_run_is_not_deployed(cluster: SignaldCluster) -> None:
    """At once, and where the steps are read."""
    async with cluster.worker(shout) as worker:
        await worker.crash(restarts_after_s=None)
        with pytest.raises(RuntimeError, match="no process of worker-1 runs"):
            await worker.deploy()
        with pytest.raises(RuntimeError, match="no process of worker-1 runs"):
            await anext(worker.deploying())
        await worker.start()
        await worker.deploy()
