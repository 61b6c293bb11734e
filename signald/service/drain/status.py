"""How far a drain is, as health, metrics, logs, `ctl` and the supervisor are shown it."""

import attrs

from signald.core.drain import DrainState, Phase
from signald.core.head import PARTIES, Party


def plan_line(clients: int, workers: int, seconds_left: float, per_s: float) -> str:
    """What is still to do, in one line for people."""
    return f"{clients} clients, {workers} workers to move, {seconds_left:.0f} s left, {per_s:.3g}/s"


def names_of(parties: frozenset[Party]) -> list[str]:
    """Name kinds of parties as operators do: "clients", "workers"."""
    return sorted(f"{party}s" for party in parties)


@attrs.frozen
class DrainStatus:
    """See the module. Times are trio times."""

    state: DrainState = DrainState.SERVING
    phase: Phase = Phase.RUNNING
    """The phase entered last: while a state leaves a phase it is that one."""
    reason: str = ""
    parties: frozenset[Party] = PARTIES
    """The parties that it moves."""
    began_at: float = 0.0
    deadline: float = 0.0
    """When all parties have to be through."""
    plan: dict[str, int] = attrs.field(factory=dict)
    rate_per_s: float = 0.0
    """The pace asked for now."""

    @property
    def draining(self) -> bool:
        """Told to drain, by a signal or an operator, for any party."""
        return self.state is not DrainState.SERVING

    @property
    def by_signal(self) -> bool:
        """The process ends by this drain."""
        return self.state.final

    @property
    def refuses_clients(self) -> bool:
        """New clients are refused: this node is not ready for them."""
        return self.draining and "client" in self.parties

    @property
    def clients_left(self) -> int:
        """Clients still to move."""
        return sum(self.plan.get(stage, 0) for stage in ("clients_unready", "clients_ready", "clients_told"))

    @property
    def workers_left(self) -> int:
        """Workers still to move."""
        return sum(self.plan.get(stage, 0) for stage in ("workers_waiting", "workers_told"))

    def line(self, now: float) -> str:
        """The drain in one line, for people."""
        if not self.draining:
            return "serving"
        if self.phase is Phase.HOLD:
            stayed = f", {self.plan['stayed']} stayed" if self.plan.get("stayed") else ""
            return f"drained ({', '.join(names_of(self.parties))}){stayed}: waiting to be stopped or recalled"
        if not self.plan:
            return f"draining ({self.phase.value})"
        left_s = max(0.0, self.deadline - now)
        return (
            f"draining ({self.phase.value}): {plan_line(self.clients_left, self.workers_left, left_s, self.rate_per_s)}"
        )
