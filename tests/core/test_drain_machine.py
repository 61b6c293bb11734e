"""A drain in every order of events: its phases by the table, and its plan under everything that can be reported to it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signald.core.drain import DRAIN, LEAVING, REFUSED, DrainEvent, DrainState, Phase
from signald.core.handover import (
    AskPace,
    DrainPlan,
    Finished,
    GiveUpClient,
    GiveUpWorker,
    TellClient,
    TellWorker,
    Wait,
    WorkersDone,
)
from signald.core.transitions import ImpossibleTransition, step
from signald.ids import SeededEntropy, SessionId, WorkerId
from tests.examples import examples

S, V = DrainState, DrainEvent
ORDER: list[Phase] = [phase for phase in Phase if phase is not Phase.HOLD]
OUTSIDE = (V.ASK, V.EXTEND, V.ABORT, V.SIGNAL, V.CUT, V.USURP)
"""What may come at any moment."""
WAITS = (S.SERVING, S.OPERATOR_ASKED, S.ASKED, S.RECEIPT, S.HOLD, S.DONE)
"""States without a budget: the task has not begun, is at rest, or stores a receipt, which has a deadline of its own."""
BUDGET_S, DRAIN_S = 5.0, 5.0 * 7


class Drains(RuleBasedStateMachine):
    """The drains of one process, of which some may be called off, with every event at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.state = S.SERVING
        self.passed: list[Phase] = []
        """Phases of this drain, in order."""
        self.hurried = False
        """A phase was left early, or there was no successor."""
        self.now = self.began = self.entered = 0.0

    def go(self, event: DrainEvent) -> None:
        """Take one event, or see it refused with nothing changed."""
        before = self.state
        if (before, event) in REFUSED:
            with pytest.raises(ImpossibleTransition):
                step(DRAIN, before, event)
            return
        after = self.state = step(DRAIN, before, event)
        self.hurried |= after in (S.HURRIED, S.STOPPED, S.CUT) or event is V.NO_SUCCESSOR
        if event is V.BEGIN and before not in LEAVING:
            self.passed, self.began = [], self.now
        if after is S.SERVING:
            assert not before.final, "a signal is final"
            self.hurried = False
        assert after.final or not before.final, "a drain that ends the process stays one"
        if after.phase is not None and after.phase is not before.phase:
            self.passed.append(after.phase)
            self.entered = self.now

    @rule(event=st.sampled_from(OUTSIDE))
    def comes(self, event: DrainEvent) -> None:
        """Anything from outside, also what cannot come now."""
        self.go(event)

    @rule(event=st.sampled_from(DrainEvent))
    def happens(self, event: DrainEvent) -> None:
        """Anything at all."""
        self.go(event)

    @precondition(lambda self: self.state not in WAITS)
    @rule(seconds=st.floats(0.1, 6.0))
    def time_passes(self, seconds: float) -> None:
        """A phase that is over its budget ends by it, whatever else happens; SUCCESSOR of an operator's drain has none."""
        self.now = min(self.now + seconds, self.entered + BUDGET_S)
        if self.now >= self.entered + BUDGET_S:
            self.go(V.BUDGET)

    @invariant()
    def workers_come_before_clients(self) -> None:
        assert Phase.CLIENTS not in self.passed or Phase.WORKERS in self.passed
        assert Phase.WORKERS not in self.passed or Phase.SUCCESSOR in self.passed

    @invariant()
    def phases_are_in_order(self) -> None:
        passed = [phase for phase in self.passed if phase not in (Phase.HOLD, Phase.RUNNING)]
        assert passed == sorted(passed, key=ORDER.index)

    @invariant()
    def nothing_is_skipped_but_for_a_reason(self) -> None:
        alone = Phase.SUCCESSOR in self.passed and Phase.WORKERS not in self.passed
        if self.state is S.DONE and not alone and not self.hurried:
            assert self.passed == ORDER[1:]
        assert Phase.DONE not in self.passed or Phase.CLOSE in self.passed

    @invariant()
    def never_past_the_deadline(self) -> None:
        if self.state.final and self.state not in WAITS:
            assert self.now - self.began <= DRAIN_S

    def teardown(self) -> None:
        """Whatever came before, budgets alone end a final drain; what an operator holds ends by a signal only."""
        if not self.state.final:
            self.go(V.SIGNAL)
        for _ in range(2 * len(ORDER)):
            self.go(V.BEGIN)
            self.now = self.entered + BUDGET_S
            self.go(V.BUDGET)
        assert self.state is S.DONE


TestDrains = Drains.TestCase
TestDrains.settings = settings(max_examples=examples(200), stateful_step_count=30, deadline=None)

WORKER_TIMEOUT_S, CLIENT_TIMEOUT_S, SESSIONS = 10.0, 5.0, [SessionId(f"s{number}") for number in range(6)]
sessions, workers = st.sampled_from(SESSIONS), st.sampled_from([WorkerId(name) for name in ("w0", "w1", "w2")])


class EveryReport(RuleBasedStateMachine):
    """A plan to which everything is reported, in orders that make sense and in others; it may be dropped and made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.workers: set[WorkerId] = set()
        """Workers that are here and have not been given up."""
        self.clients: dict[SessionId, bool] = {}
        """Clients that are here, and whether their session is pair-ready."""
        self.told: set[SessionId] = set()
        """Clients that were told to go and have not come back since."""
        self.given_up: set[SessionId | WorkerId] = set()
        self.idle = False
        self.budget_s = 0.0
        """How long a place in the pace takes to be had."""
        self.plan: DrainPlan = self.make(0)

    def make(self, seed: int) -> DrainPlan:
        return DrainPlan(
            dict.fromkeys(self.workers, 2),
            dict(self.clients),
            worker_timeout_s=WORKER_TIMEOUT_S,
            client_timeout_s=CLIENT_TIMEOUT_S,
            entropy=SeededEntropy(seed),
            now=self.now,
        )

    @rule()
    def next(self) -> None:
        """Do what the plan wants."""
        for session in self.plan.overdue(self.now):
            assert not self.workers - self.given_up, "workers of ours come first"
            self.ready(session, 0.0)
        decided = self.plan.next(self.now)
        self.idle = isinstance(decided, Wait | Finished)
        if isinstance(decided, AskPace):
            assert 1 <= decided.places <= max(2, self.plan.remaining(decided.party))
            self.plan.granted(decided.party, decided.places, self.now + self.budget_s, self.budget_s / 4)
        elif isinstance(decided, TellWorker):
            assert decided.worker in self.workers
        elif isinstance(decided, TellClient):
            assert self.clients[decided.session], "worker-first: told before its session was pair-ready"
            assert decided.session not in self.told, "told twice"
            self.told.add(decided.session)
        elif isinstance(decided, GiveUpWorker):
            assert decided.worker in self.workers
            self.workers.discard(decided.worker)
        elif isinstance(decided, GiveUpClient):
            assert decided.session in self.told
            self.given_up.add(decided.session)
        elif isinstance(decided, WorkersDone):
            assert not self.workers
        elif isinstance(decided, Wait):
            assert self.now <= decided.until <= self.now + 3 * WORKER_TIMEOUT_S
        else:
            assert not self.workers
            assert set(self.clients) <= self.told

    @rule(session=sessions, after=st.sampled_from([0.0, 0.5]))
    def ready(self, session: SessionId, after: float) -> None:
        """A worker has claimed the session on a successor, or was given up; it may be said again."""
        if self.clients.get(session) is False:
            self.clients[session] = True
        self.plan.session_ready(session, self.now + after)

    @rule(session=sessions, patience=st.sampled_from([1.0, 5.0]))
    def unready(self, session: SessionId, patience: float) -> None:
        """The session got another worker that is still here, before its client was told or after."""
        in_plan = session in self.clients and session not in self.given_up
        if in_plan:
            self.clients[session] = False
            self.told.discard(session)
        self.plan.session_unready(session, self.now + patience)

    @rule(worker=workers)
    def worker_comes(self, worker: WorkerId) -> None:
        """Its claim was under way when the plan was made; or it was told and came back."""
        self.workers.add(worker)
        self.plan.worker_came(worker, 2)

    @rule(worker=workers)
    def worker_goes(self, worker: WorkerId) -> None:
        """It resumed elsewhere, or is just gone; perhaps it was never here."""
        self.workers.discard(worker)
        self.plan.worker_moved(worker)

    @rule(session=sessions, ready=st.booleans())
    def client_comes(self, session: SessionId, ready: bool) -> None:
        """As a worker."""
        waits = session in self.clients and session not in self.told and session not in self.given_up
        if not waits:
            self.clients[session] = ready
        self.told.discard(session)
        self.given_up.discard(session)
        self.plan.client_came(session, ready=ready, now=self.now)

    @rule(session=sessions)
    def client_goes(self, session: SessionId) -> None:
        """As a worker."""
        self.clients.pop(session, None)
        self.told.discard(session)
        self.given_up.discard(session)
        self.plan.client_moved(session)

    @rule(seconds=st.floats(0.0, 4.0))
    def budget(self, seconds: float) -> None:
        """From now on a place in the pace is to be had after so long."""
        self.budget_s = seconds

    @rule()
    def successor_back(self) -> None:
        """There was no successor to go to for a while."""
        self.plan.begin_again(self.now)

    @rule(seed=st.integers(0, 3))
    def call_off(self, seed: int) -> None:
        """The drain is called off, and another one begins with the parties that are here."""
        self.told.clear()
        self.given_up.clear()
        self.plan = self.make(seed)

    @precondition(lambda self: self.idle)
    @rule(seconds=st.floats(0.1, 12.0))
    def time_passes(self, seconds: float) -> None:
        """Nothing is to be done: the caller waits."""
        self.now += seconds

    @invariant()
    def the_plan_counts_who_is_here(self) -> None:
        seen = self.plan.statistics()
        assert seen["workers_waiting"] + seen["workers_told"] == len(self.workers)
        assert seen["clients_unready"] == sum(not ready for ready in self.clients.values())
        assert seen["clients_told"] == len(self.told - self.given_up)
        assert self.plan.remaining("client") == seen["clients_unready"] + seen["clients_ready"]
        assert self.plan.remaining("worker") >= seen["workers_waiting"]

    def teardown(self) -> None:
        """All parties stay silent: it ends by its budgets, which begin one after the other."""
        began, self.budget_s = self.now, 0.0
        for _ in range(200):
            self.next()
            seen = self.plan.statistics()
            if not any(seen[kind] for kind in ("workers_waiting", "workers_told", "clients_unready", "clients_ready")):
                assert self.now - began <= 3 * (WORKER_TIMEOUT_S + CLIENT_TIMEOUT_S)
                return
            self.now += 1.0 if self.idle else 0.0
        raise AssertionError(f"{self.plan} does not end")


TestEveryReport = EveryReport.TestCase
TestEveryReport.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)
