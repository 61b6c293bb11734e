"""The plan of a handover: who is told to go, in which order, and who is given up.

Workers first. A session's client becomes a candidate only when the session is *pair-ready*: its worker has claimed it on a
successor, or has been given up, or it had none. There is no barrier between sessions: the first client may go while the
last worker has not been told yet.

The plan decides and never waits: `next` returns what to do now, and the caller waits where it says so. The order within
a kind is random, drawn once from the entropy given, so that no group of users is always the first to move.
"""

from collections import deque
from collections.abc import Iterable, Mapping

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
        self._away: dict[str, float] = {}
        sessions = sorted(clients)
        entropy.shuffle(sessions)
        self._rank = {session: rank for rank, session in enumerate(sessions)}
        self._unready: dict[str, float] = {
            session: now + worker_timeout_s for session in sessions if not clients[session]
        }
        self._ready = deque(session for session in sessions if clients[session])
        self._clients_told: dict[str, float] = {}
        self._given_up: set[str] = set()
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

    def session_ready(self, session: str) -> None:
        """The session's worker has claimed it on a successor, or been given up, or there is none."""
        if self._unready.pop(session, None) is not None:
            self._ready.append(session)

    def client_moved(self, session: str) -> None:
        """The session's client has resumed elsewhere, or left."""
        if self._clients_told.pop(session, None) is not None:
            self.moved_clients += 1
        elif self._unready.pop(session, None) is None and session in self._rank:
            self._ready = deque(one for one in self._ready if one != session)
        self._rank.pop(session, None)

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

    # --- decisions --------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """Decide what to do at `now`."""
        late = _first_due(self._workers_told, now)
        if late is not None:
            del self._workers_told[late]
            self._costs.pop(late, None)
            return GiveUpWorker(late)
        late = _first_due(self._clients_told, now)
        if late is not None:
            del self._clients_told[late]
            self._given_up.add(late)
            return GiveUpClient(late)
        if self._workers_waiting:
            worker = self._workers_waiting.popleft()
            self._workers_told[worker] = now + self._worker_timeout_s
            # Sessions wait for this worker from now on: their patience begins when it is told.
            return TellWorker(worker, max(1, self._costs.get(worker, 0)))
        if not self._workers_told and not self._unready and not self._workers_done_said:
            self._workers_done_said = True
            return WorkersDone()
        if self._ready:
            session = self._ready.popleft()
            self._clients_told[session] = now + self._client_timeout_s
            return TellClient(session)
        if self._workers_told or self._unready or self._clients_told:
            return Wait(self._next_deadline(now))
        return Finished()

    def overdue(self, now: float) -> list[str]:
        """Sessions that are not pair-ready though their time is over: nobody told us why. Their workers are to be given up."""
        if self._workers_waiting or self._workers_told:
            return []
        return [session for session, due in self._unready.items() if due <= now]

    def extend(self, sessions: Iterable[str], until: float) -> None:
        """Give `sessions` until `until` to become pair-ready."""
        for session in sessions:
            if session in self._unready:
                self._unready[session] = until

    def _next_deadline(self, now: float) -> float:
        soonest = min(
            [*self._workers_told.values(), *self._clients_told.values(), *self._unready.values()],
            default=now + 1.0,
        )
        return max(now, soonest)


def _first_due(deadlines: dict[str, float], now: float) -> str | None:
    # Deadlines are set in the order of insertion with one timeout, so the first one is the soonest.
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
