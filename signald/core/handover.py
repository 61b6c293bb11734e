"""The plan of a handover: which party is told to go when, and which is given up.

Workers first. A session's client becomes a candidate only when the session is *pair-ready*: its worker has claimed it on a
successor, or has been given up, or it had none. There is no barrier between sessions: the first client may go while the
last worker has not been told yet.

A session that moves counts once in the pace. Workers and clients go side by side, each kind at the pace of its own: a worker
takes a place for each of its sessions, a client takes one. So workers never wait behind clients. A client whose worker has
just moved goes before those that were ready from the start, so a session is between two nodes for as short as can be.

The plan decides and never waits: `next` returns what to do now, and the caller waits where it says so. The order within
a kind is random, drawn once from the entropy given, so that no group of users is always the first to move.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from math import inf
from typing import Generic, TypeVar

import attrs
from msgspec import Struct

from signald.core.head import Party
from signald.ids import Entropy, SessionId, WorkerId

Id = TypeVar("Id", SessionId, WorkerId)


class AskPace(Struct, frozen=True):
    """Ask the cluster's budget for `places` of the pace of `party`, and report them (`DrainPlan.granted`).

    For clients it is how many could use one: fewer do as well.
    """

    party: Party
    places: int


class TellWorker(Struct, frozen=True):
    """Send GOAWAY to `worker`: its places in the pace are granted."""

    worker: WorkerId


class TellClient(Struct, frozen=True):
    """Send GOAWAY to the client of `session`: its place in the pace is granted."""

    session: SessionId


class GiveUpWorker(Struct, frozen=True):
    """`worker` has missed its budget."""

    worker: WorkerId


class GiveUpClient(Struct, frozen=True):
    """The client of `session` has missed its budget: it gets 1001 at the end and resumes by its token."""

    session: SessionId


class Wait(Struct, frozen=True):
    """Nothing to do before `until`, or before something is reported."""

    until: float


class WorkersDone(Struct, frozen=True):
    """Every worker has moved or been given up; clients remain."""


class Finished(Struct, frozen=True):
    """No party is left to move."""


Step = AskPace | TellWorker | TellClient | GiveUpWorker | GiveUpClient | Wait | WorkersDone | Finished


class AwaitedWorker(Struct, frozen=True):
    """`worker` has been told to go."""

    worker: WorkerId


class AwaitedClient(Struct, frozen=True):
    """The client of `session` has been told to go, or its session is not pair-ready."""

    session: SessionId


Awaited = AwaitedWorker | AwaitedClient


class Stage(Enum):
    """How far the move of one party is."""

    WAITING = "waiting"
    """A worker that has not been told to go."""
    UNREADY = "unready"
    """A client whose session is not pair-ready."""
    FOLLOWS = "follows"
    """A client whose worker has moved since the drain began: it may be told to go from its time on."""
    READY = "ready"
    """Any other client that may be told to go."""
    TOLD = "told"
    """A party that has been told to go and has not claimed yet; it is given up at its time."""


@attrs.define(eq=False)
class Move(Generic[Id]):
    """The move of one party."""

    name: Id
    stage: Stage
    at: float = 0.0
    """The time of its stage, see `Stage`; for UNREADY how long at least the worker of the session is waited for."""
    cost: int = 1
    """Places in the pace that it takes."""


@attrs.define
class Grant:
    """Places in the pace of one kind of party that are granted and not taken yet."""

    places: int = 0
    at: float = 0.0
    """When the next one may be taken."""
    every_s: float = 0.0
    """The time between two of them."""

    def add(self, places: int, at: float, every_s: float) -> None:
        """Some are granted, the first of them from `at` on."""
        self.places, self.at, self.every_s = self.places + places, max(self.at, at), every_s

    def take(self, places: int) -> None:
        """Some are taken. The next one is not later for it that this one was late."""
        self.places -= places
        self.at += self.every_s


class Moves(Generic[Id]):
    """The moves of all workers, or of all clients: by name, and in each stage in the order in which they came to it."""

    def __init__(self) -> None:
        self._by_name: dict[Id, Move[Id]] = {}
        self._at: dict[Stage, dict[Move[Id], None]] = {stage: {} for stage in Stage}

    def get(self, name: Id) -> Move[Id] | None:
        """Return the move of a party; None when it has none to make, or it is over."""
        return self._by_name.get(name)

    def add(self, move: Move[Id]) -> None:
        """Take in the move of a party that has none."""
        self._by_name[move.name] = move
        self._at[move.stage][move] = None

    def put(self, move: Move[Id], stage: Stage, at: float) -> None:
        """Put a move into `stage` with its time, behind the others there."""
        del self._at[move.stage][move]
        move.stage, move.at = stage, at
        self._at[stage][move] = None

    def remove(self, move: Move[Id]) -> None:
        """The move is over."""
        del self._at[move.stage][move]
        del self._by_name[move.name]

    def at(self, stage: Stage) -> Collection[Move[Id]]:
        """Return the moves in a stage."""
        return self._at[stage].keys()

    def first(self, stage: Stage) -> Move[Id] | None:
        """Return the move that has been in a stage for longest."""
        return next(iter(self._at[stage]), None)

    def due(self, stage: Stage, now: float) -> Move[Id] | None:
        """Return the first move of a stage if its time has come.

        Times are set in the order of arrival with one timeout for each stage, so the first one is the soonest.
        """
        move = self.first(stage)
        return move if move is not None and move.at <= now else None


class DrainPlan:
    """See the module. Times are seconds of the caller's clock."""

    def __init__(
        self,
        workers: Mapping[WorkerId, int],
        clients: Mapping[SessionId, bool],
        *,
        worker_timeout_s: float,
        client_timeout_s: float,
        entropy: Entropy,
        now: float,
    ) -> None:
        """`workers`: id → number of sessions; `clients`: session → is it pair-ready already."""
        self._workers: Moves[WorkerId] = Moves()
        self._clients: Moves[SessionId] = Moves()
        for worker in _shuffled(workers, entropy):
            self._workers.add(Move(worker, Stage.WAITING, cost=max(1, workers[worker])))
        for session in _shuffled(clients, entropy):
            self._clients.add(Move(session, Stage.READY if clients[session] else Stage.UNREADY, now))
        self._all_told_since: float | None = None
        """Since when no worker of ours is left to tell or to wait for."""
        self._grants: Mapping[Party, Grant] = {"worker": Grant(), "client": Grant()}
        self._worker_timeout_s = worker_timeout_s
        self._client_timeout_s = client_timeout_s
        self._workers_done_said = False
        self.moved_workers = 0
        self.moved_clients = 0

    def __repr__(self) -> str:
        return f"<DrainPlan {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """How many parties are in each stage."""
        workers, clients = self._workers, self._clients
        return {
            "workers_waiting": len(workers.at(Stage.WAITING)),
            "workers_told": len(workers.at(Stage.TOLD)),
            "workers_moved": self.moved_workers,
            "clients_unready": len(clients.at(Stage.UNREADY)),
            "clients_ready": len(clients.at(Stage.FOLLOWS)) + len(clients.at(Stage.READY)),
            "clients_told": len(clients.at(Stage.TOLD)),
            "clients_moved": self.moved_clients,
        }

    def remaining(self, party: Party) -> int:
        """Return the places that parties of this kind still take: what the time left has to be spread over."""
        if party == "worker":
            return sum(move.cost for move in self._workers.at(Stage.WAITING))
        return sum(len(self._clients.at(stage)) for stage in (Stage.UNREADY, Stage.FOLLOWS, Stage.READY))

    def waits(self, worker: WorkerId) -> bool:
        """Tell whether `worker` has not been told to go yet: of its sessions there is nothing to hear."""
        move = self._workers.get(worker)
        return move is not None and move.stage is Stage.WAITING

    def told(self) -> list[Awaited]:
        """Return the parties that have been told to go, and whose claim is waited for."""
        return [
            *[AwaitedWorker(move.name) for move in self._workers.at(Stage.TOLD)],
            *[AwaitedClient(move.name) for move in self._clients.at(Stage.TOLD)],
        ]

    def unready(self) -> list[Awaited]:
        """Return the clients whose sessions are not pair-ready: most of all parties while the first workers move."""
        return [AwaitedClient(move.name) for move in self._clients.at(Stage.UNREADY)]

    # --- reports ----------------------------------------------------------------------------------------------------

    def granted(self, party: Party, places: int, at: float, every_s: float) -> None:
        """The budget has granted so many places: the first from `at` on, the others `every_s` apart."""
        self._grants[party].add(places, at, every_s)

    def worker_moved(self, worker: WorkerId) -> None:
        """`worker` has resumed elsewhere, or left."""
        move = self._workers.get(worker)
        if move is not None:
            self.moved_workers += move.stage is Stage.TOLD
            self._workers.remove(move)

    def worker_came(self, worker: WorkerId, cost: int) -> None:
        """`worker` came after the plan was made, because its claim was under way: it has to go like the others."""
        move = self._workers.get(worker)
        if move is None:
            self._workers.add(Move(worker, Stage.WAITING, cost=max(1, cost)))
            return
        move.cost = max(1, cost)
        if move.stage is Stage.TOLD:
            self._workers.put(move, Stage.WAITING, 0.0)

    def client_came(self, session: SessionId, *, ready: bool, now: float) -> None:
        """The client of `session` came after the plan was made, as `worker_came`."""
        stage = Stage.READY if ready else Stage.UNREADY
        move = self._clients.get(session)
        if move is None:
            self._clients.add(Move(session, stage, now))
        elif move.stage is Stage.TOLD:
            self._clients.put(move, stage, now)

    def session_ready(self, session: SessionId, not_before: float = 0.0) -> None:
        """The session's worker has claimed it on a successor, or been given up, or there is none.

        Its client is told at `not_before` at the earliest.
        """
        move = self._clients.get(session)
        if move is not None and move.stage is Stage.UNREADY:
            self._clients.put(move, Stage.FOLLOWS, not_before)

    def session_unready(self, session: SessionId, until: float) -> None:
        """The session has got a worker that is not on a successor, before its client was told: `until` it is waited for."""
        move = self._clients.get(session)
        if move is not None and move.stage is not Stage.UNREADY:
            self._clients.put(move, Stage.UNREADY, until)

    def client_moved(self, session: SessionId) -> None:
        """The session's client has resumed elsewhere, or left."""
        move = self._clients.get(session)
        if move is not None:
            self.moved_clients += move.stage is Stage.TOLD
            self._clients.remove(move)

    def begin_again(self, now: float) -> None:
        """There was no successor for a while, which makes no party late: the time of each begins now."""
        for worker in self._workers.at(Stage.TOLD):
            worker.at = now + self._worker_timeout_s
        for client in self._clients.at(Stage.TOLD):
            client.at = now + self._client_timeout_s
        if self._all_told_since is not None:
            self._all_told_since = now

    # --- decisions --------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """Decide what to do at `now`."""
        workers, clients = self._workers, self._clients
        if self._has_workers():
            self._all_told_since = None
        elif self._all_told_since is None:
            self._all_told_since = now
        if (late_worker := workers.due(Stage.TOLD, now)) is not None:
            workers.remove(late_worker)
            return GiveUpWorker(late_worker.name)
        if (late_client := clients.due(Stage.TOLD, now)) is not None:
            clients.remove(late_client)
            return GiveUpClient(late_client.name)
        if not self._has_workers() and not clients.at(Stage.UNREADY) and not self._workers_done_said:
            self._workers_done_said = True
            return WorkersDone()
        if (step := self._next_worker(now)) is not None:
            return step
        if (step := self._next_client(now)) is not None:
            return step
        if self._has_workers() or any(clients.at(stage) for stage in Stage):
            return Wait(self._next_deadline(now))
        return Finished()

    def _next_worker(self, now: float) -> Step | None:
        worker, grant = self._workers.first(Stage.WAITING), self._grants["worker"]
        if worker is None:
            return None
        if grant.places < worker.cost:
            return AskPace("worker", worker.cost - grant.places)
        if grant.at > now:
            return None
        grant.take(worker.cost)
        self._workers.put(worker, Stage.TOLD, now + self._worker_timeout_s)
        return TellWorker(worker.name)

    def _next_client(self, now: float) -> Step | None:
        clients, grant = self._clients, self._grants["client"]
        client = clients.due(Stage.FOLLOWS, now) or clients.due(Stage.READY, now)
        if client is None:
            return None
        if not grant.places:
            return AskPace("client", len(clients.at(Stage.FOLLOWS)) + len(clients.at(Stage.READY)))
        if grant.at > now:
            return None
        grant.take(1)
        clients.put(client, Stage.TOLD, now + self._client_timeout_s)
        return TellClient(client.name)

    def _has_workers(self) -> bool:
        """Tell whether a worker of ours is left to tell or to wait for."""
        return bool(self._workers.at(Stage.WAITING) or self._workers.at(Stage.TOLD))

    def is_overdue(self, session: SessionId, now: float) -> bool:
        """Tell whether one session is among those that are overdue."""
        move = self._clients.get(session)
        return move is not None and move.stage is Stage.UNREADY and self._patience() <= now and move.at <= now

    def _patience(self) -> float:
        """Until when every session is waited for that is not pair-ready."""
        if self._all_told_since is None or self._has_workers():
            return inf
        return self._all_told_since + self._worker_timeout_s

    def overdue(self, now: float) -> list[SessionId]:
        """Sessions that are not pair-ready though their time is over, for no reason known here: their workers are given up.

        Their time begins when the last worker of ours has moved or been given up: telling them all may take long.
        """
        if self._patience() > now:
            return []
        return [move.name for move in self._clients.at(Stage.UNREADY) if move.at <= now]

    def extend(self, sessions: Iterable[SessionId], until: float) -> None:
        """Give `sessions` until `until` to become pair-ready."""
        for session in sessions:
            move = self._clients.get(session)
            if move is not None and move.stage is Stage.UNREADY:
                move.at = until

    def _next_deadline(self, now: float) -> float:
        dues = [move.at for moves in (self._workers.at(Stage.TOLD), self._clients.at(Stage.TOLD)) for move in moves]
        if self._workers.at(Stage.WAITING):
            dues.append(self._grants["worker"].at)
        granted = self._grants["client"].at if self._grants["client"].places else 0.0
        followers = (self._clients.first(stage) for stage in (Stage.FOLLOWS, Stage.READY))
        dues += [max(move.at, granted) for move in followers if move is not None]
        if self._all_told_since is not None:
            patience = self._all_told_since + self._worker_timeout_s
            dues += [max(move.at, patience) for move in self._clients.at(Stage.UNREADY)]
        return max(now, min(dues, default=now + 1.0))


def _shuffled(names: Collection[Id], entropy: Entropy) -> list[Id]:
    order = sorted(names)
    entropy.shuffle(order)
    return order


def pace_now(rate_per_s: float, lag_ms: float, lag_target_ms: float = 50.0) -> float:
    """The rate to ask for: the configured one, slowed in proportion when the successors' accept lag exceeds the target.

    Never below a tenth of the configured rate: a successor that reports nonsense must not stop a drain.
    """
    if lag_ms <= lag_target_ms:
        return rate_per_s
    return max(rate_per_s / 10, rate_per_s * lag_target_ms / lag_ms)
