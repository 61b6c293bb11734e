"""The cluster of the simulation with one thing added: at a step of its own, a process is gone.

What the process still does after that, when its scope is cancelled and its clean-up runs, reaches neither the store nor
a connection. A while later a supervisor starts a fresh node, and everything must go on.
"""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import attrs
import trio

from signald.errors import StoreUnavailable
from signald.sdk.trio import ClientState, Refused, SessionGone
from signald.store.base import Op, Result
from signald.testing.network import Wire
from signald.testing.sdk_parties import NEW_LIFE_AFTER_S
from signald.testing.seeded import JumpClock, determined_by
from signald.testing.trace import logs_to
from tests.crash import posting
from tests.crash.outside import CountedCore, CountedUploading
from tests.crash.steps import Crash, Kind, Steps
from tests.sim.net import FaultyNetwork
from tests.sim.nodes import SimNode
from tests.sim.parties import ClientParty, WorkerParty
from tests.sim.plan import ClientPlan, Plan, WorkerPlan
from tests.sim.scene import Scene
from tests.sim.stores import SimWorld

FRESH_NODE_AFTER_S = 0.3
LAST_WORDS_S = 0.01
"""What was written before the crash arrives; then the kernel resets the connections."""

UPLOADED_S = 600.0
"""The lease of a shelf whose node has died in a sweep lasts five minutes."""

Script = Callable[["CrashScene"], Awaitable[None]]


class CrashingWorld(SimWorld):
    """The store, which knows whose task asks it."""

    def __init__(self, scene: "CrashScene") -> None:
        super().__init__(started_ms=1_700_000_000_000)
        self._scene = scene

    def execute(self, ops: Sequence[Op]) -> list[Result]:
        steps = self._scene.steps
        node = steps.owner(trio.lowlevel.current_task())
        if node == posting.NAME:
            return super().execute(ops)  # it is its judge that asks
        if node in steps.dead:
            raise StoreUnavailable("asked by a process that is gone")
        if steps.concerns(node):
            self._scene.batches[steps.counts["store"] + 1] = _names(ops)
        share = steps.of_batch(node, len(ops))
        if share is None:
            return super().execute(ops)
        done = ops[:share]
        self._scene.trace(node, f"has {share} of {len(ops)} operations carried out: {_names(ops)}")
        self._scene.applied(node, done, super().execute(done))
        steps.strike()
        raise StoreUnavailable("the process that asked is gone")


def _names(ops: Sequence[Op]) -> str:
    return " ".join(type(op).__name__ for op in ops)


class Counted(trio.abc.Stream):
    """One end of a connection, which counts what its process writes, and falls silent with it."""

    def __init__(self, end: trio.abc.Stream, owner: str, scene: "CrashScene", *, plain: bool) -> None:
        self._end = end
        self._plain = plain
        self._owner = owner
        self._scene = scene
        self.dead = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.dead:
            await trio.sleep_forever()
        data = bytes(data)
        share = self._scene.steps.of_write(self._owner, data, plain=self._plain)
        if share is None:
            await self._end.send_all(data)
            return
        self._scene.trace(self._owner, f"has written {share} of {len(data)} bytes: {data!r}")
        if share:
            await self._end.send_all(data[:share])
        self._scene.last_words = True
        self._scene.steps.strike()
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await self._end.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._end.receive_some(max_bytes)
        if self.dead:
            await trio.sleep_forever()
        return data

    async def aclose(self) -> None:
        if not self.dead:
            await self._end.aclose()
        else:
            await trio.lowlevel.checkpoint()


class CountedNetwork(FaultyNetwork):
    """Its connections count at both ends."""

    def __init__(self, scene: "CrashScene") -> None:
        super().__init__((), scene.chance.random("network"))
        self._scene = scene

    def connect(self, party: str, node: str, *rest: Any) -> Wire:
        """See `Network.connect`."""
        wire = super().connect(party, node, *rest)
        plain = party == posting.NAME
        wire.node_end = cast("Any", Counted(wire.node_end, node, self._scene, plain=plain))
        wire.party_end = cast("Any", Counted(wire.party_end, party, self._scene, plain=plain))
        return wire

    def cut(self, process: str) -> list[Wire]:
        """Nothing that `process` says is heard any more; returns its connections, for the kernel to reset."""
        cut = []
        for wire in self.wires:
            for end, owner in ((wire.node_end, wire.node), (wire.party_end, wire.name.partition("#")[0])):
                if owner == process:
                    cast("Any", end).dead = True
                    cut.append(wire)
        return cut


class MortalClient(ClientParty):
    """A client whose application saves its state after everything it does."""

    scene: "CrashScene"

    def __init__(self, scene: "CrashScene", plan: ClientPlan) -> None:
        super().__init__(scene, plan)
        self._process = trio.CancelScope()
        self._saved: ClientState | None = None
        self._noted = (0, 0)

    def options(self) -> dict[str, Any]:
        """See `ClientParty.options`."""
        # Another opening would have other steps: only a plan with jobs asks for API tokens.
        return super().options() | ({"api": True} if self.scene.plan.speech is not None else {})

    def die(self) -> None:
        """The process is gone; what its tasks do with their last turn is forgotten."""
        if self.client is not None:
            self._saved = self.client.state()
        self._noted = (self.said, len(self.heard))
        self._process.cancel(reason="killed")

    async def run(self) -> None:
        """Live until cancelled."""
        self.scene.steps.adopt(trio.lowlevel.current_task(), self.name)
        while self.gone is None:
            self.lives += 1
            self._process = trio.CancelScope()
            with self._process:
                try:
                    await self._live(self._saved)
                except (Refused, SessionGone) as gone:
                    self._over(f"{type(gone).__name__}: {gone}")
            if self._process.cancelled_caught:
                self.client = None
                self.said, heard = self._noted
                del self.heard[heard:]
                self.scene.trace(self.name, "was killed")
                await trio.sleep(NEW_LIFE_AFTER_S)
        await trio.sleep_forever()


class MortalWorker(WorkerParty):
    """A worker that knows nothing of its earlier life when it is started again."""

    scene: "CrashScene"

    def __init__(self, scene: "CrashScene", plan: WorkerPlan) -> None:
        super().__init__(scene, plan)
        self._process = trio.CancelScope()

    def die(self) -> None:
        """The process is gone."""
        self._process.cancel(reason="killed")

    async def run(self) -> None:
        """Live until cancelled."""
        self.scene.steps.adopt(trio.lowlevel.current_task(), self.name)
        while True:
            self._process = trio.CancelScope()
            with self._process:
                await super().run()
            self.worker = None
            self.scene.trace(self.name, "was killed")
            await trio.sleep(NEW_LIFE_AFTER_S)


class CrashScene(Scene):
    """A script instead of a plan's steps, and one crash in it."""

    def __init__(self, script: Script, plan: Plan, victims: frozenset[str], crash: Crash, *, keep: bool) -> None:
        super().__init__(plan, keep=keep)
        self._script = script
        self.victims = victims
        self.crash = crash
        self.steps = Steps(victims, crash, self._strike)
        self.world = CrashingWorld(self)
        self.network = self._network = CountedNetwork(self)
        clients = [MortalClient(self, one) for one in plan.clients]
        workers = [MortalWorker(self, one) for one in plan.workers]
        self.clients, self.workers = [*clients], [*workers]
        self.poster = posting.Poster(self, clients[0])
        if plan.core is not None:
            self.core = CountedCore(self, plan.core)
        self.uploading: CountedUploading | None = CountedUploading(self, plan.blobs) if plan.blobs is not None else None
        self._die = {one.name: one.die for one in clients} | {one.name: one.die for one in workers}
        self._die[posting.NAME] = self.poster.die
        self.batches: dict[int, str] = {}
        """The first step of a victim's batch → the names of its operations."""
        self.last_words = False
        """What was written before the crash is read before the connections are reset."""
        self.struck_at_line = 0
        self._fresh = trio.Event()

    def start_node(self, *, stuck: bool = False) -> SimNode:
        """See `Scene.start_node`."""
        assert self._nursery is not None
        before = self._nursery.child_tasks
        node = super().start_node(stuck=stuck)
        (root,) = self._nursery.child_tasks - before
        self.steps.adopt(root, node.name)
        return node

    async def _play(self) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._start_fresh_node)
        self.steps.counting = True
        if self.crash.kind == "await":
            trio.lowlevel.add_instrument(self.steps)
        await self._script(self)
        await self.all_said()
        self.steps.counting = False
        if self.steps.reached:
            await self._fresh.wait()

    def _strike(self) -> None:
        self.struck_at_line = len(self.trace.lines)
        self.trace("CRASH", f"{' and '.join(sorted(self.victims))} at {self.crash.kind} {self.crash.step}")
        cut = [wire for victim in sorted(self.victims) for wire in self._network.cut(victim)]
        if self.last_words:
            self.late(LAST_WORDS_S, lambda: _reset(cut))
        else:
            _reset(cut)
        for node in self.nodes:
            if node.name in self.victims and not node.gone.is_set():
                node.killed = True
                self.steps.dead.add(node.name)
                if node.store is not None:
                    node.store.dead = True
                self.learn(node, up=False)
                node.scope.cancel(reason="killed")
        for name in sorted(self.victims & self._die.keys()):
            self._die[name]()

    async def _start_fresh_node(self) -> None:
        while not self.steps.struck:  # noqa: ASYNC110 - virtual
            await trio.sleep(0.05)
        await trio.sleep(FRESH_NODE_AFTER_S)
        await there(self.start_node())
        self._fresh.set()

    # --- what scripts wait for --------------------------------------------------------------------------------------

    async def all_hear(self, count: int) -> None:
        """Wait until each client has heard so much, or the victim is dead."""
        await self._until(lambda: self.steps.struck or all(len(one.heard) >= count for one in self.clients), 20.0)

    async def all_said(self) -> None:
        """Wait until each client has said everything and been answered, or the victim is dead."""
        await self._until(
            lambda: (
                all(one.said >= one.plan.messages for one in self.clients) and (self.steps.struck or not self.waiting())
            ),
            20.0,
        )

    async def posted(self) -> None:
        """Have jobs submitted and done, and judge. The steps from the first request to the last answer count."""
        assert self._nursery is not None
        self.steps.counting = True
        self._nursery.start_soon(self.poster.run)
        await self._until(lambda: self.poster.done, 60.0)
        self.steps.counting = False
        self.poster.judge()

    def lose(self, party: str) -> None:
        """The process of a party that is no victim dies, and another one goes on."""
        _reset(self._network.cut(party))
        self._die[party]()

    async def told(self) -> None:
        """Wait until the core server was told of all that has happened, or the victim is dead."""
        agenda = self.world.rows._items
        await trio.sleep(0.5)
        await self._until(lambda: self.steps.struck or not agenda.get("e"), 30.0)

    async def uploaded(self) -> None:
        """Wait until all programs have done their uploads and nothing else is left of these, and judge."""
        uploading = self.uploading
        assert uploading is not None
        await self._until(lambda: uploading.done == len(uploading.uploads), UPLOADED_S)
        await self._until(lambda: not self.check.whole_blob.waiting(), UPLOADED_S)
        self.steps.counting = False
        await uploading.judge()

    async def moving(self) -> None:
        """Wait until the first worker has moved, or the victim is dead."""
        await self._until(lambda: self.steps.struck or any(one.connections_now > 1 for one in self.workers), 5.0)

    async def _until(self, holds: Callable[[], bool], within_s: float) -> None:
        with trio.move_on_after(within_s):
            while not holds():  # noqa: ASYNC110 - virtual
                await trio.sleep(0.01)


def _reset(wires: Sequence[Wire]) -> None:
    for wire in wires:
        wire.reset("killed")


async def there(node: SimNode) -> None:
    """Wait until a node is ready, or dead."""
    while not node.ready.is_set() and not node.gone.is_set():  # noqa: ASYNC110 - virtual
        await trio.sleep(0.01)


@attrs.frozen
class Ending:
    """What came of one run."""

    steps: dict[Kind, int]
    """How many there were, up to the crash."""
    batches: dict[int, str]
    """The first step of each batch of the store → the names of its operations."""
    struck: bool
    violations: tuple[tuple[str, str], ...]
    lines: list[str]
    struck_at_line: int
    digest: str
    virtual_s: float


def run(script: Script, plan: Plan, victims: frozenset[str], crash: Crash, *, keep: bool = False) -> Ending:
    """Run a script with one crash in it."""
    scene = CrashScene(script, plan, victims, crash, keep=keep)
    virtual_s = 0.0

    async def main() -> None:
        nonlocal virtual_s
        began = trio.current_time()
        with trio.fail_after(1500):
            await scene.run()
        virtual_s = trio.current_time() - began

    with determined_by(plan.seed), logs_to(scene.logged):
        try:
            trio.run(main, clock=JumpClock())
        except Exception as error:
            scene.violations.append(("no-crash", "".join(traceback.format_exception(error))))
    return Ending(
        dict(scene.steps.counts),
        scene.batches,
        scene.steps.struck,
        tuple(scene.violations),
        scene.trace.lines,
        scene.struck_at_line,
        scene.trace.digest,
        virtual_s,
    )
