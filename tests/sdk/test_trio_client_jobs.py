"""Jobs of a client of the SDK, against whole nodes in one virtual time."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.trio import ApiRefused, Client, JobFailed, WorkerJob, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.sdk.test_trio_jobs import worker_of


@asynccontextmanager
async def client_of(balancer: Balancer, **more: Any) -> AsyncIterator[Client]:
    """A client that submits jobs."""
    options = {"dial": balancer.dial, "open_stream": balancer.open_stream, "entropy": SeededEntropy(9), **more}
    async with open_client("ws://lb", jobs=True, **options) as client:
        yield client


async def work(job: WorkerJob) -> Any:
    """Do as the input says."""
    match job.kind:
        case "echo":
            return job.data
        case "text":
            async with job.stream() as out:
                for word in job.data:
                    await out.write(word)
                    await trio.sleep(0.1)
        case "parts":
            for part in job.data:
                await job.part(part)
        case "fail":
            await job.fail("no_voice", "there is none")
        case _:
            await job.progress({"percent": 10})
            await job.cancelled.wait()
    return None


def test_submitted_and_answered() -> None:
    """JSON, bytes and a text that grows come back; parts come as they are said; a failure raises, a cancelled job too."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with worker_of(balancer, work), client_of(balancer) as client:
            with trio.fail_after(60):
                assert await (await client.submit("echo", {"a": [1, None]})).result() == {"a": [1, None]}
                assert (
                    await (await client.submit("echo", b"\x00\xff", content_type="audio/ogg")).result() == b"\x00\xff"
                )
                text = await client.submit("text", ["a ", "b ", "c"])
                assert "".join([part.data async for part in text]) == "a b c"
                assert (await text.result(), text.state, text.attempt) == ("a b c", "succeeded", 1)
                parts = await client.submit("parts", [1, b"x".hex(), {"y": 2}])
                assert [part.data async for part in parts] == [1, "78", {"y": 2}]
                with pytest.raises(JobFailed) as failed:
                    await (await client.submit("fail")).result()
                assert (failed.value.state, failed.value.code) == ("failed", "no_voice")
                waits = await client.submit("wait")
                await trio.sleep(1)
                assert (waits.state, waits.progress) == ("running", {"percent": 10})
                await waits.cancel()
                with pytest.raises(JobFailed) as cancelled:
                    await waits.result()
                assert cancelled.value.state == "cancelled"
                late = await client.submit("wait", deadline_s=2)
                with pytest.raises(JobFailed) as expired:
                    await late.result()
                assert expired.value.state == "expired"

    play(scene)


def test_what_is_refused_raises() -> None:
    """With the fields of the problem; without `jobs`, and with a key that is none, nothing is asked."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with worker_of(balancer, work), client_of(balancer) as client:
            first = await client.submit("echo", 1, key="one")
            assert (await client.submit("echo", 1, key="one")).id == first.id
            with pytest.raises(ApiRefused) as refused:
                await client.submit("echo", 2, key="one")
            assert (refused.value.status, refused.value.type.rpartition("#")[2][-10:]) == (422, "key-reused")
            assert client.api_token not in str(refused.value)
            for wrong in ({"key": "a b"}, {"data": {1, 2}}, {"key": ""}):
                with pytest.raises(ValueError, match=r"key|JSON"):
                    await client.submit("echo", **wrong)
            assert await client.job(first.id).result() == 1
            with pytest.raises(ValueError, match="no id"):
                client.job("j_x_1")
        async with open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(8)) as plain:
            with pytest.raises(ValueError, match="jobs=True"):
                await plain.submit("echo")

    play(scene)


def test_messages_and_jobs_side_by_side() -> None:
    """The client's messages are the plain ones, in order and acked only as they are asked for; those of jobs hold nothing up."""

    async def talk(session: WorkerSession) -> None:
        async for message in session:
            await session.send(message.data)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with (
            open_worker("ws://lb", talk, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1), on_job=work),
            client_of(balancer) as client,
        ):
            with trio.fail_after(60):
                for number in range(5):
                    await client.send(number)
                    assert await (await client.submit("echo", number)).result() == number
                core = client._core.session
                # The application has asked for no message yet; that of the first job may have come before all of them.
                assert core.finished <= 1
                assert len(core.inbox) >= 5
                assert [(await anext(client)).data for _ in range(5)] == list(range(5))
                await client.send("last")
                assert (await anext(client)).data == "last"
                assert not core.inbox
                assert await (await client.submit("echo", "x")).result() == "x"

    play(scene)


def test_what_passes_is_asked_again() -> None:
    """A store that is away, a first request that is still being stored, a proxy without a node; too many jobs are told."""
    answers = [(503, "store-unavailable"), (502, ""), (409, "key-in-use"), (429, "rate")]
    keys: list[bytes] = []

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        async def opened(url: str, context: SSLContext | None) -> trio.abc.Stream:
            if not answers:
                return await balancer.open_stream(url, context)
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(answer, theirs, *answers.pop(0))
            return ours

        async def answer(stream: trio.abc.Stream, status: int, kind: str) -> None:
            keys.append(bytes(await stream.receive_some(65536)).partition(b"idempotency-key: ")[2].partition(b"\r")[0])
            body = b'{"type":"x#%b"}' % kind.encode()
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

        async with (
            trio.open_nursery() as nursery,
            worker_of(balancer, work),
            client_of(balancer, open_stream=opened) as client,
        ):
            with trio.fail_after(60):
                job = await client.submit("echo", 1)
                assert await job.result() == 1
                assert (len(keys), len(set(keys))) == (4, 1)
                answers.append((429, "jobs-full"))
                with pytest.raises(ApiRefused, match="429"):
                    await client.submit("echo", 1)

    play(scene)


@pytest.mark.long
def test_three_deploys_are_not_noticed() -> None:
    """Jobs submitted all the time, over connections that are cut and refused: each is made once, done once, and has its result."""
    runs: Counter[Any] = Counter()

    async def slow(job: WorkerJob) -> Any:
        runs[job.data] += 1
        await job.part("x")
        await trio.sleep(1.5)
        return job.data

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        opened = 0

        async def flaky(url: str, context: SSLContext | None) -> trio.abc.Stream:
            nonlocal opened
            opened += 1
            if opened % 5 == 0:
                raise ConnectionRefusedError
            stream = await balancer.open_stream(url, context)
            return Cut(stream) if opened % 3 == 0 else stream

        results: dict[int, object] = {}

        async def one(number: int) -> None:
            job = await client.submit("slow", number)
            assert "".join([str(part.data) for part in [part async for part in job]]) == f"x{number}"
            results[number] = await job.result()

        async with worker_of(balancer, slow), client_of(balancer, open_stream=flaky) as client:
            with trio.fail_after(120):
                async with trio.open_nursery() as nursery:
                    for number in range(40):
                        nursery.start_soon(one, number)
                        await trio.sleep(0.2)
                        if number % 12 == 6 and number < 36:
                            deploy = number // 12 + 1
                            await cluster.start(f"n{deploy}")
                            balancer.target = f"n{deploy}"
                            cluster.nodes[f"n{deploy - 1}"].shutdown.signal()
            assert client.connections == 4
        assert results == {number: number for number in range(40)}
        assert runs == dict.fromkeys(range(40), 1)

    play(scene)


class Cut(trio.abc.Stream):
    """A connection that breaks when the request has been written."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        """Wait until the node must have done it, and break."""
        await trio.sleep(0.2)
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        """Close."""
        await self.stream.aclose()
