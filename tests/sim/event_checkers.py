"""Events: each life event that the core server was promised is told, in order for its session, signed, and the same in each attempt."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signald.core.head import Head
from signald.core.webhooks import BadSignature, secrets_of, verify
from signald.store.base import Op, Result
from signald.store.registry.ops import RegisterWorker, RemoveWorker, WorkerClaimed
from signald.store.registry.queues.ops import CLUSTER
from signald.store.session.ops import CreateSession
from tests.sim.checkers import Checker
from tests.sim.core_server import SECRET, SECRET_PREVIOUS

if TYPE_CHECKING:
    from tests.sim.scene import Scene

BOUNDS = {"session": ("session.started", "session.ended"), "worker": ("worker.registered", "worker.lost")}
"""The first and the last event of a queue."""


class EventTold(Checker):
    """Every life event a core server was promised is delivered at least once, in order for its session."""

    name = "event-told"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        core = scene.plan.core
        self._secrets = [secrets_of(SECRET), *([secrets_of(SECRET_PREVIOUS)] if core and core.rotates else [])]
        self._bodies: dict[str, bytes] = {}
        """webhook-id → the body that came with it."""
        self._told: dict[str, list[dict[str, Any]]] = {}
        """Queue → its events, each once, as they came."""
        self._made: dict[str, str] = {}
        """Queue that the store has begun → its kind."""
        self._removed: set[str] = set()
        """Workers that are over."""
        self._again: Counter[str] = Counter()
        """Worker → how often a batch that was stored late once more has registered it after its end: each time it is told to be lost."""
        self._granted: set[str] = set()
        """The clients that the core server has let in."""
        self._finished: Counter[str] = Counter()
        """Node → how often its drain was told to be over."""

    @property
    def count(self) -> int:
        """How many events were told, each counted once."""
        return len(self._bodies)

    @property
    def promised(self) -> bool:
        """Tell whether the store keeps what it is given."""
        return not self.scene.plan.store_may_lose

    # --- what the store has promised --------------------------------------------------------------------------------

    def applied(self, op: Op, result: Result) -> None:
        """The store has carried out an operation."""
        if isinstance(op, CreateSession) and op.events_max and isinstance(result, Head):
            self._made.setdefault(op.session, "session")
        elif isinstance(op, RegisterWorker) and op.events_max and isinstance(result, WorkerClaimed):
            self._made.setdefault(op.worker, "worker")
            if op.worker in self._removed:
                self._removed.remove(op.worker)
                self._again[op.worker] += 1
                self.scene.reached("worker registered once more behind its end")
        elif isinstance(op, RemoveWorker):
            self._removed.add(op.worker)

    # --- what the core server has processed -------------------------------------------------------------------------

    def received(self, headers: Mapping[str, str], body: bytes) -> None:
        """The core server has processed an event."""
        self.signed(headers, body)
        said = json.loads(body)
        name, data = headers["webhook-id"], said["data"]
        queue = data.get("session") or data.get("worker") or "cluster"
        before = self._bodies.setdefault(name, body)
        if before is not body:
            self.scene.reached("event told again")
            if before != body:
                self.broken(f"{name} was {before!r}, and is {body!r}")
            return
        told = self._told.setdefault(queue, [])
        last = told[-1]["data"]["n"] if told else 0
        told.append(said)
        if self.promised and data["n"] != last + 1:
            self.broken(f"{queue}: event {data['n']} {said['type']} came behind {last}")
        if self.promised and said["type"] == "deploy.finished":
            self._finish(data)
        self.scene.reached(f"told {said['type']}")

    def signed(self, headers: Mapping[str, str], body: bytes) -> None:
        """Hold a request to its signatures: one by each secret in force."""
        for secrets in self._secrets:
            try:
                verify(headers, body, secrets, self.scene.world.now_ms() / 1000)
            except BadSignature as error:
                if not self.scene.plan.clock_steps:
                    self.broken(f"{headers}: {error}")

    def granted(self, name: str) -> None:
        """The core server has let a client in, by an answer that may be lost."""
        self._granted.add(name)

    def connected(self, name: str, settings: Any) -> None:
        """A client has a session. With a closed door it was let in, and has its settings; with an open one, or none."""
        core = self.scene.plan.core
        if core is None or not core.policy:
            if settings is not None:
                self.broken(f"{name} has the settings {settings}")
            return
        if core.policy == "closed" and name not in self._granted:
            self.broken(f"{name} is in, and the core server was not asked")
        elif settings != {"for": name} and (settings is not None or core.policy == "closed"):
            self.broken(f"{name} has the settings {settings}")
        self.scene.reached("client with settings" if settings else "client let in without a yes")

    def _finish(self, data: dict[str, Any]) -> None:
        self._finished[data["node"]] += 1
        if self._finished[data["node"]] > 1:
            self.broken(f"{data['node']} is told to have finished twice")

    # --- the end ----------------------------------------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """Each queue that holds something."""
        if self.scene.plan.core is None:
            return []
        rows = self.scene.world.rows
        queues = [f"events of {name}" for name in (*rows._queues, *rows._event_queues) if name != CLUSTER]
        return [*queues, *[f"events of {name} in the agenda" for name in rows._items.get("e", ())]]

    def settled(self) -> None:
        """All sessions and workers are over, and nothing waits."""
        if not self.promised:
            return
        for queue, kind in self._made.items():
            types = [one["type"] for one in self._told.get(queue, [])]
            first, last = BOUNDS[kind]
            lives = 1 + self._again[queue]
            if (
                types[:1] != [first]
                or types[-1:] != [last]
                or types.count(first) != lives
                or types.count(last) != lives
            ):
                self.broken(f"{queue} had {types}")
        self._judge_jobs()

    def _judge_jobs(self) -> None:
        """Each job that was seen to have ended is told to have, once. The end of a session ends jobs that no node looks at any more."""
        for session, jobs in self.scene.check.jobs.ended().items():
            told = [one["data"]["job"] for one in self._told.get(session, []) if one["type"] == "job.ended"]
            if session in self._made and (len(set(told)) < len(told) or not set(jobs) <= set(told)):
                self.broken(f"{session}: the ends of {sorted(told)} were told, and {sorted(jobs)} have ended")
