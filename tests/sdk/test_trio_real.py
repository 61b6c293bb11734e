"""The SDK against a daemon on a real port, in real time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from signald.config import Config
from signald.daemon import Daemon, running
from signald.ids import SeededEntropy, SystemEntropy
from signald.sdk.events import HandedOver
from signald.sdk.trio import ApiRefused, Refused, WorkerJob, WorkerSession, open_client, open_worker
from tests.sdk.client_play import drained

pytestmark = pytest.mark.real


def config(name: str, store: str) -> Config:
    """A node on ports the system chooses."""
    plain = Config()
    return attrs.evolve(
        plain,
        node=attrs.evolve(plain.node, id=name, release="test"),
        listen=attrs.evolve(plain.listen, websocket=("127.0.0.1:0",), http=("127.0.0.1:0",)),
        store=attrs.evolve(plain.store, url=store),
    )


async def serve(name: str, store: str, task_status: trio.TaskStatus[Daemon]) -> None:
    """Run a node until it has drained."""
    async with running(config(name, store), SystemEntropy()) as daemon:
        task_status.started(daemon)
        await daemon.node.shutdown.run()


async def echo(session: WorkerSession) -> None:
    """Answer every message with itself."""
    async for message in session:
        await session.send(message.data)


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[trio.Nursery]:
    """A nursery that is cancelled at the end, within a deadline."""
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_conversation_over_a_real_socket(tmp_path: Path) -> None:
    """JSON and bytes, there and back, then bye."""
    async with bounded(20) as nursery:
        daemon: Daemon = await nursery.start(serve, "n0", f"sqlite:{tmp_path / 'one.db'}")
        url = f"ws://127.0.0.1:{daemon.websocket_port}"
        async with (
            open_worker(url, echo, instance_id="w", capacity=4) as worker,
            open_client(url, meta={"name": "alice"}) as client,
        ):
            for data in ({"text": "hällo"}, b"\x00\xff" * 1000, None, [1, 2.5, "x"]):
                await client.send(data)
                assert (await anext(client)).data == data
            await client.bye("enough")
            assert [message async for message in client] == []
            while worker.sessions:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_deploy_between_two_real_nodes(tmp_path: Path) -> None:
    """The old node drains while client and worker talk: both move, nothing is lost, and no gap is felt."""
    store = f"sqlite:{tmp_path / 'two.db'}"
    async with bounded(30) as nursery:
        old: Daemon = await nursery.start(serve, "n0", store)
        new: Daemon = await nursery.start(serve, "n1", store)
        # An ordered list: the first node goes away, so the second is tried.
        urls = [f"ws://127.0.0.1:{port}" for port in (old.websocket_port, new.websocket_port)]
        async with open_worker(urls, echo, instance_id="w") as worker, open_client(urls) as client:
            for n in range(200):
                if n == 50:
                    old.node.shutdown.signal()
                await client.send(n)
                assert (await anext(client)).data == n
                await trio.sleep(0.01)
            assert (client.connections, worker.connections) == (2, 2)
            assert HandedOver(None) in drained(client)


async def test_jobs_over_a_deploy_of_two_real_nodes(tmp_path: Path) -> None:
    """Submitted over HTTP at whatever node there is, done once by a worker that moves, and read back: JSON, and bytes."""
    store = f"sqlite:{tmp_path / 'jobs.db'}"
    done: list[object] = []

    async def work(job: WorkerJob) -> object:
        await trio.sleep(0.5)
        done.append(job.data)
        return job.data

    async with bounded(40) as nursery:
        old: Daemon = await nursery.start(serve, "n0", store)
        new: Daemon = await nursery.start(serve, "n1", store)
        urls = [f"ws://127.0.0.1:{port}" for port in (old.websocket_port, new.websocket_port)]
        async with (
            open_worker(urls, echo, instance_id="w", on_job={"copy": work}) as worker,
            open_client(urls, jobs=True) as client,
        ):
            jobs = []
            for number in range(20):
                if number == 8:
                    old.node.shutdown.signal()
                data = b"\x00" * number if number % 2 else {"n": number}
                jobs.append((await client.submit("copy", data), data))
                await trio.sleep(0.05)
            for job, data in jobs:
                assert await job.result() == data
            assert (client.connections, worker.connections) == (2, 2)
    assert len(done) == 20


async def test_a_message_above_the_limit_never_leaves(tmp_path: Path) -> None:
    """What the service would cut the connection for is an error at the sender, and the session goes on."""
    async with bounded(20) as nursery:
        daemon: Daemon = await nursery.start(serve, "n0", f"sqlite:{tmp_path / 'three.db'}")
        url = f"ws://127.0.0.1:{daemon.websocket_port}"
        async with open_worker(url, echo, instance_id="w"), open_client(url) as client:
            with pytest.raises(ValueError, match="at most"):
                await client.send("x" * 70_000)
            await client.send("x" * 65_000)
            assert len((await anext(client)).data) == 65_000
            assert client.connections == 1


async def test_an_invalid_credential_is_refused(tmp_path: Path) -> None:
    """With `jwt_secret` set, a token that is none comes out as `Refused`."""
    async with bounded(20) as nursery:
        secured = config("n0", f"sqlite:{tmp_path / 'four.db'}")
        secured = attrs.evolve(secured, auth=attrs.evolve(secured.auth, jwt_secret="s" * 32, jwt_algorithms=("HS256",)))

        async def serve_secured(task_status: trio.TaskStatus[Daemon]) -> None:
            async with running(secured, SystemEntropy()) as daemon:
                task_status.started(daemon)
                await daemon.node.shutdown.run()

        daemon: Daemon = await nursery.start(serve_secured)
        with pytest.raises(Refused) as caught:
            async with open_client(f"ws://127.0.0.1:{daemon.websocket_port}", auth="not a token"):
                pass
        assert caught.value.code == 4401
        assert "not a token" not in str(caught.value)


async def test_a_recording_goes_through_real_files_and_sockets(tmp_path: Path) -> None:
    """A file of some megabytes is uploaded, named and read in parts while the node is replaced; a longer one is refused."""
    store = f"sqlite:{tmp_path / 'three.db'}"
    voice = SeededEntropy(1).token_bytes(3_000_000)
    path = tmp_path / "voice.ogg"
    path.write_bytes(voice)

    async def answers(session: WorkerSession) -> None:
        async for message in session:
            assert message.blob is not None
            async with message.blob.open(1_000_000, 1_100_000) as stream:
                part = b"".join([piece async for piece in stream])
            await session.send(len(part), blob=await session.upload(part, content_type="audio/ogg"))

    async with bounded(60) as nursery:
        old: Daemon = await nursery.start(serve, "n0", store)
        new: Daemon = await nursery.start(serve, "n1", store)
        urls = [f"ws://127.0.0.1:{port}" for port in (old.websocket_port, new.websocket_port)]
        async with (
            open_worker(urls, answers, instance_id="w", api=True),
            open_client(urls, api=True) as client,
        ):
            with pytest.raises(ApiRefused) as refused:
                await client.upload(voice * 4)
            assert refused.value.status == 413
            for number in range(4):
                if number == 1:
                    old.node.shutdown.signal()
                blob = await client.upload(path, content_type="audio/ogg")
                await client.send(number, blob=blob)
                answer = await anext(client)
                assert answer.data == 100_000
                assert answer.blob is not None
                assert await answer.blob.read() == voice[1_000_000:1_100_000]
                assert await client.blob(blob).read() == voice
            assert client.connections == 2
