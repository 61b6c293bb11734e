"""Programs on the SDK that die and start again, against nodes in memory."""

from collections.abc import Callable

import trio

from signald.sdk.events import Replaced
from signald.sdk.trio import Client
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from signald.testing.sdk_parties import ClientApp, WorkerApp
from signald.testing.seeded import Chance


class Counting(ClientApp):
    """Says the numbers from 1 on, and goes on counting in its next life."""

    said = 0

    async def talk(self, client: Client) -> None:
        """See `ClientApp.talk`."""
        while True:
            self.said += 1
            await client.send(self.said)
            await trio.sleep(0.5)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - in virtual time a poll costs nothing
            await trio.sleep(0.1)


def heard(client: ClientApp) -> list[int]:
    """The data that reached the client, in order."""
    return [data for _, data in client.heard]


def test_a_client_goes_on_from_its_saved_state() -> None:
    """The next process of a client has the session of the one that died, and is answered from there on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        balancer, chance = Balancer(cluster, "n1"), Chance(1)
        worker, client = WorkerApp("w", balancer.dial, chance), Counting("c", balancer.dial, chance)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            nursery.start_soon(client.run)
            await until(lambda: len(client.heard) >= 3)
            session = client.session
            client.restart(1.0)
            await until(lambda: client.lives == 2 and len(client.heard) >= 8)
            assert client.session == session
            assert heard(client) == list(range(1, len(client.heard) + 1))
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


def test_a_worker_that_crashed_comes_back_as_another() -> None:
    """A new life of a worker has a new id; the client is told `replaced`, and gets all answers."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 1.0})
        balancer, chance = Balancer(cluster, "n1"), Chance(2)
        worker, client = WorkerApp("w", balancer.dial, chance), Counting("c", balancer.dial, chance)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            nursery.start_soon(client.run)
            await until(lambda: len(client.heard) >= 3)
            worker.crash(0.0)
            await until(lambda: len(client.heard) >= 12)
            assert len(set(worker.ids)) == worker.lives == 2
            assert any(isinstance(event, Replaced) for event in client.events)
            assert sorted(set(heard(client))) == list(range(1, max(heard(client)) + 1))
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)
