"""All checkers of a run, and the events that each of them gets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from signald.store.base import Op, Result
from tests.sim.blob_checkers import WholeBlob
from tests.sim.canvas_checkers import CanvasOrder
from tests.sim.checkers import ExactlyOnce, Liveness, OneHop, Sticky, Told, WorkerFirst
from tests.sim.event_checkers import EventTold
from tests.sim.fleet_checkers import FleetOrder
from tests.sim.job_checkers import JobOnce
from tests.sim.node_checkers import Bounded, BoundedMemory, Goodbye, NoOrphanTask, NoSecret, Paced
from tests.sim.poison import Poisoned
from tests.sim.recall_checkers import NoTokenAfterRecall
from tests.sim.room_checkers import RoomOrder
from tests.sim.round_trips import RoundTrips
from tests.sim.store_checkers import EpochsOnce, Expiry, NoGhost, Positions, Rare, SingleOwner, TokenOnce
from tests.sim.stream_checkers import StreamPrefix

if TYPE_CHECKING:
    from signald.testing.network import Wire
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene


class Checkers:
    """See the module."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self.exactly_once = ExactlyOnce(scene)
        self.single_owner = SingleOwner(scene)
        self.epochs_once = EpochsOnce(scene)
        self.positions = Positions(scene)
        self.token_once = TokenOnce(scene)
        self.expiry = Expiry(scene)
        self.rare = Rare(scene)
        self.worker_first = WorkerFirst(scene)
        self.bounded = Bounded(scene)
        self.bounded_memory = BoundedMemory(scene)
        self.paced = Paced(scene)
        self.goodbye = Goodbye(scene)
        self.no_secret = NoSecret(scene)
        self.one_hop = OneHop(scene)
        self.sticky = Sticky(scene)
        self.liveness = Liveness(scene)
        self.no_ghost = NoGhost(scene)
        self.no_orphan_task = NoOrphanTask(scene)
        self.told_all = Told(scene)
        self.poison = Poisoned(scene)
        self.streams = StreamPrefix(scene)
        self.jobs = JobOnce(scene)
        self.recalls = NoTokenAfterRecall(scene)
        self.event_told = EventTold(scene)
        self.whole_blob = WholeBlob(scene)
        self.round_trips = RoundTrips(scene)
        self.room_order = RoomOrder(scene)
        self.canvas_order = CanvasOrder(scene)
        self.fleet_order = FleetOrder(scene)
        self.client_said = self.exactly_once.client_said
        self.client_heard = self.exactly_once.client_heard
        self.worker_got = self.exactly_once.worker_got
        self.client_over = self.told_all.client_over
        self.worker_gone = self.told_all.worker_gone
        self.found_over = self.told_all.found_over

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The store has carried out a batch."""
        self.poison.applied(ops, results)
        for op, result in zip(ops, results, strict=True):
            self.exactly_once.applied(op, result)
            self.worker_first.applied(op, result)
            self.epochs_once.applied(op, result)
            self.token_once.applied(op, result)
            self.expiry.applied(op, result)
            self.rare.applied(op, result)
            self.streams.applied(op, result)
            self.jobs.applied(op, result)
            self.event_told.applied(op, result)
            self.recalls.applied(op, result)
            self.told_all.applied(op, result)
            self.single_owner.applied(op)
            self.positions.applied(op)
            self.positions.claimed(op, result)
            self.room_order.applied(op, result)
            self.canvas_order.applied(op, result)
            self.fleet_order.applied(op, result)

    def written(self, node: "SimNode", wire: "Wire", data: bytes) -> None:
        """A node writes to a party."""
        goaways = data.count(b'"type":"goaway"')
        if not goaways:
            return
        scene = self._scene
        client = next((one for one in scene.clients if one.name == wire.party), None)
        if client is not None:
            self.worker_first.told_to_go(client, node)
            self.paced.told_to_go(node, "client", 1)
            return
        worker = next((one for one in scene.workers if one.name == wire.party), None)
        if worker is not None and worker.ids:
            self.paced.told_to_go(node, "worker", max(1, len(scene.world.rows._places_of.get(worker.ids[-1], ()))))

    def told(self, error: str | bytes) -> None:
        """A party was told of an error."""
        self.no_secret.text("an error", error if isinstance(error, str) else repr(error))

    def closed(self, wire: str, code: int | None, reason: str) -> None:
        """A party finds its connection closed."""
        self.no_secret.text("a close", reason)
        self.goodbye.closed(self._scene.network.by_name[wire], code)

    def exited(self, node: "SimNode", now: float) -> None:
        """A node has returned by itself."""
        self.bounded.exited(node, now)
        self.no_orphan_task.exited(node)

    def settled(self) -> None:
        """All parties have caught up."""
        self.exactly_once.at_end()
        self.sticky.at_end()
        self.one_hop.at_end()
        self.liveness.at_end()
        self.no_secret.at_end()
        self.canvas_order.at_end()
