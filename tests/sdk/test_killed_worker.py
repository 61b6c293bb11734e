"""A worker that dies as by SIGKILL, in virtual time: the next one has its sessions after `worker.resume_timeout_s`, no ack was wrong."""

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from signald.sdk.trio import Client, Handler, Replaced, WorkerSession
from signald.testing import SignaldCluster, run

RESUME_S = 3.0
"""Not the default of `worker.resume_timeout_s`: then no other time of a node can be taken for it."""

SWEEP_S = 1.25
"""So much later at most: nodes look for overdue workers once in a second, give or take a quarter."""

SETTLED_S = 5.0
"""A node that has just started judges no worker; this one is old enough."""

CLIENTS = 3
QUESTIONS = 4


@attrs.frozen
class Given:
    """A message as a handler got it."""

    worker: str
    number: int
    attempt: int
    at_s: float


class Scene:
    """Clients that ask numbered questions, and what the handlers of two workers got of each client."""

    def __init__(self, cluster: SignaldCluster) -> None:
        self.cluster = cluster
        self.given: dict[int, list[Given]] = {}

    def serving(self, worker: str, *, stuck: bool) -> Handler:
        """Return a handler; with `stuck` it stands still in the middle of its answer to question N of client N."""

        async def serve(session: WorkerSession) -> None:
            async for message in session:
                client, number = message.data
                given = Given(worker, number, session.attempt, trio.current_time())
                self.given.setdefault(client, []).append(given)
                async with session.stream(f"answer-{number}", go_on=True) as out:
                    if not out.said:
                        await out.write("one ")
                    if stuck and number == client:
                        await trio.sleep_forever()
                    await out.write("two")

        return serve

    async def play(self, meanwhile: Callable[[SignaldCluster], Awaitable[None]]) -> None:
        """Ask, kill the worker, and judge the next one and the clients."""
        await trio.sleep(SETTLED_S)
        async with (
            self.cluster.worker(self.serving("killed", stuck=True), name="killed") as killed,
            self.cluster.client(name="c0") as c0,
            self.cluster.client(name="c1") as c1,
            self.cluster.client(name="c2") as c2,
        ):
            clients = [c0, c1, c2]
            for index, client in enumerate(clients):
                for number in range(QUESTIONS):
                    await client.send([index, number])
                await client.flush()  # all of them are acked now
            await trio.sleep(1.0)
            async with self.cluster.worker(self.serving("next", stuck=False), name="next"):
                await killed.crash(restarts_after_s=None)
                killed_at = trio.current_time()
                await meanwhile(self.cluster)
                for index, client in enumerate(clients):
                    await self.judge(index, client, killed_at)

    async def judge(self, index: int, client: Client, killed_at: float) -> None:
        """Each answer is whole and there once; the unfinished question came to the next worker in time, and the rest behind it."""
        texts: dict[str, str] = {}
        ended = 0
        while ended < QUESTIONS:
            piece = await anext(client)
            assert piece.attempt == 1
            ended += piece.end
            texts[piece.stream or ""] = texts.get(piece.stream or "", "") + (piece.data or "")
        assert texts == {f"answer-{number}": "one two" for number in range(QUESTIONS)}
        given = self.given[index]
        numbers = [(one.worker, one.number) for one in given]
        finished = [("killed", number) for number in range(index + 1)]
        assert numbers == finished + [("next", number) for number in range(index, QUESTIONS)]
        first = given[index + 1]
        assert first.attempt == (2 if first.number == 0 else 1)  # it counts from the last ack of a worker on
        assert RESUME_S <= first.at_s - killed_at <= RESUME_S + SWEEP_S
        assert any(isinstance(event, Replaced) for event in iter(client.events.receive_nowait, None))


async def nothing(_cluster: SignaldCluster) -> None:
    """Only the worker is lost."""


async def deploy(cluster: SignaldCluster) -> None:
    """signald is deployed while the worker is awaited: its time goes on at the next node."""
    await cluster.deploy()


async def cut(cluster: SignaldCluster) -> None:
    """A client loses its connection too."""
    await cluster.cut("c1")


@pytest.mark.parametrize("meanwhile", [nothing, deploy, cut])
@pytest.mark.parametrize("seed", range(2))
def test_its_sessions_go_on_at_the_next_worker(
    seed: int, meanwhile: Callable[[SignaldCluster], Awaitable[None]]
) -> None:
    """The first message of each is the one that was being answered, attempt 2 where none was acked before; the rest comes behind it."""

    async def scene(cluster: SignaldCluster) -> None:
        await Scene(cluster).play(meanwhile)

    run(scene, seed=seed, config={"worker": {"resume_timeout_s": RESUME_S}})
