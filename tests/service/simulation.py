"""A cluster whose nodes are deployed and killed, whose store fails and whose parties are cut, in an order drawn from a seed."""

import random
from collections.abc import Awaitable, Callable
from typing import Literal

import trio
import trio.testing

from signald.testing.cluster import Cluster, open_cluster
from tests.service.deploys import Load, traffic
from tests.service.transcript import order_tasks_by

SECTIONS: dict[str, dict[str, object]] = {
    # Nobody is given up and nothing expires: what is not there at the end has been lost.
    "worker": {"resume_timeout_s": 300.0},
    "session": {"resume_ttl_s": 600.0},
    "drain": {"timeout_s": 40.0, "worker_timeout_s": 25.0, "client_timeout_s": 10.0},
    "pace": {"sessions_per_s": 60.0},
    "limits": {"messages_per_s": 1000.0, "messages_burst": 1000},
}

IMPATIENT: dict[str, dict[str, object]] = {**SECTIONS, "worker": {"resume_timeout_s": 4.0}}


class Simulation:
    """See the module."""

    def __init__(self, seed: int, cluster: Cluster, load: Load, kinds: list[str]) -> None:
        self.random = random.Random(seed)
        self.cluster = cluster
        self.load = load
        self.started = 2
        self.story: list[str] = []
        self.kinds = kinds
        self.sections = SECTIONS

    def tell(self, event: str) -> None:
        """Note what is done, for whoever must understand a failure."""
        self.story.append(f"{trio.current_time():8.3f} {event}")

    def ready(self) -> list[str]:
        """The nodes that new connections may be sent to."""
        return sorted(
            name
            for name, node in self.cluster.nodes.items()
            if not node.hub.refusing and not node.shutdown.status.reason
        )

    def point(self) -> None:
        """Let the switches point to nodes that are ready."""
        self.load.clients_at = self.random.choice(self.ready())
        self.load.workers_at = self.random.choice(self.ready())

    async def start(self) -> None:
        """One more node."""
        self.started += 1
        await self.cluster.start(f"n{self.started}", **self.sections)
        self.tell(f"start n{self.started}")

    async def deploy(self) -> None:
        """A new node, and an old one is told to stop; nobody waits for it."""
        await self.start()
        victim = self.random.choice(self.ready()[:-1] or self.ready())
        self.cluster.nodes[victim].shutdown.signal()
        self.tell(f"stop {victim}")
        self.point()

    async def kill(self) -> None:
        """A node dies, draining or not; another one is there."""
        await self.start()
        victim = self.random.choice(sorted(self.cluster.nodes))
        self.cluster.kill(victim)
        self.tell(f"kill {victim}")
        while victim in self.cluster.nodes:
            await trio.lowlevel.checkpoint()
        if not self.ready():
            await self.start()
        self.point()

    async def move_switches(self) -> None:
        """New connections go elsewhere from now on."""
        self.point()

    async def cut(self) -> None:
        """Some parties lose their connections."""
        parties = [one for one in [*self.load.clients, *self.load.workers] if one.peer is not None]
        for party in self.random.sample(parties, k=min(len(parties), self.random.randint(1, 4))):
            party.cut()
        self.tell("cut")

    async def lose_worker(self) -> None:
        """A worker is gone for good, and another one comes."""
        await self.load.replace_worker(self.random.choice(self.load.workers))
        self.tell("worker lost")

    async def outage(self) -> None:
        """The store is away for a while, or does its work and does not say so."""
        kind: Literal["down", "answers lost"] = self.random.choice(("down", "answers lost"))
        self.tell(f"store {kind}")
        self.cluster.world.outage = kind
        await trio.sleep(self.random.choice((0.05, 0.5, 3.0, 12.0)))
        self.cluster.world.outage = ""
        self.tell("store back")

    async def empty(self) -> None:
        """The store loses everything while all parties are attached, and the nodes have known it for a moment."""
        calm = 0
        while calm < 20:
            attached = all(one.peer is not None for one in [*self.load.clients, *self.load.workers])
            calm = calm + 1 if attached else 0
            await trio.sleep(0.1)
        self.cluster.world.lose_everything()
        self.tell("store emptied")
        await trio.sleep(2.0)  # whom nobody is attached for when the nodes notice, nobody can give back

    async def run(self, steps: int) -> None:
        """Do `steps` things, then let everything settle."""
        for _ in range(steps):
            deed: Callable[[], Awaitable[None]] = getattr(self, self.random.choice(self.kinds))
            await deed()
            await trio.sleep(self.random.choice((0.0, 0.01, 0.1, 1.0, 4.0)))
        await self.load.settle(90)


def simulate(seed: int, kinds: list[str], *, steps: int = 12, workers: int = 3, clients: int = 8) -> list[str]:
    """Play one simulation and judge it; returns its story. A failure carries it as a note."""
    story: list[str] = []

    async def main() -> None:
        with trio.fail_after(3000):
            async with open_cluster(seed) as cluster:
                sections = IMPATIENT if "lose_worker" in kinds else SECTIONS
                await cluster.start("n1", **sections)
                await cluster.start("n2", **sections)
                async with traffic(cluster, workers, clients, cross=bool(seed % 2), every_s=0.3) as load:
                    simulation = Simulation(seed, cluster, load, kinds)
                    simulation.sections = sections
                    simulation.story = story
                    await simulation.run(steps)
                    if "lose_worker" in kinds:
                        load.check_with_lost_workers()
                    else:
                        load.check()
                        load.check_same_workers()

    order_tasks_by(seed)
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note("\n".join([f"seed {seed}", *story]))
        raise
    return story
