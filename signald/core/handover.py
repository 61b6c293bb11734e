"""The plan of a handover: who is told to go, in which order, and who is given up.

Workers first. A session's client becomes a candidate only when the session is *pair-ready*: its worker has claimed it on a
successor, or has been given up, or it had none. There is no barrier between sessions: the first client may go while the
last worker has not been told yet. Workers and clients share the pace evenly: for each session a worker takes along, one
client may go before the next worker, so a session is between two nodes for as short as can be, and no worker waits
behind all the clients that were ready from the start.

The plan decides and never waits: `next` returns what to do now, and the caller waits where it says so. The order within
a kind is random, drawn once from the entropy given, so that no group of users is always the first to move.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from msgspec import Struct

from signald.ids import Entropy


class TellWorker(Struct, frozen=True):
    """Send GOAWAY to `worker`; moving it costs `cost` claims of the pace."""

    worker: str
    cost: int


class TellClient(Struct, frozen=True):
    """Send GOAWAY to the client of `session`."""

    session: str


class GiveUpWorker(Struct, frozen=True):
    """`worker` has missed its budget."""

    worker: str


class GiveUpClient(Struct, frozen=True):
    """The client of `session` has missed its budget: it gets 1001 at the end and resumes by its token."""

    session: str


class Wait(Struct, frozen=True):
    """Nothing to do before `until`, or before something is reported."""

    until: float


class WorkersDone(Struct, frozen=True):
    """Every worker has moved or been given up; clients remain."""


class Finished(Struct, frozen=True):
    """Nobody is left to move."""


Step = TellWorker | TellClient | GiveUpWorker | GiveUpClient | Wait | WorkersDone | Finished


class DrainPlan:
    """See the module. Times are seconds of the caller's clock."""

    def __init__(
        self,
        workers: Mapping[str, int],
        clients: Mapping[str, bool],
        *,
        worker_timeout_s: float,
        client_timeout_s: float,
        entropy: Entropy,
        now: float,
    ) -> None:
        """`workers`: id → number of sessions; `clients`: session → is it pair-ready already."""
        self._costs = dict(workers)
        order = sorted(workers)
        entropy.shuffle(order)
        self._workers_waiting = deque(order)
        self._workers_told: dict[str, float] = {}
        sessions = sorted(clients)
        entropy.shuffle(sessions)
        self._unready: dict[str, float] = {session: now for session in sessions if not clients[session]}
        """Session → how long at least its worker is waited for."""
        self._all_told_since: float | None = None
        """Since when no worker of ours is left to tell or to wait for."""
        self._owed = 0
        """How many clients may go before the next worker."""
        self._ready: dict[str, float] = {session: now for session in sessions if clients[session]}
        """Session → when its client may be told, in that order."""
        self._clients_told: dict[str, float] = {}
        self._worker_timeout_s = worker_timeout_s
        self._client_timeout_s = client_timeout_s
        self._workers_done_said = False
        self.moved_workers = 0
        self.moved_clients = 0

    def __repr__(self) -> str:
        return f"<DrainPlan {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """How many parties are in each stage."""
        return {
            "workers_waiting": len(self._workers_waiting),
            "workers_told": len(self._workers_told),
            "workers_moved": self.moved_workers,
            "clients_unready": len(self._unready),
            "clients_ready": len(self._ready),
            "clients_told": len(self._clients_told),
            "clients_moved": self.moved_clients,
        }

    @property
    def remaining(self) -> int:
        """Claims still to come: what the pace has to be spread over."""
        waiting = sum(self._costs.get(worker, 0) for worker in self._workers_waiting)
        return waiting + len(self._unready) + len(self._ready)

    def told_workers(self) -> list[str]:
        """Workers that have been told and have not claimed yet."""
        return list(self._workers_told)

    def told_clients(self) -> list[str]:
        """Sessions whose client has been told and has not claimed yet."""
        return list(self._clients_told)

    def unready(self) -> list[str]:
        """Sessions that are not pair-ready."""
        return list(self._unready)

    def is_told(self, session: str) -> bool:
        """Tell whether the client of `session` has been told to go."""
        return session in self._clients_told

    # --- reports ----------------------------------------------------------------------------------------------------

    def worker_moved(self, worker: str) -> None:
        """`worker` has resumed elsewhere, or left."""
        if self._workers_told.pop(worker, None) is not None:
            self.moved_workers += 1
        if worker in self._costs:
            del self._costs[worker]
            self._workers_waiting = deque(one for one in self._workers_waiting if one != worker)

    def worker_came(self, worker: str, cost: int) -> None:
        """`worker` came after the plan was made, because its claim was under way: it has to go like the others."""
        self._costs[worker] = cost
        self._workers_told.pop(worker, None)
        if worker not in self._workers_waiting:
            self._workers_waiting.append(worker)

    def client_came(self, session: str, *, ready: bool, now: float) -> None:
        """The client of `session` came after the plan was made, as `worker_came`."""
        self._clients_told.pop(session, None)
        if session not in self._unready and session not in self._ready:
            (self._ready if ready else self._unready)[session] = now

    def session_ready(self, session: str, not_before: float = 0.0) -> None:
        """The session's worker has claimed it on a successor, or been given up, or there is none.

        Its client is told at `not_before` at the earliest.
        """
        if self._unready.pop(session, None) is not None:
            self._ready[session] = not_before

    def session_unready(self, session: str, until: float) -> None:
        """The session has got a worker that is not on a successor, before its client was told: `until` it is waited for."""
        if self._ready.pop(session, None) is not None or self._clients_told.pop(session, None) is not None:
            self._unready[session] = until

    def client_moved(self, session: str) -> None:
        """The session's client has resumed elsewhere, or left."""
        if self._clients_told.pop(session, None) is not None:
            self.moved_clients += 1
        elif self._unready.pop(session, None) is None:
            self._ready.pop(session, None)

    def told_worker_at(self, worker: str, now: float) -> None:
        """GOAWAY has just gone to `worker`: its time begins."""
        if worker in self._workers_told:
            del self._workers_told[worker]
            self._workers_told[worker] = now + self._worker_timeout_s

    def told_client_at(self, session: str, now: float) -> None:
        """GOAWAY has just gone to the client of `session`: its time begins."""
        if session in self._clients_told:
            del self._clients_told[session]
            self._clients_told[session] = now + self._client_timeout_s

    def begin_again(self, now: float) -> None:
        """There was nobody to go to for a while, which makes nobody late: everyone's time begins now."""
        for worker in self._workers_told:
            self._workers_told[worker] = now + self._worker_timeout_s
        for session in self._clients_told:
            self._clients_told[session] = now + self._client_timeout_s
        if self._all_told_since is not None:
            self._all_told_since = now

    # --- decisions --------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """Decide what to do at `now`."""
        if self._workers_waiting or self._workers_told:
            self._all_told_since = None
        elif self._all_told_since is None:
            self._all_told_since = now
        late = _first_due(self._workers_told, now)
        if late is not None:
            del self._workers_told[late]
            self._costs.pop(late, None)
            return GiveUpWorker(late)
        late = _first_due(self._clients_told, now)
        if late is not None:
            del self._clients_told[late]
            return GiveUpClient(late)
        if not self._workers_waiting and not self._workers_told and not self._unready and not self._workers_done_said:
            self._workers_done_said = True
            return WorkersDone()
        session = _first_due(self._ready, now)
        if session is not None and (self._owed or not self._workers_waiting):
            self._owed = max(0, self._owed - 1)
            del self._ready[session]
            self._clients_told[session] = now + self._client_timeout_s
            return TellClient(session)
        if self._workers_waiting:
            worker = self._workers_waiting.popleft()
            self._workers_told[worker] = now + self._worker_timeout_s
            cost = max(1, self._costs.get(worker, 0))
            self._owed += cost
            return TellWorker(worker, cost)
        if self._workers_told or self._unready or self._ready or self._clients_told:
            return Wait(self._next_deadline(now))
        return Finished()

    def overdue(self, now: float) -> list[str]:
        """Sessions that are not pair-ready though their time is over: nobody told us why. Their workers are to be given up.

        Their time begins when the last worker of ours has moved or been given up: telling them all may take long.
        """
        if self._all_told_since is None or self._workers_waiting or self._workers_told:
            return []
        patience = self._all_told_since + self._worker_timeout_s
        return [session for session, until in self._unready.items() if max(until, patience) <= now]

    def extend(self, sessions: Iterable[str], until: float) -> None:
        """Give `sessions` until `until` to become pair-ready."""
        for session in sessions:
            if session in self._unready:
                self._unready[session] = until

    def _next_deadline(self, now: float) -> float:
        dues = [*self._workers_told.values(), *self._clients_told.values(), *islice(self._ready.values(), 1)]
        if self._all_told_since is not None:
            patience = self._all_told_since + self._worker_timeout_s
            dues += [max(until, patience) for until in self._unready.values()]
        return max(now, min(dues, default=now + 1.0))


def _first_due(deadlines: dict[str, float], now: float) -> str | None:
    # Times are set in the order of insertion with one timeout each, so the first one is the soonest.
    for name, due in deadlines.items():
        return name if due <= now else None
    return None


def pace_now(rate_per_s: float, lag_ms: float, lag_target_ms: float = 50.0) -> float:
    """The rate to ask for: the configured one, slowed in proportion when the successors' accept lag exceeds the target.

    Never below a tenth of the configured rate: a successor that reports nonsense must not stop a drain.
    """
    if lag_ms <= lag_target_ms:
        return rate_per_s
    return max(rate_per_s / 10, rate_per_s * lag_target_ms / lag_ms)
