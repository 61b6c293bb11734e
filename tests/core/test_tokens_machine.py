"""Recovery tokens against a model that keeps no slots: only what was issued, what was shown, and what was confirmed.

The model says: good is the newest token granted, and the one shown for it until its holder has shown that it has the newer.
Everything else that was ever good is retired, and showing it revokes the lineage. Holders show tokens in parallel, answers
are lost or come late, thieves show whatever was ever issued, and tickets are made and shown beside it all.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signald.core import tickets
from signald.core.tokens import RETIRED_MAX, Slots, Verdict, confirm, issue, parse, present, revoke
from signald.ids import SeededEntropy
from tests.examples import examples

CLUSTER = b"c" * 32


class Lineage(RuleBasedStateMachine):
    """The tokens of one session."""

    def __init__(self) -> None:
        super().__init__()
        self.entropy = SeededEntropy(0)
        self.tokens: list[str] = []
        """Every token ever issued, granted or not."""
        self.newest = self.make()
        self.shown_for_it: int | None = None
        """The token that the newest one was granted for, until the newest is known to have arrived."""
        self.retired: list[int] = []
        """In the order in which they went out of use."""
        self.revoked = False
        self.slots = Slots(self.hash_of(self.newest))
        self.answers: list[int] = []
        """Granted tokens whose answer is under way to the holder."""
        self.held = self.newest
        self.tickets: list[tuple[str, int]] = []
        self.now_ms = 1000

    def make(self) -> int:
        token, made = issue("s_1", self.entropy)
        parsed = parse(token)
        assert parsed == ("s_1", made), "what is issued can be read back"
        assert made not in token.encode()
        self.tokens.append(token)
        return len(self.tokens) - 1

    def hash_of(self, number: int) -> bytes:
        parsed = parse(self.tokens[number])
        assert parsed is not None
        return parsed[1]

    def show(self, number: int) -> Verdict:
        """Show a token; the model says first what must come of it."""
        issued = self.make()
        remembered = self.retired[-RETIRED_MAX:]
        good = not self.revoked and number in (self.newest, self.shown_for_it)
        before = self.slots
        self.slots, verdict = present(self.slots, self.hash_of(number), self.hash_of(issued))
        if good:
            assert verdict is Verdict.GRANTED
            if number == self.newest:
                self.retire(self.shown_for_it)
            else:
                self.retire(self.newest)
            self.newest, self.shown_for_it = issued, number
            self.answers.append(issued)
        elif number in remembered:
            assert verdict is Verdict.REUSED
            if not self.revoked:
                self.retire(self.shown_for_it)
                self.retire(self.newest)
            self.shown_for_it = None
            self.revoked = True
        else:
            assert verdict is (Verdict.REVOKED if self.revoked else Verdict.UNKNOWN)
            assert self.slots == before
        return verdict

    def retire(self, number: int | None) -> None:
        if number is not None:
            self.retired.append(number)

    @rule()
    def resume(self) -> None:
        """The holder shows what it has; it may do so again before it has an answer."""
        verdict = self.show(self.held)
        assert self.revoked or verdict is Verdict.GRANTED, "an honest holder was locked out"

    @precondition(lambda self: self.answers)
    @rule(lost=st.booleans())
    def answer(self, lost: bool) -> None:
        """The newest answer arrives, or is lost; older ones came on connections that were given up."""
        arrived = self.answers[-1]
        self.answers.clear()
        if not lost:
            self.held = arrived

    @precondition(lambda self: self.held == self.newest)
    @rule()
    def send_a_frame(self) -> None:
        """A frame behind the answer shows that it arrived."""
        self.slots = confirm(self.slots)
        if not self.revoked:
            self.retire(self.shown_for_it)
            self.shown_for_it = None

    @rule(data=st.data())
    def steal(self, data: st.DataObject) -> None:
        """A thief shows one of all the tokens there have been."""
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        if number not in (self.newest, self.shown_for_it):
            self.show(number)

    @rule(secret=st.binary(min_size=32, max_size=32))
    def guess(self, secret: bytes) -> None:
        """A thief shows a hash that was never issued."""
        before = self.slots
        self.slots, verdict = present(self.slots, secret, b"i" * 32)
        assert verdict in (Verdict.UNKNOWN, Verdict.REVOKED)
        assert self.slots == before

    @rule()
    def end(self) -> None:
        """An operator revokes the lineage; doing so twice changes nothing more."""
        self.slots = revoke(self.slots)
        if not self.revoked:
            self.retire(self.shown_for_it)
            self.retire(self.newest)
            self.shown_for_it = None
            self.revoked = True
        assert revoke(self.slots) == self.slots

    @rule(for_ms=st.integers(-50, 500), owner=st.sampled_from(["s_1", "s_2"]))
    def hand_out_a_ticket(self, for_ms: int, owner: str) -> None:
        """A GOAWAY takes a ticket along."""
        expires_ms = self.now_ms + for_ms
        self.tickets.append((tickets.make(CLUSTER, owner, expires_ms), expires_ms))
        assert tickets.valid(CLUSTER, owner, self.tickets[-1][0], self.now_ms) is (for_ms >= 0)
        assert not tickets.valid(CLUSTER, owner + "0", self.tickets[-1][0], self.now_ms)
        assert not tickets.valid(b"d" * 32, owner, self.tickets[-1][0], self.now_ms)

    @rule(ms=st.integers(1, 300))
    def time_passes(self, ms: int) -> None:
        """Tickets expire; tokens do not, that is the session's business."""
        self.now_ms += ms
        for ticket, expires_ms in self.tickets:
            good = any(tickets.valid(CLUSTER, owner, ticket, self.now_ms) for owner in ("s_1", "s_2"))
            assert good is (self.now_ms <= expires_ms)
        assert parse(self.tickets[0][0]) is None if self.tickets else True, "a ticket is no token"

    @invariant()
    def at_most_two_tokens_are_good(self) -> None:
        good = {one for one in (self.slots.current, self.slots.previous) if one}
        if self.revoked:
            assert not good
        else:
            wanted = {self.newest} | ({self.shown_for_it} if self.shown_for_it is not None else set())
            assert good == {self.hash_of(number) for number in wanted}
        assert len(self.slots.retired) <= RETIRED_MAX
        assert not good & set(self.slots.retired)


TestLineage = Lineage.TestCase
TestLineage.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)
