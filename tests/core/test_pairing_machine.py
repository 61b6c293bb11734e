"""Matchmaking by several nodes at once, each with an old view, against a registry that grants a pair at most once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from signald.core.pairing import Candidate, match, wants, with_room
from tests.examples import examples

NODES = ("a", "b", "c")
LABELS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
names = st.sampled_from([f"w{number}" for number in range(4)])

View = tuple[list[tuple[str, dict[str, str]]], list[Candidate]]


class Matchmakers(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, tuple[dict[str, str], int]] = {}
        self.want: dict[str, dict[str, str]] = {}
        self.line: list[str] = []
        self.pairs: dict[str, str] = {}
        self.refused: set[tuple[str, str]] = set()
        self.views: dict[str, View] = {node: ([], []) for node in NODES}

    def assigned(self, worker: str) -> int:
        return sum(one == worker for one in self.pairs.values())

    def view(self) -> View:
        found = [
            Candidate(name, labels, room, self.assigned(name)) for name, (labels, room) in sorted(self.workers.items())
        ]
        return [(session, self.want[session]) for session in self.line], with_room(found)

    @rule(want=LABELS)
    def session_comes(self, want: dict[str, str]) -> None:
        """One more waits, at the end of the line."""
        session = f"s{len(self.want):03}"
        self.want[session] = want
        self.line.append(session)

    @rule(name=names, labels=LABELS, room=st.integers(0, 3))
    def worker_comes(self, name: str, labels: dict[str, str], room: int) -> None:
        """A worker registers, or says that its room has changed."""
        self.workers[name] = (self.workers.get(name, (labels, 0))[0], room)

    @rule(name=names)
    def worker_is_lost(self, name: str) -> None:
        """Its sessions wait again, at their old places."""
        self.workers.pop(name, None)
        back = [session for session, worker in self.pairs.items() if worker == name]
        for session in back:
            del self.pairs[session]
        self.line = sorted(self.line + back)

    @rule(node=st.sampled_from(NODES))
    def look(self, node: str) -> None:
        """A node reads the line and the workers."""
        self.views[node] = self.view()

    @rule(node=st.sampled_from(NODES))
    def pair(self, node: str) -> None:
        """It matches what it has read, however long ago, and the registry grants what still holds."""
        waiting, workers = self.views[node]
        pairs = match(waiting, workers, self.refused)
        for session, name in pairs:
            candidate = next(one for one in workers if one.id == name)
            assert candidate.assigned + sum(one == name for _, one in pairs) <= candidate.capacity
            assert wants(self.want[session], candidate.labels)
            if session in self.line and name in self.workers and self.assigned(name) < self.workers[name][1]:
                self.line.remove(session)
                self.pairs[session] = name

    @rule(data=st.data())
    def worker_refuses(self, data: st.DataObject) -> None:
        """A worker gives one back: others are asked first from now on."""
        if self.pairs:
            session = data.draw(st.sampled_from(sorted(self.pairs)))
            self.refused.add((session, self.pairs.pop(session)))
            self.line = sorted([*self.line, session])

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        assert sorted([*self.line, *self.pairs]) == sorted(self.want)
        assert len(set(self.line)) == len(self.line)

    def teardown(self) -> None:
        """With a fresh view no session waits that could be served."""
        for _ in range(len(self.want) + 1):
            self.look("a")
            self.pair("a")
        _, workers = self.view()
        for session in self.line:
            assert not any(wants(self.want[session], one.labels) for one in workers)


TestMatchmakers = Matchmakers.TestCase
TestMatchmakers.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)
