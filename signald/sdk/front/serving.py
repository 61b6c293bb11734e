"""`run_worker`: a worker as a program of its own, which its supervisor starts, asks, and stops.

run_worker
├── signals          SIGTERM, SIGINT → `Worker.drain`
├── health port      where one is asked for
├── watchdog         the loop is blocked: says where
├── load             where the program says it
└── the worker       `open_worker`, behind `setup`
"""

import inspect
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from ssl import SSLContext
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from signald import __version__
from signald.ids import Entropy
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.front.departure import DEFAULT_LEAVE, Leave, Mode
from signald.sdk.front.health import listen, port_of, serve
from signald.sdk.front.jobs import OnJob
from signald.sdk.front.load import Load, keep_saying
from signald.sdk.front.party import Auth, Urls
from signald.sdk.front.stage import Env, chosen
from signald.sdk.front.watchdog import watch
from signald.sdk.front.worker import Worker, open_worker
from signald.sdk.front.worker_session import Handler
from signald.sdk.network import Dial, OpenStream
from signald.sdk.party_records import DEFAULT_TIMING, Timing

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

Setup = Callable[[], Any]
"""A function, plain or async, that prepares what sessions need. A plain one runs in a thread, so that it blocks no signal."""


class _Program:
    """The worker of a program, before and after it is one."""

    def __init__(self, instance_id: str, leave: Leave) -> None:
        self.instance_id = instance_id
        self.leave = leave
        self.worker: Worker | None = None
        self.stopping: signal.Signals | None = None
        """The first signal that asked for the end."""

    def state(self) -> dict[str, object]:
        """What `/worker` shows."""
        said: dict[str, object] = {"instance": self.instance_id, "sdk_version": __version__, "ready": False}
        worker = self.worker
        if worker is None:
            return {**said, "state": "stopping" if self.stopping else "starting"}
        mode = worker.departure.mode
        return {
            **said,
            "state": "serving" if mode is None else f"leaving, {mode.name.lower()}",
            "ready": worker.connected and mode is None and not worker.over,
            "worker": worker.worker,
            "connected": worker.connected,
            "connections": worker.connections,
            "capacity": worker.capacity,
            "sessions": len(worker.sessions),
            "jobs": sum(len(session.jobs) for session in worker.sessions.values()),
            "streams": sum(len(session.out_streams) for session in worker.sessions.values()),
        }

    async def take_signals(self, tasks: TaskGroup) -> None:
        """Leave at the first signal, at once at the second."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                first = self.stopping is None
                self.stopping = self.stopping or number
                if self.worker is None:
                    tasks.cancel_scope.cancel(reason="stopped before it was registered")
                    return
                log.info("%s: the worker leaves%s", number.name, "" if first else " at once")
                leave = self.leave if first else Leave(Mode.IMMEDIATE)
                tasks.start_soon(self.worker.drain, leave, number.name)


async def run_worker(
    urls: Urls,
    handler: Handler,
    *,
    instance_id: str,
    capacity: int | Env[int] = 1,
    labels: Mapping[str, str] | None = None,
    config: Any = None,
    auth: Auth = None,
    api: bool = False,
    on_job: OnJob = None,
    on_terminate: Callable[[str], Awaitable[None]] | None = None,
    setup: Setup | None = None,
    load: Load | None = None,
    load_max: float | Env[float] = inf,
    health: str | Env[str | None] | None = None,
    leave: Leave | Env[Leave] = DEFAULT_LEAVE,
    signals: bool = True,
    backoff: Backoff = DEFAULT_BACKOFF,
    timing: Timing = DEFAULT_TIMING,
    bounds: Bounds = DEFAULT_BOUNDS,
    ssl_context: SSLContext | None = None,
    entropy: Entropy | None = None,
    dial: Dial | None = None,
    open_stream: OpenStream | None = None,
    task_status: "TaskStatus[Worker]" = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve sessions until signald terminates the worker, or a signal does; see `open_worker`.

    SIGTERM or SIGINT: the worker takes no new sessions, hands those that it has to other workers as `leave` says, and returns the moment it
    holds nothing. A second signal gives back all at once. Where SIGINT came first, KeyboardInterrupt is raised at the end. In a thread that
    is not the main one, or with `signals` false, no signal is taken.

    `setup` runs before the worker is registered, and its value is `session.prepared`. `load` is asked every few seconds; from `load_max` on
    the worker takes no more sessions. `health` is where the health port listens, such as `0.0.0.0:8081`. Options that may be an
    `Env` differ between the machine of a developer and production.

    Raises:
        KeyboardInterrupt: the worker has left after SIGINT.
        OSError: the health port cannot be listened at.
        Refused: signald does not take this worker.
        SessionGone: it did, and does not any more.
        ValueError: an option is what signald would refuse.
    """
    program = _Program(instance_id, chosen(leave))
    port = chosen(health)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        if signals and threading.current_thread() is threading.main_thread():
            tasks.start_soon(program.take_signals, tasks)
        try:
            if port is not None:
                listening = await listen(port)
                log.info("the health port is %d", port_of(listening))
                tasks.start_soon(serve, listening, program.state)
            prepared = None if setup is None else await _prepare(setup)
            tasks.start_soon(watch)
            async with open_worker(
                urls,
                handler,
                instance_id=instance_id,
                capacity=chosen(capacity),
                labels=labels,
                config=config,
                auth=auth,
                api=api,
                on_job=on_job,
                on_terminate=on_terminate,
                prepared=prepared,
                backoff=backoff,
                timing=timing,
                bounds=bounds,
                ssl_context=ssl_context,
                entropy=entropy,
                dial=dial,
                open_stream=open_stream,
            ) as worker:
                program.worker = worker
                task_status.started(worker)
                if load is not None:
                    tasks.start_soon(keep_saying, worker, load, chosen(load_max))
                await worker.wait()
                await worker.departure.left()
        except Exception as error:  # noqa: BLE001 - it is raised again below, outside the nursery that would wrap it
            failure = error
        tasks.cancel_scope.cancel(reason="the worker is over")
    if failure is not None:
        raise failure
    if program.stopping is signal.SIGINT:
        raise KeyboardInterrupt


async def _prepare(setup: Setup) -> Any:
    if inspect.iscoroutinefunction(setup):
        return await setup()
    value = await anyio.to_thread.run_sync(setup, abandon_on_cancel=True)
    return await value if inspect.isawaitable(value) else value
