"""The applications of a simulation: clients that say numbered things, workers that answer them, both on the real SDK.

They note what they see and judge nothing; the checkers do.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.core import SessionCore
from signald.sdk.events import Disconnected, HandedOver, LifecycleEvent, LogLost, MessageReceived, Replaced
from signald.sdk.network import Carrier
from signald.sdk.trio import Client, Dial, SessionGone, Worker, WorkerSession
from signald.testing.sdk_parties import ClientApp, WorkerApp
from tests.sim.fleets import OTHERS
from tests.sim.habits import Tapped
from tests.sim.plan import ClientPlan, WorkerPlan
from tests.sim.poison import Poison
from tests.sim.speech import PIECES_OF_JOB_MAX, AtWorker, Given

if TYPE_CHECKING:
    from tests.sim.scene import Scene

Mark = tuple[str, int, str]
"""A stream, an attempt, and how the piece ends it; empty: it does not."""

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
    stream: tuple[str, int] | None = None
    """The stream in which it speaks, and the attempt."""
    streams: int = 0
    """How many it has begun."""
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    """What is said for jobs and in streams is said by several tasks."""


class ClientParty(ClientApp):
    """A client that says numbered things."""

    def __init__(self, scene: "Scene", plan: ClientPlan) -> None:
        super().__init__(plan.name, scene.dial(plan.name), scene.chance)
        self.scene = scene
        self.plan = plan
        self.said = 0
        """How many messages it has said; the n-th has the number n and, as it happens, the seq n."""
        self.byed = False
        self.turned_away = 0
        """Connections on which it was not let in, because the core server had no answer."""
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
        want = {"want": OTHERS} if self.scene.plan.fleet is not None else {}
        return {"auth": auth, "meta": {"name": self.name}, "receipts": self.plan.receipts, "history": 5, **want}

    def connected(self, client: Client) -> None:
        """See `ClientApp.connected`."""
        core = self.scene.plan.core
        if core is not None and core.policy == "closed" and client.session not in self.scene.sessions:
            self.turned_away = client.connections - 1
        self.scene.sessions[client.session] = self
        self.scene.trace(self.name, f"has {client.session}")
        self.scene.check.event_told.connected(self.name, client.settings)

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
        self.scene.check.round_trips.heard(self, message.data)

    async def talk(self, client: Client) -> None:
        """See `ClientApp.talk`."""
        try:
            while self.said < self.plan.messages and self.scene.chaos:
                await trio.sleep(self._random.uniform(0.0, 2 * self.plan.every_s))
                number = self.said + 1
                self.scene.check.round_trips.says(self, number)
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
        labels = {"labels": OTHERS} if self.scene.plan.fleet is not None else {}
        return {"auth": self.scene.credential(self.name, "worker"), **labels}

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
            if self.scene.rooming is not None and not self.plan.old:
                async with self.scene.rooming.of_worker(self.name, session.session):
                    await self._serves(session, handling)
            else:
                await self._serves(session, handling)
        finally:
            handling.over = True
            if session.ended == "handed over":
                self.scene.reached("session handed over by its worker")
            self.scene.trace(self.name, f"h{handling.number} over")

    async def _serves(self, session: WorkerSession, handling: Handling) -> None:
        if self.scene.speaking is not None and not self.plan.old:
            await self._speaks(session, handling)
        else:
            await self._converses(session, handling)

    async def _speaks(self, session: WorkerSession, handling: Handling) -> None:
        """Converse, and do jobs meanwhile."""
        assert self.scene.speaking is not None
        at = self.scene.speaking.at(self.name, session.session)
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._adopts, session, handling, at)
            nursery.start_soon(self._works, session, handling, at, nursery)
            try:
                await self._converses(session, handling)
            except Exception as raised:
                error = raised  # as it is: an application has no groups to look at
            nursery.cancel_scope.cancel(reason="the session is over here")
        if error is not None:
            raise error

    async def _adopts(self, session: WorkerSession, handling: Handling, at: AtWorker) -> None:
        """Go on with a stream that was found open, and end what is open when the troubles are over."""
        assert self.scene.speaking is not None
        if at.found and self._random.random() < self.scene.speaking.speech.adopts:
            one = self._random.choice(at.found)
            handling.stream = one["stream"], one["attempt"] + 1
            await self._say(session, handling, 0, (*handling.stream, ""))
        while True:
            while self.scene.chaos:  # noqa: ASYNC110
                await trio.sleep(0.25)
            if handling.stream is not None:
                await self._say(session, handling, 0, (*handling.stream, "complete"))
                handling.stream = None
            await trio.sleep(0.25)

    async def _works(self, session: WorkerSession, handling: Handling, at: AtWorker, nursery: trio.Nursery) -> None:
        async for given in at.given[1]:
            nursery.start_soon(self._does, session, handling, at, given)

    async def _does(self, session: WorkerSession, handling: Handling, at: AtWorker, given: Given) -> None:
        """Do a job: say its result in pieces."""
        fails = self._random.random() < 0.1
        for left in reversed(range(self._random.randint(1, PIECES_OF_JOB_MAX))):
            await trio.sleep(self._random.uniform(0.0, 2 * self.plan.thinks_s + 0.5) if self.scene.chaos else 0.0)
            end = "cancelled" if given.job in at.cancelled else "" if left else "failed" if fails else "complete"
            await self._say(session, handling, 0, (given.job, given.attempt, end))
            if end:
                return

    def _mark(self, handling: Handling) -> Mark | None:
        """Return which piece the next thing it says is, of the stream in which it speaks."""
        speech = self.scene.plan.speech
        if speech is None or self.plan.old:
            return None
        if handling.stream is None:
            if self._random.random() >= speech.streams or not self.scene.chaos:
                return None
            handling.streams += 1
            handling.stream = f"t{handling.number}.{handling.streams}", 1
            return (*handling.stream, "")
        assert self.scene.speaking is not None
        stream = handling.stream
        if stream[0] in self.scene.speaking.at(self.name, handling.session).cancelled:
            handling.stream = None
            return (*stream, "cancelled")
        if self._random.random() < 0.3:
            handling.stream = None
            return (*stream, "complete")
        return (*stream, "") if self._random.random() < 0.8 else None

    async def _converses(self, session: WorkerSession, handling: Handling) -> None:
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

    async def _fail(self, poison: Poison) -> None:
        if poison.fate == "raise":
            raise HandlerFailed
        self.crash(0.0)
        await trio.sleep_forever()

    async def _say(self, session: WorkerSession, handling: Handling, answering: int, mark: Mark | None = None) -> None:
        if self.scene.speaking is None:
            await self._send(session, handling, {"h": handling.number, "k": len(handling.said) + 1, "of": answering})
            return
        async with handling.lock:
            mark = mark or self._mark(handling)
            said = {"h": handling.number, "k": len(handling.said) + 1, "of": answering}
            try:
                await self._send(session, handling, said if mark is None else {**said, "s": mark})
            except SessionGone:
                if answering:
                    raise  # the conversation is over; what is said aside from it does not matter

    async def _send(self, session: WorkerSession, handling: Handling, said: dict[str, Any]) -> None:
        count = said["k"]
        seq = await session.send(said)
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
