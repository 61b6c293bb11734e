"""The applications of a simulation: clients that say numbered things, workers that answer them, both on the real SDK.

They note what they see and judge nothing; the checkers do.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.carrier import Carrier
from signald.sdk.core import SessionCore
from signald.sdk.events import Disconnected, HandedOver, LifecycleEvent, LogLost, MessageReceived, Replaced
from signald.sdk.trio import Client, Dial, SessionGone, Worker, WorkerSession
from signald.testing.sdk_parties import ClientApp, WorkerApp
from tests.sim.habits import Tapped
from tests.sim.plan import ClientPlan, WorkerPlan
from tests.sim.poison import Poison

if TYPE_CHECKING:
    from tests.sim.scene import Scene

CANARY = "canary-credential-7f3d"
"""What every party shows to prove itself: it must turn up nowhere else."""


class HandlerFailed(Exception):
    """The application of a worker has an error."""


@attrs.define
class Handling:
    """One session in the hands of one worker's handler, from its assignment to its end."""

    number: int
    worker: str
    """The worker's id."""
    session: str
    core: SessionCore
    got: list[int] = attrs.field(factory=list)
    """The numbers of the client's messages it was given."""
    said: dict[int, int] = attrs.field(factory=dict)
    """seq → the how-manieth thing it said."""
    lost: list[tuple[int, int]] = attrs.field(factory=list)
    over: bool = False


class ClientParty(ClientApp):
    """A client that says numbered things."""

    def __init__(self, scene: "Scene", plan: ClientPlan) -> None:
        super().__init__(plan.name, scene.dial(plan.name), scene.chance)
        self.scene = scene
        self.plan = plan
        self.said = 0
        """How many messages it has said; the n-th has the number n and, as it happens, the seq n."""
        self.byed = False
        self.reads_from = -float("inf")
        """Before that it reads nothing."""
        self._random: random.Random = scene.chance.random(f"talk {plan.name}")

    def is_over(self) -> bool:
        """Its session has ended, or is about to by its own wish."""
        return self.gone is not None or self.byed

    @property
    def lost(self) -> list[tuple[int, int]]:
        """The ranges it was told the store has lost."""
        return [(event.from_seq, event.to_seq) for event in self.events if isinstance(event, LogLost)]

    async def run(self) -> None:
        """Live until cancelled."""
        await trio.sleep(self.plan.starts_at)
        await super().run()

    def options(self) -> dict[str, Any]:
        """See `ClientApp.options`."""
        auth = self.scene.credential(self.name, "client")
        return {"auth": auth, "meta": {"name": self.name}, "receipts": self.plan.receipts, "history": 5}

    def connected(self, client: Client) -> None:
        """See `ClientApp.connected`."""
        self.scene.sessions[client.session] = self
        self.scene.trace(self.name, f"has {client.session}")

    def died(self) -> None:
        """See `ClientApp.died`."""
        self.scene.trace(self.name, "restarts")
        self.scene.conduct.process_ended(self.name)
        self.scene.reached("client restarted from its state")

    def over(self, why: str) -> None:
        """See `ClientApp.over`."""
        self.scene.trace(self.name, f"over: {why}")
        self.scene.check.client_over(self)

    def happened(self, event: LifecycleEvent) -> None:
        """See `ClientApp.happened`."""
        self.scene.trace(self.name, f"event {event}")
        if isinstance(event, LogLost):
            self.scene.reached("log lost, and said")
        elif isinstance(event, Replaced):
            self.scene.reached("worker replaced")
        elif isinstance(event, HandedOver):
            self.scene.reached("client handed over")
        elif isinstance(event, Disconnected):
            self.scene.reached(f"client disconnected with {event.code}")
            self.scene.conduct.disconnected(self.name, event.code, event.reason)

    async def hears(self, client: Client, message: MessageReceived) -> None:
        """See `ClientApp.hears`."""
        self.scene.trace(self.name, f"hears {message.seq} {message.data}")
        if self.scene.plan.store_may_lose:
            # A loss was told before this message, but to another task: it has its turn now, at the latest in the next.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            self.take_events(client)  # where that task has just begun
        self.scene.check.client_heard(self)

    async def talk(self, client: Client) -> None:
        """See `ClientApp.talk`."""
        try:
            while self.said < self.plan.messages and self.scene.chaos:
                await trio.sleep(self._random.uniform(0.0, 2 * self.plan.every_s))
                number = self.said + 1
                pad = "x" * (self.plan.pad if number % 7 == 0 else 0)
                seq = await client.send({"n": number, "pad": pad} if pad else {"n": number})
                self.said = number
                self.scene.trace(self.name, f"says {number} as {seq}")
                self.scene.check.client_said(self, number, seq)
            if self.plan.says_bye:
                self.byed = True
                self.scene.trace(self.name, "says bye")
                await client.bye("enough")
        except SessionGone:
            pass  # the listener tells


class WorkerParty(WorkerApp):
    """A worker that answers what clients say, and now and then says something on its own."""

    def __init__(self, scene: "Scene", plan: WorkerPlan) -> None:
        super().__init__(plan.name, scene.dial(plan.name), scene.chance, capacity=plan.capacity)
        self.scene = scene
        self.plan = plan
        self._random: random.Random = scene.chance.random(f"work {plan.name}")

    async def run(self) -> None:
        """Live until cancelled."""
        await trio.sleep(self.plan.starts_at)
        await super().run()

    def options(self) -> dict[str, Any]:
        """See `WorkerApp.options`."""
        return {"auth": self.scene.credential(self.name, "worker")}

    def registered(self, worker: Worker) -> None:
        """See `WorkerApp.registered`."""
        self.scene.trace(self.name, f"is {worker.worker}")

    def terminated(self) -> None:
        """See `WorkerApp.terminated`."""
        if self.plan.old:
            self.scene.reached("old program asked to terminate")

    def turned_away(self, why: str) -> None:
        """See `WorkerApp.turned_away`."""
        self.scene.trace(self.name, f"turned away: {why}")
        self.scene.check.worker_gone(self, why)

    def died(self) -> None:
        """See `WorkerApp.died`."""
        self.scene.trace(self.name, "its process ends")
        self.scene.conduct.process_ended(self.name)

    def leaves(self) -> None:
        """See `WorkerApp.leaves`."""
        self.scene.reached("worker left in good order")
        self.scene.said_bye.update(self.ids[-1:])

    def crashes(self) -> None:
        """See `WorkerApp.crashes`."""
        self.scene.reached("worker crashed")

    def happened(self, event: LifecycleEvent) -> None:
        """See `WorkerApp.happened`."""
        self.scene.trace(self.name, f"event {event}")
        if isinstance(event, HandedOver):
            self.scene.reached("worker handed over")
        elif isinstance(event, Disconnected):
            self.scene.reached(f"worker disconnected with {event.code}")
            self.scene.conduct.disconnected(self.name, event.code, event.reason)
            if self.plan.old:
                self._crash.set()  # it knows no way back

    def registered_again(self) -> None:
        """See `WorkerApp.registered_again`."""
        self.scene.reached("worker registered anew")

    async def handle(self, session: WorkerSession) -> None:
        """See `WorkerApp.handle`."""
        worker = session._worker.worker
        handling = self.scene.begin_handling(worker, session.session, session._conversation)
        self.scene.conduct.begins(session.session, worker, session.chat_history)
        try:
            async for message in session:
                number = message.data["n"]
                handling.lost += [
                    (event.from_seq, event.to_seq) for event in session.events() if isinstance(event, LogLost)
                ]
                handling.got.append(number)
                self.scene.trace(self.name, f"h{handling.number} gets {number} as {message.seq}")
                self.scene.check.worker_got(handling, number, message.seq)
                if poison := self.scene.check.poison.meets(session.session, number):
                    await self._fail(poison)
                await trio.sleep(self._random.uniform(0.0, 2 * self.plan.thinks_s) if self.scene.chaos else 0.0)
                if self._random.random() < self.plan.fails_share and self.scene.chaos:
                    self.scene.reached("handler failed")
                    raise HandlerFailed
                for _ in range(1 + (self._random.random() < self.plan.talks_share)):
                    await self._say(session, handling, number)
        finally:
            handling.over = True
            self.scene.trace(self.name, f"h{handling.number} over")

    async def _fail(self, poison: Poison) -> None:
        if poison.fate == "raise":
            raise HandlerFailed
        self.crash(0.0)
        await trio.sleep_forever()

    async def _say(self, session: WorkerSession, handling: Handling, answering: int) -> None:
        count = len(handling.said) + 1
        seq = await session.send({"h": handling.number, "k": count, "of": answering})
        handling.said[seq] = count
        self.scene.trace(self.name, f"h{handling.number} says {count} as {seq}")


def dial_through(scene: "Scene", party: str) -> Dial:
    """The way of `party` to the load balancer."""

    def dial(url: str) -> AbstractAsyncContextManager[Carrier]:
        return _dial(scene, party, url)

    return dial


@asynccontextmanager
async def _dial(scene: "Scene", party: str, url: str) -> AsyncIterator[Carrier]:
    async with scene.connect(party, url) as (carrier, wire):
        yield Tapped(carrier, scene, party, wire)
