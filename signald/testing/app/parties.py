"""The process of a worker in a test: it crashes, leaves and starts again as the test wants."""

from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from signald.sdk.errors import SessionGone
from signald.sdk.front.worker import Handler, Worker, WorkerSession, open_worker
from signald.testing.app.bridge import Bridge, Way

RESTART_S = 0.5
"""The time that a supervisor takes to start a process again."""

LEAVE_S = 10.0
"""The time that a process which is told to stop waits for its sessions: what the shortest usual stop timeout leaves."""


class WorkerProcess:
    """A worker of the test: the lives of one program, which all run the same handler."""

    def __init__(self, name: str, handler: Handler, bridge: Bridge, way: Way, options: Mapping[str, Any]) -> None:
        self.name = name
        self.worker: Worker | None = None
        """The SDK's worker, while a process runs."""
        self.lives = 0
        """Processes that were started so far."""
        self.errors: list[Exception] = []
        """What handlers have raised, in order. The SDK has given each of these sessions back."""
        self._handler = handler
        self._bridge = bridge
        self._way = way
        self._options = options
        self._scope = anyio.CancelScope()
        self._restart = anyio.Event()
        self._up = anyio.Event()
        self._stopped = anyio.Event()
        self._may_live = True

    def __repr__(self) -> str:
        return f"WorkerProcess({self.name!r}, lives={self.lives}, runs={self.worker is not None})"

    async def crash(self, *, restarts_after_s: float | None = RESTART_S) -> None:
        """Let the process die as by SIGKILL: no goodbye, and its handlers end where they stand.

        Another one starts `restarts_after_s` seconds later, as a new worker, and this call returns when it is registered. With None
        none starts.

        Raises:
            RuntimeError: no process runs.
        """
        if self.worker is None:
            raise RuntimeError(f"no process of {self.name} runs")
        await self._bridge.run(self._kill_party)
        self._scope.cancel(reason="the process is killed")
        await self._ended()
        if restarts_after_s is not None:
            await self.start(after_s=restarts_after_s)

    async def leave(self, reason: str = "") -> None:
        """Let the worker take no more sessions, wait for those there are, and end: at most 10 s.

        Raises:
            RuntimeError: no process runs.
        """
        if self.worker is None:
            raise RuntimeError(f"no process of {self.name} runs")
        with anyio.move_on_after(LEAVE_S):
            await self.worker.leave(reason)
        self._scope.cancel(reason="the process has left")
        await self._ended()

    async def start(self, *, after_s: float = 0.0) -> None:
        """Start a process where none runs; return when its worker is registered."""
        await self._ended()
        await anyio.sleep(after_s)
        await self._bridge.run(self._revive_party)
        self._restart.set()
        await self._up.wait()

    async def _ended(self) -> None:
        while self.worker is not None:
            await anyio.lowlevel.checkpoint()

    async def _kill_party(self) -> None:
        self._bridge.fleet.network.kill_party(self.name)

    async def _revive_party(self) -> None:
        self._bridge.fleet.network.revive_party(self.name)

    async def run(self, *, task_status: "TaskStatus[None]" = anyio.TASK_STATUS_IGNORED) -> None:
        """Live until `stop`; report the start when the first process is registered."""
        while self._may_live:
            self.lives += 1
            with anyio.CancelScope() as self._scope:
                await self._live(task_status)
            self.worker = None
            self._restart, self._up = anyio.Event(), anyio.Event()
            if self._may_live:
                await self._restart.wait()
        self._stopped.set()

    async def stop(self) -> None:
        """End the process, if one runs, and start none again."""
        self._may_live = False
        self._scope.cancel(reason="the worker's block was left")
        self._restart.set()
        await self._stopped.wait()

    async def _live(self, task_status: "TaskStatus[None]") -> None:
        async with open_worker(
            self._way.url,
            self._handle,
            instance_id=f"{self.name}-{self.lives}",
            entropy=self._bridge.entropy(f"{self.name}.{self.lives}"),
            dial=self._way.dial,
            open_stream=self._way.open_stream,
            **self._options,
        ) as worker:
            self.worker = worker
            self._up.set()
            if self.lives == 1:
                task_status.started()
            try:
                await worker.wait()
            except (
                SessionGone
            ) as gone:  # after a long stall: the process ends, and a test that wants another one starts it
                self.errors.append(gone)

    async def _handle(self, session: WorkerSession) -> None:
        try:
            await self._handler(session)
        except Exception as error:
            self.errors.append(error)
            raise
