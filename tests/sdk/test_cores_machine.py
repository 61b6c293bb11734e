"""The SDK's two cores talk to each other, through a service that forgets nothing and a network that loses, delays and repeats.

Hypothesis chooses when each party dials, writes and reads, and which connections break with all that is on them. It chooses
which party is told to go elsewhere, and which process dies. The messages given to the applications are compared with those that
the applications said.
"""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from signald.ids import SeededEntropy
from signald.sdk.backoff import Backoff
from signald.sdk.client_core import ClientCore
from signald.sdk.core import SessionCore
from signald.sdk.notices import Assigned
from signald.sdk.worker_core import WorkerCore
from tests.examples import examples
from tests.sdk.exchange import SESSION, Exchange

parties = st.sampled_from(["client", "worker"])
few = st.integers(1, 8)

BACKOFF = Backoff(base_s=0.1, cap_s=0.2)
TURNS = 60
"""So many turns without trouble are enough for everything to arrive."""


class Handling:
    """One session in the hands of one worker's application."""

    def __init__(self, number: int, core: SessionCore) -> None:
        self.number = number
        self.core = core
        self.got: list[int] = []
        self.said = 0


class CoresMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.lives = 0
        self.said = 0
        self.heard: list[object] = []
        self.handlings: list[Handling] = []
        self.client = ClientCore(["ws://a"], entropy=SeededEntropy(0), backoff=BACKOFF)
        self.worker = self.new_worker()
        self.exchange = Exchange(self.client, self.worker)
        for party in ("client", "worker", "worker"):
            self.turn(party, 8)

    def new_worker(self) -> WorkerCore:
        """A worker's process that knows nothing."""
        self.lives += 1
        entropy = SeededEntropy(self.lives)
        return WorkerCore(["ws://a"], instance_id=f"i{self.lives}", entropy=entropy, backoff=BACKOFF)

    # --- the network -----------------------------------------------------------------------------------------------

    @rule(party=parties, count=few)
    def turn(self, party: str, count: int) -> None:
        """A party connects if it wants to, writes, and reads."""
        self.exchange.dial(party)
        self.exchange.carry_up(party, count)
        self.exchange.carry_down(party, count)
        self.attend()

    @rule(party=parties, count=st.integers(0, 8))
    def up(self, party: str, count: int) -> None:
        """A party connects if it wants to, and some of what it writes arrives; the rest is under way."""
        self.exchange.dial(party)
        self.exchange.carry_up(party, count)

    @rule(party=parties, count=few)
    def down(self, party: str, count: int) -> None:
        """Some of what the service writes arrives."""
        self.exchange.carry_down(party, count)
        self.attend()

    @rule(party=parties, what=st.sampled_from(["cut", "cut", "repeat", "go away", "refuse", "wait"]), count=few)
    def trouble(self, party: str, what: str, count: int) -> None:
        """A connection breaks, something is said twice, a party is to move, its backlog is full, or time goes by."""
        exchange = self.exchange
        if what == "cut":
            exchange.cut(party, count)
        elif what == "repeat":
            exchange.repeat(party, count)
        elif what == "go away":
            exchange.go_away(party)
        elif what == "refuse":
            exchange.side(party).refuse_next = True
        else:
            exchange.now += count / 5

    # --- the applications ------------------------------------------------------------------------------------------

    def attend(self) -> None:
        """A worker's front: a handler begins with each session that was given to it."""
        while self.worker.notices:
            notice = self.worker.notices.popleft()
            if isinstance(notice, Assigned):
                self.handlings.append(Handling(len(self.handlings), notice.core))

    @property
    def handling(self) -> Handling | None:
        """The handler that has the session now."""
        last = self.handlings[-1] if self.handlings else None
        seat = self.worker.sessions.get(SESSION)
        return last if last is not None and seat is not None and seat.core is last.core else None

    @rule(party=parties, count=few)
    def say(self, party: str, count: int) -> None:
        """An application with a peer says something."""
        handling = self.handling
        if party == "client":
            for _ in range(count if self.client.established else 0):
                self.said += 1
                assert self.client.session.send(self.said) == self.said
        elif handling is not None:
            for _ in range(count):
                handling.said += 1
                handling.core.send([handling.number, handling.said])
            self.worker.touched(handling.core)

    @rule(party=parties, count=few)
    def take(self, party: str, count: int) -> None:
        """An application finishes with what it has, and takes the next."""
        if party == "client":
            self.hear(count)
        else:
            self.work(count)

    def hear(self, count: int) -> None:
        """The client's application finishes with what it has, and takes the next."""
        core = self.client.session
        for _ in range(count):
            core.finish(len(self.heard))
            message = core.take()
            if message is not None:
                assert message.seq == len(self.heard) + 1
                self.heard.append(message.data)

    def work(self, count: int) -> None:
        """The worker's does the same."""
        handling = self.handling
        if handling is None:
            return
        for _ in range(count):
            if handling.got:
                handling.core.finish(handling.got[-1])
            message = handling.core.take()
            if message is not None:
                assert message.data == message.seq
                handling.got.append(message.seq)
        self.worker.touched(handling.core)

    # --- processes -------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["restart", "restart", "release", "crash"]))
    def process(self, what: str) -> None:
        """A client's process dies, a worker gives the session back, or dies."""
        if what == "restart":
            self.restart_client()
        elif what == "crash":
            self.crash_worker()
        elif self.handling is not None:
            self.worker.release(self.handling.core, "enough", self.exchange.now)

    def restart_client(self) -> None:
        """The next process goes on from the state, and is given again what this one had not finished."""
        if not self.client.established:
            return
        state = self.client.state()
        self.exchange.client.lose_all()
        self.client = ClientCore(["ws://a"], entropy=SeededEntropy(0), backoff=BACKOFF, state=state)
        self.exchange.client.core = self.client
        del self.heard[state.received :]

    def crash_worker(self) -> None:
        """What it had not acked goes to the next one, and what it had said and was not stored is gone."""
        self.exchange.worker.lose_all()
        self.worker = self.new_worker()
        self.exchange.worker_died(self.worker)

    # --- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def what_is_stored_was_said(self) -> None:
        """Once and in order, of the client and of each handler."""
        log = self.exchange.log
        assert log["up"] == list(range(1, len(log["up"]) + 1))
        assert len(log["up"]) <= self.said
        counts = [0] * len(self.handlings)
        for number, k in log["down"]:
            counts[number] += 1
            assert k == counts[number] <= self.handlings[number].said
        assert [number for number, _ in log["down"]] == sorted(number for number, _ in log["down"])

    @invariant()
    def what_is_heard_was_stored(self) -> None:
        """By the client all of it in order; by each handler a run without holes from what no worker had acked."""
        assert self.heard == self.exchange.log["down"][: len(self.heard)]
        for handling in self.handlings:
            if handling.got:
                assert handling.got == list(range(handling.got[0], handling.got[-1] + 1))
                assert handling.got[0] - 1 in self.exchange.begun_at
                assert handling.got[-1] <= len(self.exchange.log["up"])

    @invariant()
    def acked_is_finished(self) -> None:
        """Nothing is acked that no application has finished with, and nothing forgotten that is not stored."""
        assert self.exchange.acked["down"] <= len(self.heard)
        finished = max((handling.core.finished for handling in self.handlings), default=0)
        assert self.exchange.acked["up"] <= finished
        assert self.said - self.client.session.unacked <= len(self.exchange.log["up"])

    def teardown(self) -> None:
        """Without trouble everything arrives, and no party keeps anything."""
        for side in (self.exchange.client, self.exchange.worker):
            side.refuse_next = False
        for _ in range(TURNS):
            self.exchange.now += 1.0
            for party in ("client", "worker"):
                self.turn(party, 10_000)
            self.hear(1 + len(self.exchange.log["down"]))
            if self.handling is not None:
                self.work(1 + len(self.exchange.log["up"]))
        self.what_is_stored_was_said()
        self.what_is_heard_was_stored()
        handling, log, acked = self.handling, self.exchange.log, self.exchange.acked
        assert handling is not None
        assert self.client.over is None
        assert self.worker.over is None
        assert log["up"] == list(range(1, self.said + 1))
        assert self.heard == log["down"]
        assert sum(number == handling.number for number, _ in log["down"]) == handling.said
        assert (self.client.session.unacked, handling.core.unacked) == (0, 0)
        assert acked == {"up": len(log["up"]), "down": len(log["down"])}


TestCores = CoresMachine.TestCase
TestCores.settings = settings(max_examples=examples(100), stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("seed", range(40))
def test_long_schedules(seed: int) -> None:
    """The same over long random schedules, which a search for small ones seldom tries."""
    rng = random.Random(seed)
    machine = CoresMachine()
    for _ in range(300):
        party, count = rng.choice(("client", "worker")), rng.randint(1, 8)
        match rng.choices(("turn", "up", "down", "say", "take", "trouble", "process"), (6, 3, 3, 5, 5, 3, 0.2))[0]:
            case "trouble":
                what = rng.choice(("cut", "repeat", "go away", "refuse", "wait"))
                machine.trouble(party=party, what=what, count=count)
            case "process":
                machine.process(what=rng.choice(("restart", "release", "crash")))
            case name:
                getattr(machine, name)(party=party, count=count)
        machine.what_is_stored_was_said()
        machine.what_is_heard_was_stored()
        machine.acked_is_finished()
    machine.teardown()
    assert min(machine.said, len(machine.exchange.log["down"])) > 10
