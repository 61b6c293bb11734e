"""Voice messages of programs on the SDK, against whole nodes in one virtual time: uploaded, named, and read over deploys and kills."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.trio import ApiRefused, Client, Worker, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.sdk.test_trio_client_jobs import Cut
from tests.service.api.blob_asker import AUDIO, kept, media_of

VOICE = SeededEntropy(3).token_bytes(150_000)


@asynccontextmanager
async def client_of(balancer: Balancer, seed: int = 9, **more: Any) -> AsyncIterator[Client]:
    """A client that uploads and reads."""
    options = {"dial": balancer.dial, "open_stream": balancer.open_stream, "entropy": SeededEntropy(seed), **more}
    async with open_client("ws://lb", api=True, **options) as client:
        yield client


@asynccontextmanager
async def worker_of(balancer: Balancer, handler: Any, **more: Any) -> AsyncIterator[Worker]:
    """A worker that does so as well."""
    options = {"dial": balancer.dial, "open_stream": balancer.open_stream, "entropy": SeededEntropy(7), **more}
    async with open_worker("ws://lb", handler, instance_id="w", capacity=9, api=True, **options) as worker:
        yield worker


def answer_to(voice: bytes) -> bytes:
    """Return what the worker says to a voice message."""
    return voice[::-1]


async def speak(session: WorkerSession) -> None:
    """Answer each voice message with another one, recorded as it is said."""
    async for message in session:
        assert message.blob is not None

        async def said(voice: bytes) -> AsyncIterator[bytes]:
            for at in range(0, len(voice), 50_000):
                await trio.sleep(0.1)
                yield voice[at : at + 50_000]

        blob = await session.upload(said(answer_to(await message.blob.read())), content_type=AUDIO)
        await session.send({"to": message.data}, kind="voice", blob=blob)


def test_a_voice_message_and_its_answer() -> None:
    """Named by a message, read by the peer whole and in part, found again in the chat history, and removed by the client alone."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with worker_of(balancer, speak) as worker, client_of(balancer) as client:
            with trio.fail_after(60):
                voice = await client.upload(VOICE, content_type=AUDIO)
                await client.send({"n": 1}, blob=voice)
                answer = await anext(client)
                assert (answer.data, answer.kind) == ({"to": {"n": 1}}, "voice")
                assert answer.blob is not None
                assert answer.blob.id != voice.id
                assert await answer.blob.read() == answer_to(VOICE)
                async with answer.blob.open(140_000, 160_000) as stream:
                    assert (stream.size, stream.content_type) == (len(VOICE), AUDIO)
                    assert b"".join([piece async for piece in stream]) == answer_to(VOICE)[140_000:]
                assert (await client.upload(VOICE, content_type=AUDIO, key="k")).id == (
                    await client.upload(VOICE, content_type=AUDIO, key="k")
                ).id
                with pytest.raises(ApiRefused, match="422"):
                    await client.upload(VOICE[:5], content_type=AUDIO, key="k")
                (session,) = worker.sessions.values()
                with pytest.raises(ApiRefused) as refused:
                    await session.blob(voice).delete()
                assert refused.value.status == 403
                state = client.state()
        async with client_of(balancer, state=state, history=10) as again:
            (entry,) = [entry for entry in again.chat_history if "blob" in entry]
            assert entry["blob"] == voice.id
            assert await again.blob(entry["blob"]).read() == VOICE
            await again.blob(entry["blob"]).delete()
            with pytest.raises(ApiRefused, match="404"):
                await again.blob(entry["blob"]).read()

    play(scene)


def test_what_a_node_refuses() -> None:
    """A blob that is too long, one that is no one's here, a full shelf, and a node that keeps none: each with its own words."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0", blobs={"bytes_max": 200_000, "principal_bytes_max": 350_000})
        balancer = Balancer(cluster, "n0")
        async with client_of(balancer) as client, client_of(balancer, 10) as other:
            with trio.fail_after(60):
                blob = await client.upload(VOICE)
                with pytest.raises(ApiRefused) as refused:
                    await other.blob(blob).read()
                assert (refused.value.status, refused.value.type[-12:]) == (404, "unknown-blob")
                with pytest.raises(ApiRefused) as refused:
                    await client.upload(VOICE * 2)
                assert refused.value.status == 413
                await client.upload(VOICE)
                with pytest.raises(ApiRefused) as refused:
                    await client.upload(VOICE)
                assert (refused.value.status, refused.value.type[-10:]) == (429, "blobs-full")
                cluster.media = None
                await cluster.start("n1")
                balancer.target = "n1"
                cluster.nodes["n0"].shutdown.signal()
                await trio.sleep(20)
                with pytest.raises(ApiRefused) as refused:
                    await client.upload(VOICE)
                assert refused.value.status == 501

    play(scene)


def test_a_killed_node_costs_one_upload_its_time() -> None:
    """The upload is made again with its key, which is free when the killed node has been given up; nothing of the first is left."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        opened = 0

        async def slow(url: str, context: SSLContext | None) -> trio.abc.Stream:
            nonlocal opened
            opened += 1
            stream = await balancer.open_stream(url, context)
            return Slow(stream) if opened == 1 else stream

        async with client_of(balancer, open_stream=slow) as client, trio.open_nursery() as nursery:
            blobs: list[Any] = []

            async def upload() -> None:
                blobs.append(await client.upload(VOICE, content_type=AUDIO))

            with trio.fail_after(120):
                nursery.start_soon(upload)
                await trio.sleep(3)
                assert kept(cluster, "", client.session)[0] == 1
                await cluster.start("n1")
                balancer.target = "n1"
                cluster.kill("n0")
                begin = trio.current_time()
                while not blobs:  # noqa: ASYNC110
                    await trio.sleep(0.1)
                assert trio.current_time() - begin < 40
                assert await client.blob(blobs[0]).read() == VOICE
            await trio.sleep(200)
            assert media_of(cluster).objects == {blobs[0].id: VOICE}
            assert kept(cluster, "", client.session) == (1, len(VOICE))

    play(scene)


@pytest.mark.long
def test_deploys_are_not_noticed() -> None:
    """Voice messages all the time, over connections that are cut and refused: each is kept once, and its bytes come whole."""

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
            return Cut(stream) if opened % 7 == 0 else Slow(stream) if opened % 3 == 0 else stream

        async with worker_of(balancer, speak, open_stream=flaky), client_of(balancer, open_stream=flaky) as client:
            with trio.fail_after(300):
                for number in range(12):
                    voice = VOICE[number * 1000 :]
                    if number % 4 == 2:
                        deploy = number // 4 + 1
                        await cluster.start(f"n{deploy}")
                        balancer.target = f"n{deploy}"
                        cluster.nodes[f"n{deploy - 1}"].shutdown.signal()
                    await client.send(number, blob=await client.upload(voice, content_type=AUDIO))
                    answer = await anext(client)
                    assert answer.data == {"to": number}
                    assert answer.blob is not None
                    assert await answer.blob.read() == answer_to(voice)
            assert client.connections == 4
            assert len(media_of(cluster).objects) == 24
            assert kept(cluster, "", client.session)[0] == 24

    play(scene)


class Slow(trio.abc.Stream):
    """A connection that carries 16 KiB in each second."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        await self.stream.send_all(data)
        await trio.sleep(1.0)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read."""
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self.stream.aclose()
