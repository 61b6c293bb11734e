"""Blobs, jobs, history and events of a client in JavaScript at real nodes: a deploy and a kill beneath it cost nothing."""

import json
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from signald.sdk.trio import WorkerJob, WorkerSession, open_worker
from tests.js.package import NODE, bundled
from tests.real.harness import QUICK, Address, Nodes, exit_of, kill, open_nodes, term, until

pytestmark = pytest.mark.real

PIECE_S = 0.02
"""Between two numbers of a text, so that a deploy comes in its midst."""


async def serve(session: WorkerSession) -> None:
    """Answer nothing: the session is there for its jobs."""
    async for _ in session:
        pass


async def count(job: WorkerJob) -> None:
    """Say the numbers, one behind the other."""
    async with job.stream(roll_up_s=0) as text:
        for number in range(1, job.data["to"] + 1):
            await text.write(f" {number}" if number > 1 else "1")
            await trio.sleep(PIECE_S)


async def beneath(nodes: Nodes, first: Node, here: Address, there: Address, output: Path) -> trio.Process:
    """Start a client, deploy a node and kill one beneath it; return the client, which was asked to end."""
    program = str(bundled("test/asking.ts"))
    asking = await nodes.spawn_program([NODE, program, here.url, there.url], output)
    await until(lambda: "talking" in output.read_text(), 30, str(output))
    await trio.sleep(1)
    second = await nodes.start("node-1", there)
    term(first)
    assert await exit_of(first) == 0
    await trio.sleep(1)
    await nodes.start("node-2", here)
    await kill(second)
    await trio.sleep(1)
    asking.terminate()
    return asking


async def test_requests_go_through_a_deploy_and_a_kill(tmp_path: Path) -> None:
    """Each blob comes back as it was, each job was done once and its text is whole; then its events, and the history."""
    here, there = Address(), Address()
    output = tmp_path / "asking.out"
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        first = await nodes.start("node-0", here)
        urls = [here.url, there.url]
        async with open_worker(urls, serve, instance_id="w", on_job={"count": count}, backoff=QUICK):
            asking = await beneath(nodes, first, here, there, output)
            with trio.move_on_after(90):
                await asking.wait()
    said = output.read_text()
    assert asking.returncode == 0, said[-3000:]
    told = json.loads(said.splitlines()[-1])
    assert told["wrong"] == []
    assert told["rounds"] >= 3
    assert len(set(told["jobs"])) == told["rounds"]
    assert set(told["listed"]) == set(told["jobs"])
    assert told["messages"] == 0
    texts = [" ".join(str(one + 1) for one in range(number)) for number in range(told["rounds"], 0, -1)]
    assert "".join(told["events"]) == texts[0] + "end: succeeded"
    assert told["history"] == [*(["worker", text] for text in texts), ["client", "hello"]]
