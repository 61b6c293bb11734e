"""A liar at a real node, in memory and in virtual time: a client that lies to a worker of the SDK, or a worker that lies to its clients.

Beside it two honest clients talk to the same worker, or to an honest one. They must not notice: every question is answered, over the
first connection, and no line about the store or a failed task is logged.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Literal

import structlog
import trio
import trio.testing
import trio_websocket

from signald.ids import SeededEntropy
from signald.sdk.errors import Unreadable
from signald.sdk.trio import Client, Worker, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, open_cluster
from tests.hostile import lies

Who = Literal["client", "worker"]

LIES = 40
"""In one scene: some minutes of virtual time, and of real time less than a second."""
ANSWER_S = 30.0
"""Well above what a worker's loss would take to be made good (`worker.resume_timeout_s`), so that it shows as a second connection."""


class Harm(AssertionError):
    """What a liar must not be able to do."""


@contextmanager
def no_alarm() -> Iterator[None]:
    """Fail when a node logs an error, or a warning about the store, within the block.

    The loss of a worker without sessions is that of the liar, which has left or was closed; the honest one always has some.
    """
    with structlog.testing.capture_logs() as lines:
        yield
    for line in lines:
        if line["event"] in ("worker_given_up", "worker_left") and not line["sessions"]:
            continue
        if line["log_level"] in ("error", "critical") or line["event"] in (
            "store_down",
            "worker_given_up",
            "worker_left",
            "session_usurped",
        ):
            raise Harm(f"the node has logged {line}")


class Honest:
    """A client that asks and waits for each answer."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.asked = 0

    async def ask(self) -> None:
        """Ask once. Fails without the right answer in time, or after a second connection."""
        self.asked += 1
        await self.client.send(f"{self.name} {self.asked}")
        with trio.move_on_after(ANSWER_S):
            message = await self.client.__anext__()
            if message.data != f"{self.name} {self.asked}" or self.client.connections != 1:
                raise Harm(f"{self.name} was answered {message.data!r} over connection {self.client.connections}")
            return
        raise Harm(f"{self.name} was not answered")


async def echo(session: WorkerSession) -> None:
    """An ordinary handler: it looks at all it is given, and lets out what that raises."""
    _ = session.meta
    async for message in session:
        session.events()
        _ = message.blob.id if message.blob is not None else ""
        await session.send(message.data, kind=message.kind, trace=message.trace)


async def careful(session: WorkerSession) -> None:
    """A handler that passes over what it cannot read."""
    async for message in session:
        with suppress(Unreadable, ValueError):
            await session.send(message.data)


async def _lie(cluster: Cluster, rng: Random, who: Who) -> None:
    """One connection of a liar, until it is closed or has said enough."""
    with suppress(
        trio_websocket.ConnectionClosed, trio_websocket.HandshakeError, trio.TooSlowError, trio.BrokenResourceError
    ):
        known: dict[str, Any] = {"seq": 0}
        peer = await cluster.dial("n1", f"/v1/{who}")
        if who == "client":
            await peer.socket.send_message(lies.connect(rng))
        else:
            await peer.send({"type": "app_ready", "instance_id": "liar", "capacity": 3, "labels": {"by": "liar"}})
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                while True:
                    frame = await peer.receive()
                    if frame["type"] == "session_assigned":
                        known.update(session=frame["session"], seq=frame["next_seq"] - 1)
                        await peer.send({"type": "session_accept", "session": frame["session"]})
                    elif frame["type"] == "ack" and frame.get("session") in (None, known.get("session")):
                        known["seq"] = max(known["seq"], frame["seq"])

            async def heard() -> None:
                with suppress(trio_websocket.ConnectionClosed, ValueError):
                    await hear()
                nursery.cancel_scope.cancel(reason="closed")

            nursery.start_soon(heard)
            with suppress(trio_websocket.ConnectionClosed):
                for _ in range(rng.randrange(1, 12)):
                    await trio.sleep(rng.choice((0.0, 0.05, 1.0)))
                    said = {**known, "seq": known["seq"] + 1}
                    await peer.socket.send_message(lies.of_a_party(rng, who == "worker", said))
            await trio.sleep(rng.choice((0.1, 2.0)))
            nursery.cancel_scope.cancel(reason="enough")
        with trio.move_on_after(1):
            await peer.socket.aclose()


def play(seed: int, who: Who) -> None:
    """One scene. Raises `Harm`."""
    rng = Random(f"{who} {seed}")
    order = SeededEntropy(seed)

    async def main() -> None:
        with trio.fail_after(3600):
            async with open_cluster(seed) as cluster:
                await cluster.start("n1")
                dial = Balancer(cluster, "n1").dial
                handler = rng.choice((echo, careful))
                async with (
                    open_worker("ws://n1", handler, instance_id="w", capacity=20, dial=dial, entropy=order) as worker,
                    open_client("ws://n1", dial=dial, entropy=SeededEntropy(seed + 1)) as one,
                    open_client("ws://n1", dial=dial, entropy=SeededEntropy(seed + 2)) as two,
                ):
                    await _scene(cluster, rng, who, worker, [Honest(one, "one"), Honest(two, "two")])

    with no_alarm(), _quiet_sdk():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def _scene(cluster: Cluster, rng: Random, who: Who, worker: Worker, honest: list[Honest]) -> None:
    for one in honest:
        await one.ask()
    dial = Balancer(cluster, "n1").dial
    ended: list[str] = []

    async def victim() -> None:
        # The client of the SDK that a lying worker serves: its session may move or end, its program may not.
        while True:
            async with open_client("ws://n1", want={"by": "liar"}, dial=dial, entropy=SeededEntropy(7)) as client:
                await client.send("hello")
                async for message in client:
                    with suppress(Unreadable):
                        _ = message.data
                ended.append(client.ended or "")

    async with trio.open_nursery() as nursery:
        if who == "worker":
            nursery.start_soon(victim)
        said = 0
        while said < LIES:
            await _lie(cluster, rng, who)
            said += 6
            for one in honest:
                await one.ask()
        nursery.cancel_scope.cancel(reason="enough")
    if worker.connections != 1:
        raise Harm(f"the honest worker has opened {worker.connections} connections")


@contextmanager
def _quiet_sdk() -> Iterator[None]:
    """A handler that fails is told in the log of the application; here it is meant to."""
    log = logging.getLogger("signald.sdk")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
