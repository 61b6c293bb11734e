"""The public cluster in memory: deploys, kills and losses, as the author of a handler sees them, and its steps one by one."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from signald.sdk.trio import Client, HandedOver, LifecycleEvent, Replaced, WorkerSession
from signald.testing import Deploying, SignaldCluster, Step, StepKind, run, signald_test
from tests.testing.app.handlers import asks, shout

ROOT = Path(__file__).parents[3]

MOVES_OF_A_WORKER = [StepKind.WORKER_GOAWAY, StepKind.WORKER_RESUMED]
MOVES_OF_A_CLIENT = [StepKind.CLIENT_GOAWAY, StepKind.CLIENT_RESUMED]


def told(client: Client) -> list[LifecycleEvent]:
    """The events that the client was told of so far."""
    return list(iter(client.events.receive_nowait, None))


async def story(cluster: SignaldCluster) -> None:
    """Everything that can happen to a conversation."""
    async with cluster.worker(shout) as worker, cluster.client() as client, cluster.client() as other:
        await asks(client, "one", "two")
        sent = []
        async for step in cluster.deploying():
            sent.append(step.kind.value)
            await other.send(sent[-1])
        assert [(await anext(other)).data for _ in sent] == [one.upper() for one in sent]
        await cluster.kill()
        await asks(client, "three")
        await trio.sleep(5)  # until both clients are attached: without them the sessions are lost with the store
        await cluster.lose_store()
        await asks(other, "four")
        await cluster.lose_answer(client)
        await asks(client, "five")
        await cluster.rollback()
        await worker.crash()
        await asks(client, "six")


@signald_test
async def test_a_handler_survives_a_deploy(cluster: SignaldCluster) -> None:
    """The same session, on another node, and its client was told that it was handed over."""
    async with cluster.worker(shout) as worker, cluster.client() as client:
        await asks(client, "before")
        session, nodes = client.session, cluster.nodes
        await cluster.deploy()
        await asks(client, "after")
        assert client.session == session
        assert cluster.nodes != nodes
        assert told(client).count(HandedOver(None)) == 1
        assert worker.lives == 1


@pytest.mark.long
def test_a_seed_repeats_a_run_byte_for_byte() -> None:
    """Two processes with different hash seeds write one transcript; another seed, another one."""
    program = (
        "from signald.testing import run; from tests.testing.app.test_deploys import story; print(run(story, seed=7))"
    )
    environment = {"PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True, timeout=120, text=True)
    assert ended.stdout == f"{run(story, seed=7)}\n"
    assert run(story, seed=8) != run(story, seed=7)


async def steps_of(deploying: Deploying) -> list[Step]:
    """Go through all steps."""
    return [step async for step in deploying]


@signald_test
async def test_a_deploy_step_by_step(cluster: SignaldCluster) -> None:
    """The worker moves first, then each client; a node begins and ends it."""
    async with cluster.worker(shout, name="w"), cluster.client(name="a") as a, cluster.client(name="b") as b:
        await asks(a, "1")
        await asks(b, "2")
        steps = await steps_of(cluster.deploying())
        assert [step.kind for step in steps if step.party == "w"] == MOVES_OF_A_WORKER
        for name in "ab":
            moves = [step for step in steps if step.party == name]
            assert [step.kind for step in moves] == MOVES_OF_A_CLIENT
            assert [step.node for step in moves] == ["node-1", "node-2"]
        nodes = [step for step in steps if not step.party]
        assert [(step.kind, step.node) for step in nodes] == [
            (StepKind.NODE_READY, "node-2"),
            (StepKind.DRAIN_BEGUN, "node-1"),
            (StepKind.NODE_EXITED, "node-1"),
        ]
        assert steps.index(nodes[-1]) == len(steps) - 1
        first_client = next(index for index, step in enumerate(steps) if step.kind is StepKind.CLIENT_GOAWAY)
        assert steps[first_client - 1].kind is StepKind.WORKER_RESUMED


@signald_test
async def test_a_step_waits_for_the_test(cluster: SignaldCluster) -> None:
    """While a step is shown no time passes by itself, and its frame does not arrive, however long the test waits."""
    async with cluster.worker(shout), cluster.client() as client:
        await asks(client, "1")
        async for step in cluster.deploying():
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            assert trio.current_time() == step.at_s
            if step.kind is StepKind.CLIENT_GOAWAY:
                before = client.connections
                await trio.sleep(2.0)
                assert client.connections == before
        assert HandedOver(None) in told(client)


@signald_test
async def test_a_message_in_mid_move(cluster: SignaldCluster) -> None:
    """In each step a message is answered or kept: none is lost, doubled or overtaken."""
    async with cluster.worker(shout), cluster.client() as client:
        sent = []
        async for step in cluster.deploying():
            sent.append(step.kind.value)
            await client.send(sent[-1])
        assert [(await anext(client)).data for _ in sent] == [one.upper() for one in sent]
        with trio.move_on_after(5):
            raise AssertionError(await anext(client))


@signald_test
async def test_a_loop_that_is_left_early(cluster: SignaldCluster) -> None:
    """Behind the block the rest of the deploy has taken place; without the block the next deploy is refused until it has."""
    async with cluster.worker(shout), cluster.client() as client:
        async with cluster.deploying() as steps:
            assert (await anext(steps)).kind is StepKind.NODE_READY
        assert cluster.nodes == ["node-2"]
        steps = cluster.deploying()
        await anext(steps)
        with pytest.raises(RuntimeError, match="under way"):
            await cluster.deploy()
        await steps.finish()
        await cluster.deploy()
        await asks(client, "still there")


@signald_test
async def test_steps_that_wait_are_let_go(cluster: SignaldCluster) -> None:
    """Leaving the loop lets go the step that is shown, and those behind it: no party waits for its budget."""
    async with cluster.worker(shout), cluster.client() as a, cluster.client() as b:
        await asks(a, "1")
        async with cluster.deploying() as steps:
            async for step in steps:
                if step.kind is StepKind.CLIENT_GOAWAY:
                    await trio.sleep(1)  # the other client is told meanwhile, and held too
                    break
            left_at = trio.current_time()
        assert trio.current_time() - left_at < 2
        assert (a.connections, b.connections) == (2, 2)


@signald_test
async def test_a_node_that_drains_gets_no_new_connection(cluster: SignaldCluster) -> None:
    """From SIGTERM on all that connect reach the other node."""
    async with cluster.worker(shout), cluster.client() as client:
        await asks(client, "1")
        async for step in cluster.deploying():
            if step.kind is StepKind.WORKER_GOAWAY:  # held, it keeps the node before from its exit
                assert cluster.nodes == ["node-1", "node-2"]
                for _ in range(8):
                    async with cluster.client() as late:
                        assert late.connections == 1
        assert cluster.transcript().count("to node-1") == 2


@signald_test
async def test_a_rollback_in_the_middle_of_a_deploy(cluster: SignaldCluster) -> None:
    """Parties that have moved move back, those that have not go straight to the node of the release before."""
    with pytest.raises(ValueError, match="no release before"):
        await cluster.rollback()
    async with cluster.worker(shout), cluster.client() as client:
        await asks(client, "1")
        async for step in cluster.deploying():
            if step.kind is StepKind.CLIENT_GOAWAY:
                await cluster.rollback()
        assert cluster.nodes == ["node-3"]
        assert "node-3       is ready, release r1" in cluster.transcript()
        await asks(client, "2")


@signald_test(nodes=2)
async def test_a_killed_node_of_two(cluster: SignaldCluster) -> None:
    """Without a replacement the other node takes all parties; one that does not run cannot be killed."""
    async with cluster.worker(shout), cluster.client() as a, cluster.client() as b:
        await cluster.kill(cluster.nodes[0], replaced_after_s=None)
        assert cluster.nodes == ["node-2"]
        for client in (a, b):
            await asks(client, "1", "2")
        with pytest.raises(ValueError, match="node-1"):
            await cluster.kill("node-1")


@signald_test(nodes=3)
async def test_a_deploy_of_three_nodes(cluster: SignaldCluster) -> None:
    """One node after the other is replaced."""
    async with cluster.worker(shout, name="a"), cluster.worker(shout, name="b"), cluster.client() as client:
        await asks(client, "1")
        await cluster.deploy()
        assert cluster.nodes == ["node-4", "node-5", "node-6"]
        await asks(client, "2")


@signald_test
async def test_a_store_that_comes_back_empty(cluster: SignaldCluster) -> None:
    """Live sessions go on with their positions, over the next deploy as well."""
    async with cluster.worker(shout), cluster.client() as client:
        await asks(client, "1")
        await cluster.lose_store()
        await asks(client, "2")
        await cluster.deploy()
        await asks(client, "3")


@signald_test
async def test_a_store_that_is_away(cluster: SignaldCluster) -> None:
    """Nothing is answered meanwhile, and everything afterwards, once."""
    async with cluster.worker(shout), cluster.client() as client:
        for outage in ("down", "answers lost"):
            async with cluster.store_away(outage):
                await client.send(outage)
                with trio.move_on_after(3):
                    raise AssertionError(await anext(client))
            assert (await anext(client)).data == outage.upper()


@signald_test
async def test_a_worker_that_crashes(cluster: SignaldCluster) -> None:
    """Its session goes to the next process, with the message that it had not finished and the attempt counted."""
    attempts: list[tuple[str, int]] = []

    async def stuck_once(session: WorkerSession) -> None:
        async for message in session:
            attempts.append((message.data, session.attempt))
            if session.attempt == 1:
                await trio.sleep_forever()
            await session.send("done")

    async with cluster.worker(stuck_once) as worker, cluster.client() as client:
        await client.send("work")
        await trio.sleep(1)
        await worker.crash()
        assert (await anext(client)).data == "done"
        assert attempts == [("work", 1), ("work", 2)]
        assert any(isinstance(event, Replaced) for event in told(client))
        await worker.crash(restarts_after_s=None)
        with pytest.raises(RuntimeError, match="no process"):
            await worker.leave()
        await worker.start()
        assert worker.lives == 3


@signald_test
async def test_a_worker_that_leaves(cluster: SignaldCluster) -> None:
    """It waits for its sessions to end."""
    async with cluster.worker(shout) as worker:
        async with cluster.client() as client:
            await asks(client, "1")
            await client.bye()
        await worker.leave()
        assert worker.worker is None
