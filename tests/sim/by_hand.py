"""The troubles of the simulation for parties that speak the wire by hand: a fault that both ends of our own code share shows here.

The plans of `plan` are played by the SDK. Here clients and workers share no code with the node, and a store that comes back
empty must cost nothing at all: each session has both parties attached then, so the nodes can give everything back.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Literal

import trio

from signald.testing.cluster import Cluster, open_cluster
from signald.testing.seeded import Chance, JumpClock, determined_by
from tests.service.deploys import Load, traffic

SECTIONS: dict[str, dict[str, object]] = {
    # No worker is given up and no session expires: what is missing at the end has been lost.
    "worker": {"resume_timeout_s": 300.0},
    "session": {"resume_ttl_s": 600.0},
    "drain": {"timeout_s": 40.0, "worker_timeout_s": 25.0, "client_timeout_s": 10.0},
    "pace": {"sessions_per_s": 60.0},
    "limits": {"messages_per_s": 1000.0, "messages_burst": 1000},
}
IMPATIENT: dict[str, dict[str, object]] = {**SECTIONS, "worker": {"resume_timeout_s": 4.0}}
"""For runs that lose workers for good."""

STEPS = 12
WORKERS, CLIENTS = 3, 8
CALM_S = 2.0
"""For so long all parties are attached before the store is emptied, so that each node knows its own; and after it, so that
the nodes notice. A session whose parties are away then can be given back by no node."""
SETTLE_S = 90.0
"""Above every budget of a drain."""


class Troubles:
    """The steps of one run, drawn one after the other."""

    def __init__(self, chance: random.Random, cluster: Cluster, load: Load, kinds: list[str]) -> None:
        self.cluster = cluster
        self.load = load
        self.kinds = kinds
        self.sections = SECTIONS
        self.story: list[str] = []
        self._random = chance
        self._started = 2

    def ready(self) -> list[str]:
        """The nodes that new connections may be sent to."""
        nodes = self.cluster.nodes.items()
        return sorted(name for name, node in nodes if not node.hub.refusing and not node.shutdown.status.reason)

    async def start(self) -> None:
        """Start one more node."""
        self._started += 1
        await self.cluster.start(f"n{self._started}", **self.sections)
        self._tell(f"start n{self._started}")

    async def run(self) -> None:
        """Take all steps, then let everything settle."""
        for _ in range(STEPS):
            step: Callable[[], Awaitable[None]] = getattr(self, f"_{self._random.choice(self.kinds)}")
            await step()
            await trio.sleep(self._random.choice((0.0, 0.01, 0.1, 1.0, 4.0)))
        await self.load.settle(SETTLE_S)

    def _tell(self, event: str) -> None:
        self.story.append(f"{trio.current_time():8.3f} {event}")

    def _point(self) -> None:
        """Let the switches point to nodes that are ready."""
        self.load.clients_at = self._random.choice(self.ready())
        self.load.workers_at = self._random.choice(self.ready())

    async def _deploy(self) -> None:
        """A new node starts, and an old one is told to stop; the next step does not wait for its drain."""
        await self.start()
        victim = self._random.choice(self.ready()[:-1] or self.ready())
        self.cluster.nodes[victim].shutdown.signal()
        self._tell(f"stop {victim}")
        self._point()

    async def _kill(self) -> None:
        """A node dies, draining or not; another one is there."""
        await self.start()
        victim = self._random.choice(sorted(self.cluster.nodes))
        self.cluster.kill(victim)
        self._tell(f"kill {victim}")
        while victim in self.cluster.nodes:
            await trio.lowlevel.checkpoint()
        if not self.ready():
            await self.start()
        self._point()

    async def _cut(self) -> None:
        """Some parties lose their connections."""
        parties = [one for one in [*self.load.clients, *self.load.workers] if one.peer is not None]
        for party in self._random.sample(parties, k=min(len(parties), self._random.randint(1, 4))):
            party.cut()
        self._tell("cut")

    async def _lose_worker(self) -> None:
        """A worker is gone for good, and another one comes."""
        await self.load.replace_worker(self._random.choice(self.load.workers))
        self._tell("worker lost")

    async def _outage(self) -> None:
        """The store is away for a while, or carries out operations and loses the answers."""
        kind: Literal["down", "answers lost"] = self._random.choice(("down", "answers lost"))
        self._tell(f"store {kind}")
        self.cluster.world.outage = kind
        await trio.sleep(self._random.choice((0.05, 0.5, 3.0, 12.0)))
        self.cluster.world.outage = ""
        self._tell("store back")

    async def _empty(self) -> None:
        """The store loses everything while all parties are attached."""
        calm_s = 0.0
        while calm_s < CALM_S:
            attached = all(one.peer is not None for one in [*self.load.clients, *self.load.workers])
            calm_s = calm_s + 0.1 if attached else 0.0
            await trio.sleep(0.1)
        self.cluster.world.lose_everything()
        self._tell("store emptied")
        await trio.sleep(CALM_S)


def play(seed: int, kinds: list[str]) -> list[str]:
    """Play one run and judge it at the applications; returns its story. A failure carries the story as a note."""
    chance = Chance(seed)
    story: list[str] = []

    async def main() -> None:
        with trio.fail_after(3000):
            async with open_cluster(seed) as cluster:
                sections = IMPATIENT if "lose_worker" in kinds else SECTIONS
                for name in ("n1", "n2"):
                    await cluster.start(name, **sections)
                async with traffic(cluster, WORKERS, CLIENTS, cross=bool(seed % 2), every_s=0.3) as load:
                    troubles = Troubles(chance.random("troubles"), cluster, load, kinds)
                    troubles.sections, troubles.story = sections, story
                    await troubles.run()
                    if "lose_worker" in kinds:
                        load.check_with_lost_workers()
                    else:
                        load.check()
                        load.check_same_workers()

    with determined_by(seed):
        try:
            trio.run(main, clock=JumpClock())
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}", *story]))
            raise
    return story
