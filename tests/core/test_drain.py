"""The plan of a handover: the order, the budgets, and the parties that are given up."""

from collections.abc import Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from signald.core.handover import (
    AskPace,
    AwaitedClient,
    AwaitedWorker,
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
    """Everything the plan wants at `now`, up to and without the first wait. The budget grants whatever is asked for."""
    steps: list[Step] = []
    while not isinstance(step := granting(made, now), Wait | Finished):
        steps.append(step)
    return steps


def granting(made: DrainPlan, now: float) -> Step:
    """What the plan wants at `now`, when the budget grants whatever it asks for."""
    while isinstance(step := made.next(now), AskPace):
        made.granted(step.party, step.places, now, 0.0)
    return step


def test_nobody_to_move_is_finished_at_once() -> None:
    """An empty node says so: first the workers are through, then all is."""
    made = plan({}, {})
    assert [made.next(0), made.next(0), made.next(0)] == [WorkersDone(), Finished(), Finished()]


def test_a_client_goes_when_its_worker_has_claimed() -> None:
    """Worker-first: nothing is said to the client before its session is pair-ready."""
    made = plan({"w": 1}, {"s": False})
    assert until_wait(made, 0) == [TellWorker(W("w"))]
    assert until_wait(made, 1) == []
    made.session_ready(S("s"))
    assert until_wait(made, 1) == [TellClient(S("s"))]
    made.worker_moved(W("w"))
    assert made.next(1) == WorkersDone()
    made.client_moved(S("s"))
    assert made.next(1) == Finished()
    assert (made.moved_workers, made.moved_clients) == (1, 1)
    assert (made.remaining("worker"), made.remaining("client")) == (0, 0)


@pytest.mark.parametrize(("sessions", "places"), [(7, 7), (1, 1), (0, 1)])
def test_a_worker_takes_a_place_for_each_session(sessions: int, places: int) -> None:
    """A worker's claim is that of all its sessions, and at least one; it waits until all its places are granted."""
    made = plan({"w": sessions}, {})
    assert made.remaining("worker") == places
    assert made.next(0) == AskPace("worker", places)
    made.granted("worker", places, 2.5, 0.0)
    assert made.next(0) == Wait(2.5)
    assert made.next(2.5) == TellWorker(W("w"))


def test_a_session_that_moves_counts_once() -> None:
    """Its worker's place and its client's are of two budgets: sessions whose both parties move take one place of each."""
    made = plan({"w1": 2, "w2": 3}, {f"s{i}": False for i in range(5)})
    asked: dict[str, int] = {"worker": 0, "client": 0}
    for second in range(10):
        while not isinstance(step := made.next(second), Wait | Finished):
            if isinstance(step, AskPace):
                asked[step.party] += 1
                made.granted(step.party, 1, second, 0.0)
            elif isinstance(step, TellWorker):
                made.worker_moved(step.worker)
                for session in (f"s{i}" for i in range(5)):
                    made.session_ready(S(session))
            elif isinstance(step, TellClient):
                made.client_moved(step.session)
    assert made.next(10) == Finished()
    assert asked == {"worker": 5, "client": 5}


def test_there_is_no_barrier_between_sessions() -> None:
    """The first worker's clients go while the second worker waits for its places."""
    made = plan({"w1": 2, "w2": 2}, {"a": False, "b": False, "c": False, "d": False})
    made.granted("worker", 2, 0.0, 0.0)
    made.granted("client", 2, 0.0, 0.1)
    assert isinstance(made.next(0), TellWorker)
    assert made.next(0) == AskPace("worker", 2)
    made.granted("worker", 2, 0.5, 0.0)
    for session in ("a", "b"):
        made.session_ready(S(session))
    assert [made.next(0), made.next(0), made.next(0.1)] == [TellClient(S("a")), Wait(0.1), TellClient(S("b"))]
    assert made.next(0.1) == Wait(0.5)
    assert isinstance(made.next(0.5), TellWorker)


def test_a_client_whose_worker_has_moved_goes_first() -> None:
    """A session is between two nodes for as short as can be; the others have been so from the start, and wait."""
    made = plan({"w": 1}, {"a": True, "b": True, "split": False})
    made.granted("worker", 1, 0.0, 0.0)
    assert made.next(0) == TellWorker(W("w"))
    made.session_ready(S("split"))
    told = until_wait(made, 0)
    assert told[0] == TellClient(S("split"))
    assert sorted(told[1:], key=repr) == [TellClient(S("a")), TellClient(S("b"))]


def test_clients_that_are_ready_do_not_hold_up_workers() -> None:
    """However many clients wait for their turn, a worker goes when its own places are granted."""
    made = plan({f"w{i}": 2 for i in range(3)}, {f"s{i}": True for i in range(9)})
    kinds = [type(step) for step in until_wait(made, 0)]
    assert kinds == [TellWorker] * 3 + [TellClient] * 9


def test_late_turns_are_made_up_for() -> None:
    """A caller that comes late takes the places of a lot together: the pace is kept, and no place is given twice."""
    made = plan({}, {f"s{i}": True for i in range(4)})
    assert made.next(0) == WorkersDone()
    assert made.next(0) == AskPace("client", 4)
    made.granted("client", 3, 1.0, 0.125)
    assert made.next(0.9) == Wait(1.0)
    assert [type(made.next(1.2)) for _ in range(3)] == [TellClient, TellClient, Wait]
    assert isinstance(made.next(1.25), TellClient)
    assert made.next(1.25) == AskPace("client", 1)


def test_places_that_a_worker_did_not_take_are_the_next_one_s() -> None:
    """It left while it waited; what is granted already is not asked for again."""
    made = plan({"w1": 2}, {})
    made.next(0)
    made.granted("worker", 2, 1.0, 0.0)
    made.worker_moved(W("w1"))
    made.worker_came(W("w2"), 5)
    assert made.next(0.5) == AskPace("worker", 3)
    made.granted("worker", 3, 3.0, 0.0)
    assert [made.next(2.9), made.next(3.0)] == [Wait(3.0), TellWorker(W("w2"))]


def test_the_order_is_random_and_repeatable() -> None:
    """No group is always the first to move; the same seed gives the same order."""
    workers, clients = {f"w{i}": 1 for i in range(8)}, {f"s{i}": True for i in range(8)}
    orders = [until_wait(plan(workers, clients, seed), 0) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert until_wait(plan(dict(reversed(workers.items())), dict(reversed(clients.items()))), 0) == orders[0]


def test_a_worker_that_does_not_come_is_given_up() -> None:
    """Its time begins when GOAWAY goes out, not while it waits for its places; a late claim does no harm."""
    made = plan({"w": 1}, {"s": False})
    made.next(0)
    made.granted("worker", 1, 3.0, 0.0)
    assert made.next(0) == Wait(3.0)
    assert made.next(3.0) == TellWorker(W("w"))
    assert made.next(3.0) == Wait(13.0)
    assert made.next(13.0) == GiveUpWorker(W("w"))
    made.worker_moved(W("w"))
    assert made.moved_workers == 0


def test_a_client_that_does_not_come_is_given_up() -> None:
    """It stays connected; the plan is through with it, and its late move is no error."""
    made = plan({}, {"s": True})
    assert until_wait(made, 1.0) == [WorkersDone(), TellClient(S("s"))]
    assert made.next(5.9) == Wait(6.0)
    assert made.next(6.0) == GiveUpClient(S("s"))
    assert made.next(6.0) == Finished()
    made.client_moved(S("s"))
    assert made.moved_clients == 0


def test_the_patience_for_other_workers_begins_when_ours_are_through() -> None:
    """However long it takes to tell and move our workers: only then is a session without a ready worker late."""
    made = plan({"w1": 1, "w2": 1}, {"a": False, "b": False})
    made.granted("worker", 2, 50.0, 0.0)
    first, second = made.next(50.0), made.next(50.0)
    assert isinstance(first, TellWorker)
    assert isinstance(second, TellWorker)
    made.worker_moved(first.worker)
    assert made.next(55.0) == Wait(60.0)
    made.worker_moved(second.worker)
    assert made.next(58.0) == Wait(68.0), "a moment ago there was still a worker to wait for"
    assert made.overdue(67.9) == []
    assert not made.is_overdue(S("a"), 67.9)
    assert sorted(made.overdue(68.0)) == ["a", "b"]
    assert made.is_overdue(S("a"), 68.0)


def test_a_client_may_be_told_a_little_later() -> None:
    """`not_before` lets the answer to the claim reach the worker; meanwhile the next worker may be told."""
    made = plan({"w1": 1, "w2": 1}, {"a": False})
    assert isinstance(granting(made, 0), TellWorker)
    made.session_ready(S("a"), 0.5)
    assert isinstance(granting(made, 0), TellWorker)
    assert granting(made, 0) == Wait(0.5)
    assert granting(made, 0.5) == TellClient(S("a"))


def test_more_patience_can_be_had_for_some() -> None:
    """`extend` is for the sessions named."""
    made = plan({}, {"a": False, "b": False})
    assert made.next(0) == Wait(10.0)
    made.extend([S("a"), S("unknown")], 15.0)
    assert made.overdue(10.0) == ["b"]
    made.session_ready(S("b"))
    assert granting(made, 10.0) == TellClient(S("b"))
    assert not made.is_overdue(S("b"), 10.0)
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
    assert sorted(until_wait(made, 0), key=repr) == [TellClient(S("b")), TellWorker(W("w2"))]
    made.worker_came(W("w1"), 1)
    made.client_came(S("b"), ready=True, now=0)
    assert sorted(until_wait(made, 0), key=repr) == [TellClient(S("b")), TellWorker(W("w1"))]
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
    assert until_wait(made, 0) == [TellWorker(W("w2")), TellClient(S("c"))]
    made.client_moved(S("c"))
    made.worker_moved(W("w2"))
    assert [made.next(0), made.next(0)] == [WorkersDone(), Finished()]


def test_those_who_are_waited_for_are_named() -> None:
    """The told ones apart: unready may be thousands, of which those are of no interest whose worker waits for its turn."""
    made = plan({"w": 1}, {"a": False, "b": True})
    assert (made.told(), made.unready(), made.waits(W("w"))) == ([], [AwaitedClient(S("a"))], True)
    until_wait(made, 0)
    assert made.told() == [AwaitedWorker(W("w")), AwaitedClient(S("b"))]
    assert not made.waits(W("w"))
    assert not made.waits(W("elsewhere"))


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
        step = granting(self.plan, self.now)
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
            assert self.plan.remaining("client") <= len(self.here)

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
