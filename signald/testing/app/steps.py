"""A deploy step by step: each move is held in the network until the test goes on.

A step is a frame of a node that moves a party. The frame, and what the node writes behind it, waits on its way to the party. So a
test acts in between, for instance sends a message while the worker has moved and the client has not. The virtual clock stands still
unless the test itself waits for time to pass; then the held frames wait all the same.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

import attrs
import trio


class StepKind(Enum):
    """What a step shows, of a deploy of signald and then of a worker. Those of one party come in this order, beside others."""

    NODE_READY = "node_ready"
    """A node of the next release is ready: new connections reach it."""
    DRAIN_BEGUN = "drain_begun"
    """The node before has had SIGTERM."""
    WORKER_GOAWAY = "worker_goaway"
    """A worker is told to move; the frame is on its way."""
    WORKER_RESUMED = "worker_resumed"
    """The worker has its sessions at its new node; the answer is on its way. Their clients are told to move from now on."""
    CLIENT_GOAWAY = "client_goaway"
    """A client is told to move; the frame is on its way."""
    CLIENT_RESUMED = "client_resumed"
    """The client has its session at its new node; the answer is on its way."""
    NODE_EXITED = "node_exited"
    """The node before has handed over everything, and its process has ended."""

    WORKER_READY = "worker_ready"
    """The next process of the worker is registered."""
    WORKER_LEAVES = "worker_leaves"
    """The process before has had SIGTERM."""
    CLIENT_REPLACED = "client_replaced"
    """The next process has the session, and works; the frame that tells the client so is on its way."""
    WORKER_EXITED = "worker_exited"
    """The process before has handed over everything, and has ended."""


Moves = Callable[[Mapping[str, object], bool], StepKind | None]
"""The step that a frame of a node is, by its fields, and whether it goes to a worker; None: no step."""

_OF_SIGNALD = {
    "goaway": (StepKind.WORKER_GOAWAY, StepKind.CLIENT_GOAWAY),
    "reconnection_ack": (StepKind.WORKER_RESUMED, StepKind.WORKER_RESUMED),
    "session_restored": (StepKind.CLIENT_RESUMED, StepKind.CLIENT_RESUMED),
}
"""Frame of a node → the step that it is, to a worker and to a client."""


def of_signald(fields: Mapping[str, object], to_worker: bool) -> StepKind | None:
    """Return the step of a deploy of signald; see `Moves`."""
    kinds = _OF_SIGNALD.get(str(fields["type"]))
    return None if kinds is None else kinds[not to_worker]


def of_a_worker(fields: Mapping[str, object], to_worker: bool) -> StepKind | None:
    """Return the step of a deploy of a worker; see `Moves`."""
    replaced = (fields["type"], fields.get("state")) == ("peer", "replaced")
    return StepKind.CLIENT_REPLACED if replaced and not to_worker else None


@attrs.frozen
class Step:
    """One step of a deploy."""

    kind: StepKind
    node: str
    """The node that was started, drains, wrote the frame, or has ended; "" for the processes of a worker."""
    party: str
    """The name of the client or worker; "" for the steps of a node."""
    at_s: float
    """Seconds of the clock of the cluster."""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.kind.value, self.node, self.party]))


@attrs.frozen
class _Shown:
    step: Step
    go_on: Callable[[], None]


class Script:
    """The steps of one deploy: some are shown by the network, some by the deploy itself, and one reader takes them one by one."""

    def __init__(self, tells: Callable[[str, str], None], moves: Moves) -> None:
        self._tells = tells
        self.moves = moves
        """Which frames are steps."""
        self._waiting: deque[_Shown] = deque()
        self._shown: _Shown | None = None
        self._moves = 0
        """Frames that were held so far."""
        self._changed = trio.lowlevel.ParkingLot()
        self.is_open = True
        """Frames are held. It is closed once the reader has left, and the deploy goes on by itself."""
        self.over = False
        """The deploy is over."""

    @property
    def step(self) -> Step | None:
        """The step that is shown."""
        return self._shown.step if self._shown is not None else None

    def hold(self, kind: StepKind, node: str, party: str, go_on: Callable[[], None]) -> None:
        """Show a step, whose frame the caller holds until `go_on` is called."""
        self._moves += 1
        self._show(Step(kind, node, party, trio.current_time()), go_on)

    def _show(self, step: Step, go_on: Callable[[], None]) -> None:
        self._waiting.append(_Shown(step, go_on))
        self._changed.unpark_all()

    async def show(self, kind: StepKind, node: str = "", party: str = "") -> None:
        """Show a step of a node or of a process; return when the reader goes on."""
        if self.is_open:
            gone_on = trio.Event()
            self._show(Step(kind, node, party, trio.current_time()), gone_on.set)
            await gone_on.wait()

    async def moved(self, moves: int, within_s: float) -> None:
        """Wait until so many frames were held, `within_s` seconds at most."""
        with trio.move_on_after(within_s):
            while self._moves < moves and self.is_open:
                await self._changed.park()

    def finish(self) -> None:
        """Note that the deploy is over: the steps that wait are the last ones."""
        self.over = True
        self._changed.unpark_all()

    async def next(self) -> Step | None:
        """Let go what the last step held, and return the next one; None after the last."""
        self._let_go()
        while not self._waiting:
            if self.over or not self.is_open:
                return None
            await self._changed.park()
        self._shown = self._waiting.popleft()
        self._tells("step", str(self._shown.step))
        return self._shown.step

    def close(self) -> None:
        """Let everything go."""
        self.is_open = False
        self._let_go()
        while self._waiting:
            self._waiting.popleft().go_on()
        self._changed.unpark_all()

    def _let_go(self) -> None:
        if self._shown is not None:
            self._shown.go_on()
            self._shown = None


class Stepping(Protocol):
    """What `Deploying` needs of a cluster, or of a worker."""

    async def begin_steps(self) -> Script:
        """Begin a deploy, and return its steps."""

    async def next_step(self, script: Script) -> Step | None:
        """As `Script.next`."""

    async def end_steps(self, script: Script) -> None:
        """Let the deploy go on by itself, and return when it is over."""


class Deploying:
    """A deploy of signald, or of a worker, that goes on step by step.

    `async for step in cluster.deploying()` goes through the whole of it. A test that leaves before the end uses it as a context
    manager: at the end of the block the rest of the deploy takes place by itself.
    """

    def __init__(self, cluster: Stepping) -> None:
        self._cluster = cluster
        self._script: Script | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Step:
        if self._script is None:
            self._script = await self._cluster.begin_steps()
        step = await self._cluster.next_step(self._script)
        if step is None:
            await self.finish()
            raise StopAsyncIteration
        return step

    async def finish(self) -> None:
        """Let the rest of the deploy take place; return when it is over."""
        if self._script is None:
            self._script = await self._cluster.begin_steps()
        await self._cluster.end_steps(self._script)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):  # a cancelled block does not wait
            await self.finish()
