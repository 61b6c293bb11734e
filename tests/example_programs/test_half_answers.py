"""The handlers of docs/examples behind a worker that was lost: what becomes of half an answer, and of a whole one that was not acked."""

import logging
from functools import partial
from typing import Any

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.streams_core import StreamText
from signald.sdk.trio import WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.example_programs.stories import loaded

HALF = {"half": False, "stopped": False, "whole": True}
"""What the worker before has done: whether it had said the end of its answer."""


class Words:
    """Stands in for the model. It is no generator: a handler that stops in the middle would leave one to the garbage collector."""

    def __init__(self, asked: list[str], question: str, *_: object) -> None:
        asked.append(question)
        self._left = ["on ", "and ", "on"]

    def __aiter__(self) -> "Words":
        return self

    async def __anext__(self) -> str:
        await trio.sleep(0.1)
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


@pytest.mark.parametrize("before", HALF)
@pytest.mark.parametrize("name", ["streaming_worker", "llm_worker"])
def test_the_next_worker_takes_up_half_an_answer(name: str, before: str, caplog: pytest.LogCaptureFixture) -> None:
    """A half answer is said anew or continued, one that the reader has stopped is ended, and a whole one is not given twice."""
    caplog.set_level(logging.CRITICAL, "signald.sdk")
    example = loaded(name)
    asked: list[str] = []
    example.story = example.tokens = partial(Words, asked)
    seen: dict[str, StreamText] = {}

    async def lost(session: WorkerSession) -> None:
        await session.send("So ", stream="answer-to-1", fold="text", end=HALF[before])
        await session.flush()
        await trio.sleep(2)
        raise RuntimeError("this worker is lost")

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        def options(seed: int) -> dict[str, Any]:
            return {"dial": balancer.dial, "entropy": SeededEntropy(seed)}

        over = trio.Event()

        async def read() -> None:
            async for message in client:
                if message.stream == "answer-to-2" and message.end:
                    over.set()

        async with open_client("ws://lb", **options(1)) as client, trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with open_worker("ws://lb", lost, instance_id="w1", **options(2)):
                await client.send({"text": "first"})
                await trio.sleep(1)
                if before == "stopped":
                    client.cancel("answer-to-1", "enough")
                await trio.sleep(1.5)
            async with open_worker("ws://lb", example.answer, instance_id="w2", **options(3)):
                await client.send({"text": "second"})
                with trio.fail_after(60):
                    await over.wait()
            seen.update(client.streams)
            nursery.cancel_scope.cancel(reason="enough was said")

    play(scene)
    first, second = seen["answer-to-1"], seen["answer-to-2"]
    assert (second.text, second.attempt, second.outcome) == ("on and on", 1, "complete")
    anew = "on and on" if name == "streaming_worker" else "So on and on"
    stopped_attempt = 1 if name == "streaming_worker" else 2
    assert (first.text, first.attempt, first.outcome) == {
        "half": (anew, 2, "complete"),
        "stopped": ("So ", stopped_attempt, "cancelled"),
        "whole": ("So ", 1, "complete"),
    }[before]
    assert before != "whole" or asked == ["second"]
