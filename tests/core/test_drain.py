"""The plan of a handover: the order, the budgets, and the parties that are given up."""

from collections.abc import Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from signald.core.handover import (
    DrainPlan,
    Finished,
    GiveUpClient,
    GiveUpWorker,
    Step,
    TellClient,
    TellWorker,
    Wait,
    WorkersDone,
    pace_now,
)
from signald.ids import SeededEntropy
from signald.ids import SessionId as S
from signald.ids import WorkerId as W


def plan(workers: Mapping[str, int], clients: Mapping[str, bool], seed: int = 1) -> DrainPlan:
    """A plan that begins at time 0, with 10 s for a worker and 5 s for a client."""
    return DrainPlan(
        {W(name): cost for name, cost in workers.items()},
        {S(name): ready for name, ready in clients.items()},
        worker_timeout_s=10,
        client_timeout_s=5,
        entropy=SeededEntropy(seed),
        now=0.0,
    )


def until_wait(made: DrainPlan, now: float) -> list[Step]:
    """Everything the plan wants at `now`, up to and without the first wait."""
    steps: list[Step] = []
    while not isinstance(step := made.next(now), Wait | Finished):
        steps.append(step)
    return steps


def test_nobody_to_move_is_finished_at_once() -> None:
    """An empty node says so: first the workers are through, then all is."""
    made = plan({}, {})
    assert [made.next(0), made.next(0), made.next(0)] == [WorkersDone(), Finished(), Finished()]


def test_a_client_goes_when_its_worker_has_claimed() -> None:
    """Worker-first: nothing is said to the client before its session is pair-ready."""
    made = plan({"w": 1}, {"s": False})
    assert until_wait(made, 0) == [TellWorker(W("w"), 1)]
    assert until_wait(made, 1) == []
    made.session_ready(S("s"))
    assert until_wait(made, 1) == [TellClient(S("s"))]
    made.worker_moved(W("w"))
    assert made.next(1) == WorkersDone()
    made.client_moved(S("s"))
    assert made.next(1) == Finished()
    assert (made.moved_workers, made.moved_clients, made.remaining) == (1, 1, 0)


def test_a_worker_costs_what_it_takes_along() -> None:
    """The pace is of sessions: a worker's claim is that of all its sessions, and at least one."""
    made = plan({"big": 7, "idle": 0}, {})
    assert sorted(until_wait(made, 0), key=repr) == [TellWorker(W("big"), 7), TellWorker(W("idle"), 1)]


def test_there_is_no_barrier_between_sessions() -> None:
    """The first worker's clients go before the second worker is told."""
    made = plan({"w1": 2, "w2": 2}, {"a": False, "b": False, "c": False, "d": False})
    first = made.next(0)
    assert isinstance(first, TellWorker)
    for session in ("a", "b"):
        made.session_ready(S(session))
    told = [made.next(0), made.next(0), made.next(0)]
    assert [type(step) for step in told] == [TellClient, TellClient, TellWorker]


def test_clients_that_are_ready_do_not_hold_up_workers() -> None:
    """Clients whose workers are elsewhere share the pace with the workers that are here, half and half."""
    made = plan({f"w{i}": 2 for i in range(3)}, {f"s{i}": True for i in range(9)})
    kinds = [type(step) for step in until_wait(made, 0)]
    worker = [TellWorker, TellClient, TellClient]
    assert kinds == worker * 3 + [TellClient] * 3


def test_the_order_is_random_and_repeatable() -> None:
    """No group is always the first to move; the same seed gives the same order."""
    workers, clients = {f"w{i}": 1 for i in range(8)}, {f"s{i}": True for i in range(8)}
    orders = [until_wait(plan(workers, clients, seed), 0) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert until_wait(plan(dict(reversed(workers.items())), dict(reversed(clients.items()))), 0) == orders[0]


def test_a_worker_that_does_not_come_is_given_up() -> None:
    """Its time begins when GOAWAY went out, not when it was decided; a late claim does no harm."""
    made = plan({"w": 1}, {"s": False})
    made.next(0)
    made.told_worker_at(W("w"), 3.0)
    assert made.next(3.0) == Wait(13.0)
    assert made.next(13.0) == GiveUpWorker(W("w"))
    made.worker_moved(W("w"))
    assert made.moved_workers == 0


def test_a_client_that_does_not_come_is_given_up() -> None:
    """It stays connected; the plan is through with it, and its late move is no error."""
    made = plan({}, {"s": True})
    assert until_wait(made, 0) == [WorkersDone(), TellClient(S("s"))]
    made.told_client_at(S("s"), 1.0)
    assert made.next(5.9) == Wait(6.0)
    assert made.next(6.0) == GiveUpClient(S("s"))
    assert made.next(6.0) == Finished()
    made.client_moved(S("s"))
    assert made.moved_clients == 0


def test_the_patience_for_other_workers_begins_when_ours_are_through() -> None:
    """However long it takes to tell and move our workers: only then is a session without a ready worker late."""
    made = plan({"w1": 1, "w2": 1}, {"a": False, "b": False})
    until_wait(made, 0)
    made.worker_moved(W("w1"))
    made.told_worker_at(W("w2"), 50.0)
    assert made.next(55.0) == Wait(60.0)
    made.worker_moved(W("w2"))
    assert made.next(58.0) == Wait(68.0), "a moment ago there was still a worker to wait for"
    assert made.overdue(67.9) == []
    assert sorted(made.overdue(68.0)) == ["a", "b"]


def test_a_client_may_be_told_a_little_later() -> None:
    """`not_before` lets the answer to the claim reach the worker; meanwhile the next worker may be told."""
    made = plan({"w1": 1, "w2": 1}, {"a": False})
    assert isinstance(made.next(0), TellWorker)
    made.session_ready(S("a"), 0.5)
    assert isinstance(made.next(0), TellWorker)
    assert made.next(0) == Wait(0.5)
    assert made.next(0.5) == TellClient(S("a"))


def test_more_patience_can_be_had_for_some() -> None:
    """`extend` is for the sessions named."""
    made = plan({}, {"a": False, "b": False})
    assert made.next(0) == Wait(10.0)
    made.extend([S("a"), S("unknown")], 15.0)
    assert made.overdue(10.0) == ["b"]
    made.session_ready(S("b"))
    assert made.next(10.0) == TellClient(S("b"))
    made.client_moved(S("b"))
    assert made.next(10.0) == Wait(15.0)


def test_who_comes_after_the_plan_was_made_goes_like_the_others() -> None:
    """Its claim was under way when the drain began; also one that was told and came back to the same node."""
    made = plan({"w1": 1}, {"a": True})
    until_wait(made, 0)
    made.worker_came(W("w2"), 2)
    made.worker_came(W("w2"), 2)
    made.client_came(S("b"), ready=True, now=0)
    made.client_came(S("c"), ready=False, now=0)
    assert sorted(until_wait(made, 0), key=repr) == [TellClient(S("b")), TellWorker(W("w2"), 2)]
    made.worker_came(W("w1"), 1)
    made.client_came(S("b"), ready=True, now=0)
    assert sorted(until_wait(made, 0), key=repr) == [TellClient(S("b")), TellWorker(W("w1"), 1)]
    for worker in ("w1", "w2"):
        made.worker_moved(W(worker))
    assert until_wait(made, 0) == []
    made.session_ready(S("c"))
    assert until_wait(made, 0) == [WorkersDone(), TellClient(S("c"))]


def test_who_leaves_is_not_waited_for() -> None:
    """Workers and clients may go at any stage: untold, told, ready or not."""
    made = plan({"w1": 3, "w2": 1}, {"a": False, "b": True, "c": True})
    made.worker_moved(W("w1"))
    made.client_moved(S("a"))
    made.client_moved(S("b"))
    assert until_wait(made, 0) == [TellWorker(W("w2"), 1), TellClient(S("c"))]
    made.client_moved(S("c"))
    made.worker_moved(W("w2"))
    assert [made.next(0), made.next(0)] == [WorkersDone(), Finished()]


@pytest.mark.parametrize(("lag_ms", "wanted"), [(0, 200), (50, 200), (100, 100), (400, 25), (1e9, 20)])
def test_the_pace_gives_way_to_successors_that_fall_behind(lag_ms: float, wanted: float) -> None:
    """In proportion above the target, and never below a tenth: a successor that reports nonsense stops no drain."""
    assert pace_now(200, lag_ms) == wanted


class WorkerFirst(RuleBasedStateMachine):
    """A drain whose parties move, leave, hang and are given up in any order."""

    @initialize(
        sizes=st.lists(st.integers(0, 4), max_size=4),
        ready=st.integers(0, 3),
        strangers=st.integers(0, 2),
        seed=st.integers(0, 5),
    )
    def begin(self, sizes: list[int], ready: int, strangers: int, seed: int) -> None:
        """Some workers are here; some clients are ready from the start, some wait for workers of other nodes."""
        self.now = 0.0
        self.worker_of = {f"w{w}s{i}": f"w{w}" for w, size in enumerate(sizes) for i in range(size)}
        self.worker_of |= {f"x{i}": "elsewhere" for i in range(strangers)}
        self.ready = {f"r{i}" for i in range(ready)}
        self.here = set(self.worker_of) | self.ready
        self.told: list[str] = []
        self.waiting = False
        self.finished = False
        self.plan = plan(
            {f"w{w}": size for w, size in enumerate(sizes)},
            {session: session in self.ready for session in self.here},
            seed,
        )

    def make_ready(self, worker: str) -> None:
        """Every session of `worker` is pair-ready."""
        for session, one in self.worker_of.items():
            if one == worker and session not in self.ready:
                self.ready.add(session)
                self.plan.session_ready(S(session))

    @rule()
    def go_on(self) -> None:
        """Carry out what the plan wants."""
        overdue = self.plan.overdue(self.now)
        assert set(overdue) <= self.here - self.ready
        for session in overdue:
            self.make_ready(self.worker_of[session])
        step = self.plan.next(self.now)
        if isinstance(step, TellClient):
            assert step.session in self.ready, "a client was told before its session was pair-ready"
            assert step.session in self.here
            assert step.session not in self.told
            self.told.append(step.session)
        elif isinstance(step, GiveUpWorker):
            self.make_ready(step.worker)
        elif isinstance(step, Wait):
            assert step.until >= self.now
        elif isinstance(step, Finished):
            assert self.here <= set(self.told)
        self.waiting = isinstance(step, Wait)
        self.finished = isinstance(step, Finished)

    @rule(data=st.data(), resumed=st.booleans())
    def worker_goes(self, data: st.DataObject, resumed: bool) -> None:
        """A worker claims its sessions on a successor, or just leaves."""
        workers = sorted(set(self.worker_of.values()))
        if workers:
            worker = data.draw(st.sampled_from(workers))
            if resumed:
                self.make_ready(worker)
            if worker != "elsewhere":
                self.plan.worker_moved(W(worker))

    @rule(data=st.data())
    def client_goes(self, data: st.DataObject) -> None:
        """A client resumes elsewhere or leaves, told or not."""
        if self.here:
            session = data.draw(st.sampled_from(sorted(self.here)))
            self.here.discard(session)
            self.plan.client_moved(S(session))

    @precondition(lambda self: self.waiting)
    @rule(seconds=st.floats(0.1, 12))
    def time_passes(self, seconds: float) -> None:
        """The caller waits."""
        self.now += seconds

    @invariant()
    def the_counts_agree(self) -> None:
        if hasattr(self, "plan"):
            seen = self.plan.statistics()
            assert seen["clients_unready"] + seen["clients_ready"] + seen["clients_told"] <= len(self.here)
            assert seen["clients_moved"] <= len(self.told)
            assert self.plan.remaining >= 0

    def teardown(self) -> None:
        """Whatever happened, a drain whose parties do nothing more ends by its budgets."""
        if hasattr(self, "plan"):
            for _ in range(60):
                self.go_on()
                if self.finished:
                    return
                self.now += 10.0 if self.waiting else 0.0
            raise AssertionError(f"{self.plan} does not end")


TestWorkerFirst = WorkerFirst.TestCase
TestWorkerFirst.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
