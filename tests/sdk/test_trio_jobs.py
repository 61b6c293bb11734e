"""Jobs at a worker of the SDK, against whole nodes in one virtual time."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.trio import Client, Worker, WorkerJob, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.service.api.test_jobs import Api


async def idle(session: WorkerSession) -> None:
    """Serve a session that has jobs only."""
    async for _ in session:
        pass


class Scene:
    """A client and what it asks of a node over HTTP."""

    def __init__(self, cluster: Cluster, balancer: Balancer, client: Client) -> None:
        self.cluster = cluster
        self.balancer = balancer
        self.client = client

    @property
    def api(self) -> Api:
        """The API with the newest token."""
        return Api(self.cluster, self.client.api_token)

    async def submit(self, key: str, kind: str = "tts", data: Any = None, **more: Any) -> str:
        """Submit a job; return its id."""
        answer = await self.api.submit(self.balancer.target, key, kind, data, **more)
        assert answer.status == 202, answer
        return str(answer.json()["job"])

    async def ended(self, job: str) -> Any:
        """Return a job as it has ended."""
        with trio.fail_after(120):
            while True:
                answer = await self.api.ask(self.balancer.target, "GET", f"/v1/jobs/{job}")
                shown = answer.json()
                if answer.status == 200 and shown["state"] not in ("queued", "running"):
                    return shown
                await trio.sleep(0.1)

    async def deploy(self, number: int) -> None:
        """Replace the node by the next one."""
        await self.cluster.start(f"n{number}")
        self.balancer.target = f"n{number}"
        self.cluster.nodes[f"n{number - 1}"].shutdown.signal()


@asynccontextmanager
async def worker_of(balancer: Balancer, on_job: Any, name: str = "w", **more: Any) -> AsyncIterator[Worker]:
    """A worker that does jobs."""
    options = {"instance_id": name, "capacity": 9, "dial": balancer.dial, "entropy": SeededEntropy(len(name)), **more}
    async with open_worker("ws://lb", idle, on_job=on_job, **options) as worker:
        yield worker


@asynccontextmanager
async def scene_of(cluster: Cluster, on_job: Any) -> AsyncIterator[Scene]:
    """A node, a worker that does jobs, and a client."""
    await cluster.start("n0")
    balancer = Balancer(cluster, "n0")
    async with (
        worker_of(balancer, on_job),
        open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(9), api=True) as client,
    ):
        await trio.sleep(1)
        yield Scene(cluster, balancer, client)


def test_each_end_of_a_job() -> None:
    """A value or bytes that a handler returns, a text that it says, an error of its own and one that it lets out."""

    async def returns(job: WorkerJob) -> Any:
        await job.progress({"percent": 50})
        return {"said": job.data, "kind": job.kind, "attempt": job.attempt}

    async def gives_bytes(job: WorkerJob) -> None:
        await job.result(b"\x00\xff", content_type="audio/ogg")

    async def grows(job: WorkerJob) -> None:
        async with job.stream() as out:
            for word in ("a ", "b ", "c"):
                await out.write(word)

    async def fails(job: WorkerJob) -> None:
        await job.fail("no_voice", "there is no such voice")

    async def breaks(_: WorkerJob) -> None:
        raise RuntimeError("a secret of the program")

    async def says_nothing_of_json(_: WorkerJob) -> Any:
        return {1, 2}

    async def scene(cluster: Cluster) -> None:
        handlers = {"a": returns, "b": gives_bytes, "c": grows, "d": fails, "e": breaks, "f": says_nothing_of_json}
        async with scene_of(cluster, handlers) as at:
            jobs = [await at.submit(kind, kind, {"x": kind}) for kind in handlers]
            value, blob, text, failed, broken, odd = [await at.ended(job) for job in jobs]
            assert value["result"] == {"said": {"x": "a"}, "kind": "a", "attempt": 1}
            assert value["progress"] == {"percent": 50}
            answer = await at.api.ask("n0", "GET", blob["result_url"])
            assert (answer.body, answer.headers["content-type"]) == (b"\x00\xff", "audio/ogg")
            assert text["result"] == "a b c"
            assert failed["error"] == {"code": "no_voice", "message": "there is no such voice"}
            assert broken["error"] == {"code": "handler_failed", "message": "the worker could not do it"}
            assert odd["error"]["code"] == "bad_result"
            other = await at.ended(await at.submit("g", "g"))
            assert other["error"]["code"] == "kind_not_taken"

    play(scene)


@pytest.mark.long
def test_three_deploys_cost_no_attempt() -> None:
    """Each job runs once, in the worker that got it, over all moves; results said while it moves come once."""
    runs: Counter[str] = Counter()

    async def work(job: WorkerJob) -> Any:
        runs[job.id] += 1
        for step in range(20):
            await job.progress(step)
            await trio.sleep(0.1)
        return job.data

    async def scene(cluster: Cluster) -> None:
        async with scene_of(cluster, work) as at:
            jobs: dict[str, int] = {}
            number = 0
            for deploy in range(1, 4):
                for _ in range(8):
                    await trio.sleep(0.37)
                    number += 1
                    jobs[await at.submit(f"k{number}", data=number)] = number
                await at.deploy(deploy)
            for job, data in jobs.items():
                shown = await at.ended(job)
                assert (shown["state"], shown["result"], shown["attempt"]) == ("succeeded", data, 1)
            assert runs == dict.fromkeys(jobs, 1)

    play(scene)


def test_asked_to_end() -> None:
    """The handler is told, and ends the job as cancelled by returning; at a deadline it is cancelled itself."""
    seen: list[str] = []

    async def waits(job: WorkerJob) -> None:
        try:
            await job.cancelled.wait()
            seen.append(job.reason)
        except trio.Cancelled:
            seen.append("cut")
            raise

    async def scene(cluster: Cluster) -> None:
        async with scene_of(cluster, waits) as at:
            job = await at.submit("one")
            await trio.sleep(1)
            assert (await at.api.ask("n0", "DELETE", f"/v1/jobs/{job}")).status == 202
            assert (await at.ended(job))["state"] == "cancelled"
            late = await at.submit("two", deadline_ms=2000)
            assert (await at.ended(late))["state"] == "expired"
            await trio.sleep(1)
            assert seen == ["requested", "cut"]

    play(scene)


def test_the_next_worker_does_it_anew() -> None:
    """A worker that dies over a job leaves it, under the next attempt, to another one; one whose session ends is cancelled."""
    seen: list[object] = []

    async def first(job: WorkerJob) -> None:
        seen.append(("first", job.attempt))
        await trio.sleep_forever()

    async def second(job: WorkerJob) -> Any:
        seen.append(("second", job.attempt))
        if job.data == "for ever":
            try:
                await trio.sleep_forever()
            finally:
                seen.append("ended")
        return "done"

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(9), api=True) as client:
            at = Scene(cluster, balancer, client)
            job = await at.submit("one")
            async with worker_of(balancer, first):
                await trio.sleep(1)
            async with worker_of(balancer, second, "w2"):
                assert (await at.ended(job))["result"] == "done"
                await at.submit("two", data="for ever")
                await trio.sleep(1)
                await client.bye()
                await trio.sleep(1)
        assert seen == [("first", 1), ("second", 2), ("second", 1), "ended"]

    play(scene)
