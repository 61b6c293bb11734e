"""The processes of a worker in a test: they crash, leave, start again and are deployed as the test wants."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from signald.sdk.errors import SessionGone
from signald.sdk.front.departure import DEFAULT_LEAVE, Leave
from signald.sdk.front.worker import Worker, open_worker
from signald.sdk.front.worker_session import Handler, WorkerSession
from signald.testing.app.bridge import Bridge, Way
from signald.testing.app.steps import Deploying, Script, Step, StepKind

RESTART_S = 0.5
"""The time that a supervisor takes to start a process again."""

LEAVE_S = 10.0
"""The time that a process which is told to stop waits for its sessions: what the shortest usual stop timeout leaves."""

TAKEN_S = 1.0
"""How long a deploy step by step waits for the frames to the clients before its last step. There is none to a client that is away."""

Show = Callable[[StepKind, int], Awaitable[None]]
"""Shows a step, after so many moves of clients; returns when the deploy may go on."""


class _Life:
    """One process, from its start to its end."""

    def __init__(self, number: int, handler: Handler) -> None:
        self.number = number
        self.handler = handler
        self.worker: Worker | None = None
        """The SDK's worker, from its registration to the end of the process."""
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class WorkerProcess:
    """A worker of the test: the lives of one program. A deploy may bring another handler."""

    def __init__(
        self, name: str, handler: Handler, bridge: Bridge, way: Way, options: Mapping[str, Any], tasks: TaskGroup
    ) -> None:
        self.name = name
        self.lives = 0
        """Processes that were started so far."""
        self.errors: list[Exception] = []
        """What handlers have raised, in order. The SDK has given each of these sessions back."""
        self._handler = handler
        self._bridge = bridge
        self._way = way
        self._options = options
        self._tasks = tasks
        self._running: list[_Life] = []
        """The processes that run, the oldest first: two while a deploy is under way."""

    def __repr__(self) -> str:
        return f"WorkerProcess({self.name!r}, lives={self.lives}, runs={self.worker is not None})"

    @property
    def worker(self) -> Worker | None:
        """The SDK's worker, while a process runs; the newer one of a deploy."""
        return next((life.worker for life in reversed(self._running) if life.worker is not None), None)

    async def crash(self, *, restarts_after_s: float | None = RESTART_S) -> None:
        """Let the process die as by SIGKILL: no goodbye, and its handlers end where they stand. In a deploy both processes die.

        Another one starts `restarts_after_s` seconds later, as a new worker, and this call returns when it is registered. With None
        none starts.

        Raises:
            RuntimeError: no process runs.
        """
        self._oldest()
        await self._bridge.run(self._kill_party)
        await self._end("the process is killed")
        if restarts_after_s is not None:
            await self.start(after_s=restarts_after_s)

    async def leave(self, reason: str = "") -> None:
        """Let the worker take no more sessions, wait for those there are, and end: at most 10 s.

        Raises:
            RuntimeError: no process runs.
        """
        life, worker = self._oldest()
        with anyio.move_on_after(LEAVE_S):
            await worker.leave(reason)
        life.scope.cancel(reason="the process has left")
        await life.ended.wait()

    async def deploy(self, handler: Handler | None = None, *, leave: Leave = DEFAULT_LEAVE) -> None:
        """Replace the process: the next one starts, and the one before leaves as at SIGTERM. Returns when that one has ended.

        Each session is handed over at the next good moment of its handler, with the state that this one leaves. `handler` is that of the
        next release; None: the same.

        Raises:
            RuntimeError: no process runs.
            Refused, ValueError: as `open_worker`, of the next process.
        """

        async def shows(_kind: StepKind, _moves: int) -> None:
            """Hold nothing."""

        await self.replace(handler, leave, shows)

    def deploying(self, handler: Handler | None = None, *, leave: Leave = DEFAULT_LEAVE) -> Deploying:
        """Return a `deploy` that goes on step by step: `async for step in worker.deploying()`."""
        return Deploying(_Steps(self, self._bridge, self._tasks, handler, leave))

    async def start(self, *, after_s: float = 0.0) -> None:
        """Start a process where none runs; return when its worker is registered."""
        await self._end(None)
        await anyio.sleep(after_s)
        await self._bridge.run(self._revive_party)
        await self.begin()

    # --- for the cluster --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start a process; return when its worker is registered. Raises Refused, ValueError: as `open_worker`."""
        self.lives += 1
        life = _Life(self.lives, self._handler)
        self._running.append(life)
        await self._tasks.start(self._live, life)

    async def stop(self) -> None:
        """End all processes."""
        await self._end("the worker's block was left")

    async def replace(self, handler: Handler | None, leave: Leave, shows: Show) -> None:
        """See `deploy`; `shows` is told of each step of the processes."""
        life, worker = self._oldest()
        self._handler = handler or self._handler
        await self.begin()
        await self._tell(f"process {self.lives} is ready")
        await shows(StepKind.WORKER_READY, 0)
        await self._tell(f"process {life.number} gets SIGTERM")
        held = len(worker.sessions)
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(worker.drain, leave, "deploy")
            await shows(StepKind.WORKER_LEAVES, 0)
        await life.ended.wait()
        await self._tell(f"process {life.number} has exited")
        await shows(StepKind.WORKER_EXITED, held)

    # --- processes --------------------------------------------------------------------------------------------------

    def _oldest(self) -> tuple[_Life, Worker]:
        for life in self._running:
            if life.worker is not None:
                return life, life.worker
        raise RuntimeError(f"no process of {self.name} runs")

    async def _end(self, reason: str | None) -> None:
        """Wait until no process runs; end them for a `reason`."""
        for life in list(self._running):
            if reason is not None:
                life.scope.cancel(reason=reason)
        for life in list(self._running):
            await life.ended.wait()

    async def _tell(self, text: str) -> None:
        async def tell() -> None:
            self._bridge.fleet.account(self.name, text)

        await self._bridge.run(tell)

    async def _kill_party(self) -> None:
        self._bridge.fleet.network.kill_party(self.name)

    async def _revive_party(self) -> None:
        self._bridge.fleet.network.revive_party(self.name)

    async def _live(self, life: _Life, *, task_status: "TaskStatus[None]" = anyio.TASK_STATUS_IGNORED) -> None:
        begun = False
        try:
            with life.scope:
                async with open_worker(
                    self._way.url,
                    partial(self._handle, life.handler),
                    instance_id=f"{self.name}-{life.number}",
                    entropy=self._bridge.entropy(f"{self.name}.{life.number}"),
                    dial=self._way.dial,
                    open_stream=self._way.open_stream,
                    **self._options,
                ) as life.worker:
                    begun = True
                    task_status.started()
                    await self._serve(life.worker)
        finally:
            life.worker = None
            self._running.remove(life)
            life.ended.set()
        if not begun:
            task_status.started()  # it was ended before it was registered

    async def _serve(self, worker: Worker) -> None:
        try:
            await worker.wait()
        except SessionGone as gone:  # after a long stall: the process ends, and a test that wants another one starts it
            self.errors.append(gone)
        await worker.departure.left()

    async def _handle(self, handler: Handler, session: WorkerSession) -> None:
        try:
            await handler(session)
        except Exception as error:
            self.errors.append(error)
            raise


class _Steps:
    """The steps of one deploy of a worker; see `Stepping`."""

    def __init__(
        self, process: WorkerProcess, bridge: Bridge, tasks: TaskGroup, handler: Handler | None, leave: Leave
    ) -> None:
        self._process = process
        self._bridge = bridge
        self._tasks = tasks
        self._handler = handler
        self._leave = leave
        self._failure: Exception | None = None

    async def begin_steps(self) -> Script:
        """See `Stepping`."""
        script = await self._bridge.run(self._bridge.fleet.begin_worker_steps, self._process.name)
        self._tasks.start_soon(self._deploy, script)
        return script

    async def _deploy(self, script: Script) -> None:
        async def shows(kind: StepKind, moves: int) -> None:
            await self._bridge.run(script.moved, moves, TAKEN_S)
            await self._bridge.run(script.show, kind, party=self._process.name)

        try:
            await self._process.replace(self._handler, self._leave, shows)
        except Exception as error:  # noqa: BLE001 - it is raised again where the steps are read
            self._failure = error
        await self._bridge.run(self._bridge.fleet.finish_steps, script)

    async def next_step(self, script: Script) -> Step | None:
        """See `Stepping`."""
        return await self._bridge.run(self._bridge.fleet.next_step, script)

    async def end_steps(self, script: Script) -> None:
        """See `Stepping`. Raises what `WorkerProcess.deploy` raises."""
        await self._bridge.run(self._bridge.fleet.end_steps, script)
        if self._failure is not None:
            raise self._failure
