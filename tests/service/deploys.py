"""A cluster under traffic that is deployed, for the tests of drains and kills."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from signald.testing.cluster import Cluster
from signald.testing.wire import Json
from signald.testing.wire_parties import Client, Worker


class Load:
    """Clients and echo workers behind two switches, one for each kind, that point to the nodes new connections reach."""

    def __init__(self, cluster: Cluster, workers: int, clients: int, *, cross: bool = False, at: str = "n1") -> None:
        self.cluster = cluster
        self.clients_at = at
        self.workers_at = "n2" if cross else at
        self.workers = [
            Worker(cluster, lambda: self.workers_at, instance_id=f"{at}-{number}", capacity=-(-clients // workers))
            for number in range(workers)
        ]
        self.clients = [Client(cluster, lambda: self.clients_at) for _ in range(clients)]
        self.vanished: list[Worker] = []
        self._nursery: trio.Nursery | None = None
        self.said = 0
        self.quiet = False

    async def run(self, every_s: float, task_status: trio.TaskStatus[None]) -> None:
        """Connect all parties, then talk until cancelled."""
        async with trio.open_nursery() as self._nursery:
            nursery = self._nursery
            for worker in self.workers:
                nursery.start_soon(worker.run)
            for worker in self.workers:
                await worker.ready.wait()
            for client in self.clients:
                nursery.start_soon(client.run)
            while not all("paired" in client.told for client in self.clients):  # noqa: ASYNC110 - a party is no event
                await trio.sleep(0.1)
            task_status.started()
            while True:
                if not self.quiet:
                    for client in self.clients:
                        await client.say(client.talk, self.said)
                    self.said += 1
                await trio.sleep(every_s)

    async def replace_worker(self, gone: Worker) -> None:
        """A worker goes without a word and for good; another one like it comes."""
        gone.vanish()
        self.vanished.append(gone)
        self.workers.remove(gone)
        fresh = Worker(self.cluster, lambda: self.workers_at, **gone.opening)
        self.workers.append(fresh)
        assert self._nursery is not None
        self._nursery.start_soon(fresh.run)

    async def settle(self, seconds: float = 5.0) -> None:
        """Say nothing more and wait for what is under way."""
        self.quiet = True
        await trio.sleep(seconds)

    def check(self) -> None:
        """exactly-once: all arrived once and in order, both ways; no session was lost and no party waits for an ack."""
        wanted = list(range(self.said))
        heard = {name: way for worker in self.workers for name, way in worker.talks.items()}
        for client in self.clients:
            assert not client.lost
            assert client.talk.heard == wanted
            assert heard[client.talk.session].heard == wanted
            assert (client.talk.gaps, client.talk.unacked) == ([], {})

    def check_with_lost_workers(self) -> None:
        """exactly-once, as far as workers live: all reached some worker, in order; no client waits or misses an answer.

        A worker that died may have answered what it had not acked, so the next one answers it again.
        """
        wanted = list(range(self.said))
        for client in self.clients:
            assert not client.lost
            assert (client.talk.gaps, client.talk.unacked) == ([], {})
            parts = [
                way.heard
                for worker in [*self.vanished, *self.workers]
                for way in worker.past
                if way.session == client.talk.session
            ]
            assert sorted({data for part in parts for data in part}) == wanted
            assert all(part == list(range(part[0], part[0] + len(part))) for part in parts if part)
            assert sorted(set(client.talk.heard)) == wanted

    def check_same_workers(self) -> None:
        """sticky: every session still has its worker, and no client was told otherwise."""
        for client in self.clients:
            assert set(client.told) <= {"(waiting)", "(paired)", "paired", "away", "(away)"}
        for worker in self.workers:
            assert worker.workers == [worker.worker]
            assert all(way.assigned == 1 for way in worker.talks.values())

    async def deploy(self, old: str, new: str, **sections: dict[str, object]) -> float:
        """Start `new`, point the switches that pointed to `old` to it, stop `old`; returns how many seconds that took."""
        await self.cluster.start(new, **sections)
        if self.clients_at == old:
            self.clients_at = new
        if self.workers_at == old:
            self.workers_at = new
        began = trio.current_time()
        self.cluster.nodes[old].shutdown.signal()
        await self.cluster.wait_exit(old)
        return trio.current_time() - began


@asynccontextmanager
async def traffic(
    cluster: Cluster, workers: int, clients: int, *, cross: bool = False, every_s: float = 0.5, at: str = "n1"
) -> AsyncIterator[Load]:
    """Run a load around the body. The nodes it points to must be there."""
    load = Load(cluster, workers, clients, cross=cross, at=at)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run, every_s)
        yield load
        nursery.cancel_scope.cancel(reason="the load is over")


def receipt(cluster: Cluster, node: str) -> Json:
    """The ledger a drained node has left in the store."""
    body = cluster.world.rows.receipt(node)
    assert body is not None
    ledger: Json = json.loads(body)
    return ledger
