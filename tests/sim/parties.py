"""The applications of a simulation: clients that say numbered things, workers that answer them, both on the real SDK.

They note what they see and judge nothing; the checkers do.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from signald.sdk.carrier import Carrier
from signald.sdk.core import SessionCore
from signald.sdk.events import Disconnected, HandedOver, LifecycleEvent, LogLost, Replaced
from signald.sdk.trio import (
    Client,
    ClientState,
    Dial,
    Refused,
    SessionGone,
    Worker,
    WorkerSession,
    open_client,
    open_worker,
)
from tests.sim.habits import Tapped
from tests.sim.plan import ClientPlan, WorkerPlan
from tests.sim.poison import Poison

if TYPE_CHECKING:
    from tests.sim.scene import Scene

NEW_LIFE_AFTER_S = 0.5

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


class ClientParty:
    """A client's application, through all its lives."""

    def __init__(self, scene: "Scene", plan: ClientPlan) -> None:
        self.scene = scene
        self.plan = plan
        self.name = plan.name
        self.session = ""
        self.said = 0
        """How many messages it has said; the n-th has the number n and, as it happens, the seq n."""
        self.heard: list[tuple[int, dict[str, int]]] = []
        """(seq, what), in order."""
        self.events: list[LifecycleEvent] = []
        self.client: Client | None = None
        self.connections = 0
        self.lives = 0
        self.gone: str | None = None
        """Why its session is over, however it ended."""
        self.byed = False
        self._random: random.Random = scene.chance.random(f"talk {plan.name}")
        self._restart: trio.Event = trio.Event()
        self._resting_s = 0.0
        self.reads_from = -float("inf")
        """Before that it reads nothing."""

    @property
    def connections_now(self) -> int:
        """How many connections it has opened."""
        return self.connections + (self.client.connections if self.client is not None else 0)

    def is_over(self) -> bool:
        """Its session has ended, or is about to by its own wish."""
        return self.gone is not None or self.byed

    @property
    def lost(self) -> list[tuple[int, int]]:
        """The ranges it was told the store has lost."""
        return [(event.from_seq, event.to_seq) for event in self.events if isinstance(event, LogLost)]

    def restart(self, resting_s: float) -> None:
        """Its process dies, and another one goes on from the saved state."""
        self._resting_s = resting_s
        self._restart.set()

    async def run(self) -> None:
        """Live until cancelled."""
        await trio.sleep(self.plan.starts_at)
        state: ClientState | None = None
        while True:
            self.lives += 1
            self._restart = trio.Event()
            try:
                state = await self._live(state)
            except (Refused, SessionGone) as gone:
                self._over(f"{type(gone).__name__}: {gone}")
            if self.gone is not None:
                await trio.sleep_forever()
            self.scene.trace(self.name, "restarts")
            self.scene.conduct.process_ended(self.name)
            self.scene.reached("client restarted from its state")
            await trio.sleep(self._resting_s + NEW_LIFE_AFTER_S)

    def _over(self, why: str) -> None:
        self.gone = why
        self.client = None
        self.scene.trace(self.name, f"over: {why}")
        self.scene.check.client_over(self)

    async def _live(self, state: ClientState | None) -> ClientState | None:
        entropy = self.scene.chance.entropy(f"{self.name}.{self.lives}")
        async with open_client(
            "ws://lb",
            auth=self.scene.credential(self.name, "client"),
            meta={"name": self.name},
            receipts=self.plan.receipts,
            history=5,
            entropy=entropy,
            state=state,
            dial=self.scene.dial(self.name),
        ) as client:
            self.client, self.session = client, client.session
            self.scene.sessions[client.session] = self
            self.scene.trace(self.name, f"has {client.session}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, client, nursery.cancel_scope)
                nursery.start_soon(self._talk, client)
                nursery.start_soon(self._attend, client)
                nursery.start_soon(self._wait_restart, nursery.cancel_scope)
            self.connections += client.connections
            self._take_events(client)
            self.client = None
            return None if self.gone is not None else client.state()

    async def _wait_restart(self, scope: trio.CancelScope) -> None:
        await self._restart.wait()
        scope.cancel(reason="the process dies")

    async def _attend(self, client: Client) -> None:
        """Take note of the events."""
        while True:
            event = await client.events.receive()
            self._note(event)

    def _take_events(self, client: Client) -> None:
        while True:
            try:
                self._note(client.events.receive_nowait())
            except trio.WouldBlock:
                return

    def _note(self, event: LifecycleEvent) -> None:
        self.events.append(event)
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

    async def _listen(self, client: Client, scope: trio.CancelScope) -> None:
        try:
            async for message in client:
                self.heard.append((message.seq, message.data))
                self.scene.trace(self.name, f"hears {message.seq} {message.data}")
                if self.scene.plan.store_may_lose:
                    # A loss was told before this message, but to another task: it has its turn now, at the latest in the next.
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    self._take_events(client)  # where that task has just begun
                self.scene.check.client_heard(self)
        except SessionGone as gone:
            self._take_events(client)
            self._over(f"SessionGone: {gone}")
        else:
            self._take_events(client)
            self._over(f"ended: {client.ended}")
        scope.cancel(reason="the session is over")

    async def _talk(self, client: Client) -> None:
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


class WorkerParty:
    """A worker's application, through all its lives."""

    def __init__(self, scene: "Scene", plan: WorkerPlan) -> None:
        self.scene = scene
        self.plan = plan
        self.name = plan.name
        self.worker: Worker | None = None
        self.ids: list[str] = []
        self.lives = 0
        self.connections = 0
        self._random: random.Random = scene.chance.random(f"work {plan.name}")
        self._crash = trio.Event()
        self._resting_s = 0.0
        self._leaves = False

    @property
    def connections_now(self) -> int:
        """How many connections it has opened."""
        return self.connections + (self.worker.connections if self.worker is not None else 0)

    def crash(self, resting_s: float, *, leaves: bool = False) -> None:
        """Its process dies, or `leaves` in good order; another one, which knows nothing, comes in its place."""
        self._resting_s = resting_s
        self._leaves = leaves
        self._crash.set()

    async def run(self) -> None:
        """Live until cancelled."""
        await trio.sleep(self.plan.starts_at)
        while True:
            self.lives += 1
            self._crash = trio.Event()
            try:
                async with open_worker(
                    "ws://lb",
                    self._handle,
                    auth=self.scene.credential(self.name, "worker"),
                    instance_id=f"{self.name}-{self.lives}",
                    capacity=self.plan.capacity,
                    entropy=self.scene.chance.entropy(f"{self.name}.{self.lives}"),
                    dial=self.scene.dial(self.name),
                ) as worker:
                    self.worker = worker
                    self.ids.append(worker.worker)
                    self.scene.trace(self.name, f"is {worker.worker}")
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._attend, worker)
                            nursery.start_soon(self._wait_crash, worker, scope)
                            await worker.wait()
                            if self.plan.old:
                                self.scene.reached("old program asked to terminate")
                            nursery.cancel_scope.cancel(reason="the worker has left")
                    self.connections += worker.connections
            except* (Refused, SessionGone) as group:
                gone = group.exceptions[0]
                self.scene.trace(self.name, f"turned away: {gone}")
                self.scene.check.worker_gone(self, str(gone))
            self.worker = None
            self.scene.trace(self.name, "its process ends")
            self.scene.conduct.process_ended(self.name)
            await trio.sleep(self._resting_s + NEW_LIFE_AFTER_S)

    async def _wait_crash(self, worker: Worker, scope: trio.CancelScope) -> None:
        await self._crash.wait()
        if self._leaves:
            self.scene.reached("worker left in good order")
            self.scene.said_bye.update(self.ids[-1:])
            with trio.move_on_after(10):
                await worker.leave("redeployed")
        else:
            self.scene.reached("worker crashed")
        scope.cancel(reason="the process dies")

    async def _attend(self, worker: Worker) -> None:
        while True:
            event = await worker.events.receive()
            self.scene.trace(self.name, f"event {event}")
            if isinstance(event, HandedOver):
                self.scene.reached("worker handed over")
            elif isinstance(event, Disconnected):
                self.scene.reached(f"worker disconnected with {event.code}")
                self.scene.conduct.disconnected(self.name, event.code, event.reason)
                if self.plan.old:
                    self._crash.set()  # it knows no way back
            if worker.worker != self.ids[-1]:
                self.ids.append(worker.worker)
                self.scene.reached("worker registered anew")

    async def _handle(self, session: WorkerSession) -> None:
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
