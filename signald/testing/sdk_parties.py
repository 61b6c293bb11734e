"""The SDK party: applications on the real SDK whose processes die and start again, as a supervisor starts them.

`ClientApp` and `WorkerApp` are the lives of one program. What the program does is in the methods a subclass overrides;
the names of these methods say when they are called. None of them may wait, but for those that are coroutines.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from signald.sdk.events import LifecycleEvent, MessageReceived
from signald.sdk.trio import (
    Client,
    ClientState,
    Dial,
    Leave,
    Refused,
    SessionGone,
    Worker,
    WorkerSession,
    open_client,
    open_worker,
)
from signald.testing.seeded import Chance

NEW_LIFE_AFTER_S = 0.5
"""The time a supervisor takes to start a program again."""
LEAVE_S = 10.0
"""The time a worker that is redeployed has to leave in good order."""

URL = "ws://lb"


class ClientApp:
    """A client's program, through all its lives: the next one goes on from the state that the last one has saved."""

    def __init__(self, name: str, dial: Dial, chance: Chance) -> None:
        self.name = name
        self.dial = dial
        self.chance = chance
        self.session = ""
        self.heard: list[tuple[int, Any]] = []
        """(seq, data), in order."""
        self.events: list[LifecycleEvent] = []
        self.client: Client | None = None
        """The SDK's client, while there is one."""
        self.connections = 0
        """Of all lives but the present one."""
        self.lives = 0
        self.gone: str | None = None
        """Why the session is over."""
        self._restart = trio.Event()
        self._resting_s = 0.0

    # --- what a subclass overrides ----------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Return further arguments of `open_client`."""
        return {}

    async def talk(self, client: Client) -> None:
        """Say what the program has to say."""

    async def hears(self, client: Client, message: MessageReceived) -> None:
        """Take a message; it is in `heard` already."""

    def connected(self, client: Client) -> None:
        """The client has a session."""

    def happened(self, event: LifecycleEvent) -> None:
        """Take an event; it is in `events` already."""

    def over(self, why: str) -> None:
        """The session is over, or none was granted."""

    def died(self) -> None:
        """The process has ended; another one will start."""

    # --- its lives --------------------------------------------------------------------------------------------------

    @property
    def connections_now(self) -> int:
        """The number of connections it has opened."""
        return self.connections + (self.client.connections if self.client is not None else 0)

    def restart(self, resting_s: float) -> None:
        """Let the process die; another one goes on from the saved state after `resting_s`."""
        self._resting_s = resting_s
        self._restart.set()

    async def run(self) -> None:
        """Live until cancelled."""
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
            self.died()
            await trio.sleep(self._resting_s + NEW_LIFE_AFTER_S)

    def _over(self, why: str) -> None:
        self.gone = why
        self.client = None
        self.over(why)

    async def _live(self, state: ClientState | None) -> ClientState | None:
        entropy = self.chance.entropy(f"{self.name}.{self.lives}")
        async with open_client(URL, entropy=entropy, state=state, dial=self.dial, **self.options()) as client:
            self.client, self.session = client, client.session
            self.connected(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, client, nursery.cancel_scope)
                nursery.start_soon(self.talk, client)
                nursery.start_soon(self._attend, client)
                nursery.start_soon(self._wait_restart, nursery.cancel_scope)
            self.connections += client.connections
            self.take_events(client)
            self.client = None
            return None if self.gone is not None else client.state()

    async def _wait_restart(self, scope: trio.CancelScope) -> None:
        await self._restart.wait()
        scope.cancel(reason="the process dies")

    async def _attend(self, client: Client) -> None:
        while True:
            self._note(await client.events.receive())

    def take_events(self, client: Client) -> None:
        """Take the events that wait, ahead of the task that does so."""
        while (event := client.events.receive_nowait()) is not None:
            self._note(event)

    def _note(self, event: LifecycleEvent) -> None:
        self.events.append(event)
        self.happened(event)

    async def _listen(self, client: Client, scope: trio.CancelScope) -> None:
        try:
            async for message in client:
                self.heard.append((message.seq, message.data))
                await self.hears(client, message)
        except SessionGone as gone:
            self.take_events(client)
            self._over(f"SessionGone: {gone}")
        else:
            self.take_events(client)
            self._over(f"ended: {client.ended}")
        scope.cancel(reason="the session is over")


class WorkerApp:
    """A worker's program, through all its lives: each one registers as a new worker."""

    def __init__(self, name: str, dial: Dial, chance: Chance, *, capacity: int = 10) -> None:
        self.name = name
        self.dial = dial
        self.chance = chance
        self.capacity = capacity
        self.worker: Worker | None = None
        """The SDK's worker, while there is one."""
        self.ids: list[str] = []
        """The worker ids it was given, in order."""
        self.lives = 0
        self.connections = 0
        """Of all lives but the present one."""
        self._crash = trio.Event()
        self._resting_s = 0.0
        self._leaves = False
        self._hands_over = False

    # --- what a subclass overrides ----------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Return further arguments of `open_worker`."""
        return {}

    async def handle(self, session: WorkerSession) -> None:
        """Serve a session; the base answers each message with its data."""
        async for message in session:
            await session.send(message.data)

    def registered(self, worker: Worker) -> None:
        """The worker has an id, the last one of `ids`."""

    def happened(self, event: LifecycleEvent) -> None:
        """Take an event."""

    def registered_again(self) -> None:
        """The SDK has registered as a new worker by itself."""

    def terminated(self) -> None:
        """The worker has ended by itself, for instance after `terminate_app`."""

    def leaves(self) -> None:
        """The process is about to leave in good order."""

    def crashes(self) -> None:
        """The process is about to die."""

    def turned_away(self, why: str) -> None:
        """The worker was refused, or has lost its place."""

    def died(self) -> None:
        """The process has ended; another one will start."""

    # --- its lives --------------------------------------------------------------------------------------------------

    @property
    def connections_now(self) -> int:
        """The number of connections it has opened."""
        return self.connections + (self.worker.connections if self.worker is not None else 0)

    def crash(self, resting_s: float, *, leaves: bool = False, hands_over: bool = False) -> None:
        """Let the process die, or leave in good order; another one, which knows nothing, starts after `resting_s`.

        One that leaves waits for its sessions to end, or with `hands_over` gives them to other workers.
        """
        self._resting_s = resting_s
        self._leaves, self._hands_over = leaves, hands_over
        self._crash.set()

    async def run(self) -> None:
        """Live until cancelled."""
        while True:
            self.lives += 1
            self._crash = trio.Event()
            try:
                await self._live(self.handle)
            except* (Refused, SessionGone) as group:
                self.turned_away(str(group.exceptions[0]))
            self.worker = None
            self.died()
            await trio.sleep(self._resting_s + NEW_LIFE_AFTER_S)

    async def _live(self, handler: Callable[[WorkerSession], Coroutine[Any, Any, None]]) -> None:
        async with open_worker(
            URL,
            handler,
            instance_id=f"{self.name}-{self.lives}",
            capacity=self.capacity,
            entropy=self.chance.entropy(f"{self.name}.{self.lives}"),
            dial=self.dial,
            **self.options(),
        ) as worker:
            self.worker = worker
            self.ids.append(worker.worker)
            self.registered(worker)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._attend, worker)
                    nursery.start_soon(self._wait_crash, worker, scope)
                    await worker.wait()
                    self.terminated()
                    nursery.cancel_scope.cancel(reason="the worker has left")
            self.connections += worker.connections

    async def _wait_crash(self, worker: Worker, scope: trio.CancelScope) -> None:
        await self._crash.wait()
        if self._leaves:
            self.leaves()
            if self._hands_over:
                await worker.drain(Leave(graceful_s=LEAVE_S), "redeployed")
            else:
                with trio.move_on_after(LEAVE_S):
                    await worker.leave("redeployed")
        else:
            self.crashes()
        scope.cancel(reason="the process dies")

    async def _attend(self, worker: Worker) -> None:
        while True:
            event = await worker.events.receive()
            self.happened(event)
            if worker.worker != self.ids[-1]:
                self.ids.append(worker.worker)
                self.registered_again()
