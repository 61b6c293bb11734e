"""Streams of the SDK against whole nodes in one virtual time: deploys, requests to end, workers that are lost."""

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.streams_core import ROLL_UP_S, StreamText
from signald.sdk.trio import StreamOver, WorkerSession, open_client, open_worker
from signald.store.session.ops import Ack, Append
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play

WORDS = [f"word{number} " for number in range(150)]


def test_a_text_survives_deploys() -> None:
    """A worker says a text over two deploys: at any time the client shows a prefix of it, at the end all, and it is rolled up."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        whole = "".join(WORDS)
        shown: list[StreamText] = []
        pieces = 0

        async def handler(session: WorkerSession) -> None:
            async with session.stream("answer", kind="tokens") as out:
                for word in WORDS:
                    await out.write(word)
                    await trio.sleep(0.02)
            await trio.sleep_forever()

        async def watch() -> None:
            async for text in client.stream_news():
                assert whole.startswith(text.text)
                shown.append(text)

        async with (
            open_worker("ws://lb", handler, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1)),
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2), history=10) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(watch)

            async def deploy() -> None:
                for number in (1, 2):
                    await trio.sleep(0.8)
                    await cluster.start(f"n{number}")
                    balancer.target = f"n{number}"
                    cluster.nodes[f"n{number - 1}"].shutdown.signal()

            nursery.start_soon(deploy)
            with trio.fail_after(60):
                async for message in client:
                    assert message.stream == "answer"
                    pieces += 1
                    if message.end:
                        break
            nursery.cancel_scope.cancel(reason="the text has ended")
        assert client.streams["answer"].text == whole
        assert client.streams["answer"].outcome == "complete"
        assert shown[0].text == WORDS[0]
        assert pieces < len(WORDS)

    play(scene)


def test_an_end_in_the_moment_of_a_flush() -> None:
    """What has gathered is said, whether the task that rolls up or the end of the block comes first."""
    streams = 40

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        async def handler(session: WorkerSession) -> None:
            for number in range(streams):
                async with session.stream(str(number)) as out:
                    await out.write("first ")
                    await out.write("last")
                    await trio.sleep(ROLL_UP_S)
            await trio.sleep_forever()

        async with (
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2)) as client,
            open_worker("ws://lb", handler, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1)),
        ):
            said: dict[str, str] = {}
            with trio.fail_after(60):
                async for message in client:
                    if message.stream is not None:
                        said[message.stream] = said.get(message.stream, "") + (message.data or "")
                    if message.end and len(said) == streams:
                        break
        assert set(said.values()) == {"first last"}

    play(scene)


def test_the_cost_of_an_answer() -> None:
    """150 tokens a second cost at most one append for five tokens, and one ack for four appends: as a frame, and in the store."""
    tokens = 1500

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        async def handler(session: WorkerSession) -> None:
            async with session.stream("answer") as out:
                for _ in range(tokens):
                    await out.write("token ")
                    await trio.sleep(1 / 150)
            await trio.sleep_forever()

        async with (
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2)) as client,
            open_worker("ws://lb", handler, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1)),
        ):
            with trio.fail_after(60):
                async for message in client:
                    if message.end:
                        break
            await trio.sleep(1)
            assert client.streams["answer"].text == "token " * tokens
        stored, frames = node.hub.committer.kinds, node.hub.relay.acks
        assert 0 < stored[Append] <= tokens / 5
        assert 0 < frames["client"] <= stored[Append] / 4
        assert 0 < stored[Ack] <= stored[Append] / 4

    play(scene)


def test_a_client_asks_for_the_end() -> None:
    """The worker's handler hears of it, and its text ends as cancelled."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        async def handler(session: WorkerSession) -> None:
            async with session.stream() as out:
                await out.write("x")
                await out.cancelled.wait()
                assert out.reason == "enough"
            await trio.sleep_forever()

        async with (
            open_worker("ws://lb", handler, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1)),
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2)) as client,
        ):
            with trio.fail_after(30):
                first = await anext(aiter(client))
                assert first.stream is not None
                client.cancel(first.stream, "enough")
                last = await anext(aiter(client))
        assert (last.end, last.outcome) == (True, "cancelled")

    play(scene)


def test_the_next_worker_goes_on() -> None:
    """A handler that fails gives the session back with its stream open; the next one finds it and says all anew."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        async def first(session: WorkerSession) -> None:
            await session.send("He", stream="a", fold="text")
            await session.flush()
            await trio.sleep(1)
            raise RuntimeError("the handler is broken")

        async def second(session: WorkerSession) -> None:
            (found,) = session.open_streams
            assert (found.stream, found.attempt, found.text, session.attempt) == ("a", 1, "He", 2)
            async with session.stream(found.stream, attempt=found.attempt + 1) as out:
                await out.write("Hello")
            with pytest.raises(StreamOver):
                await out.write("late")
            await trio.sleep_forever()

        async with (
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2)) as client,
            open_worker("ws://lb", first, instance_id="w1", dial=balancer.dial, entropy=SeededEntropy(1)),
        ):
            with trio.fail_after(30):
                assert (await anext(aiter(client))).data == "He"
            await trio.sleep(0.5)
            async with open_worker("ws://lb", second, instance_id="w2", dial=balancer.dial, entropy=SeededEntropy(3)):
                with trio.fail_after(60):
                    while client.streams["a"].open:
                        await anext(aiter(client))
                assert (client.streams["a"].text, client.streams["a"].attempt) == ("Hello", 2)

    play(scene)
