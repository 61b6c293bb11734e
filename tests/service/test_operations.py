"""What an operator is told of jobs."""

from typing import Any

import pytest
import trio

from signald.ctl import show
from signald.errors import OperationRefused
from signald.testing.cluster import Cluster, play
from tests.service.test_jobs import submit


def test_jobs_of_a_session() -> None:
    """Any node lists them, the newest first and up to the limit, without what the parties have said in them."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        _, begun = await cluster.client("n1")
        session = begun["session"]
        for number in (1, 2, 3):
            await submit(cluster, "n1", session, number, data=b'"the input"')
        operations = cluster.nodes["n2"].operations
        answer = await operations.jobs_of(session, 2)
        assert ([one["job"][-2:] for one in answer["jobs"]], answer["more"]) == (["_3", "_2"], True)
        assert answer["jobs"][0].items() >= {"kind": "tts", "state": "queued", "attempt": 0, "ended_ms": 0}.items()
        assert "the input" not in str(answer)
        assert "and more" in show.jobs(answer)
        with pytest.raises(OperationRefused, match="nothing is known"):
            await operations.jobs_of("s_nobody", 2)

    play(scene)


def test_jobs_are_counted_once() -> None:
    """The sum over all nodes has each unfinished job of a session with a party once, and none that has ended."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")

        async def counts() -> list[Any]:
            answers = [await node.operations.jobs() for node in cluster.nodes.values()]
            assert "QUEUED" in show.job_counts(answers)
            return [(one["node"], one["states"], one["sessions"], one["uncounted"]) for one in answers]

        client, begun = await cluster.client("n1")
        for number in (1, 2):
            await submit(cluster, "n1", begun["session"], number)
        none = {"queued": 0, "running": 0}
        assert await counts() == [("n1", {"queued": 2, "running": 0}, 1, 0), ("n2", none, 0, 0)]
        worker, _ = await cluster.worker("n2", jobs=["*"])
        await worker.expect("session_assigned")
        await worker.send({"type": "session_accept", "session": begun["session"]})
        job = (await worker.expect("job"))["job"]
        await worker.expect("job")
        assert await counts() == [("n1", {"queued": 0, "running": 2}, 1, 0), ("n2", none, 0, 0)]
        last = {"stream": job, "end": True, "data": 1}
        await worker.send({"type": "message", "session": begun["session"], "seq": 1, **last})
        await trio.sleep(1)
        client.cut()
        await trio.sleep(1)
        assert await counts() == [("n1", none, 0, 0), ("n2", {"queued": 0, "running": 1}, 1, 0)]

    play(scene)
