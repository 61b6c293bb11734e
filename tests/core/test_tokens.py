"""Recovery tokens: what a holder shows, what it comes to, and what is left of it."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signald.core.tokens import (
    RETIRED_MAX,
    SECRET_BYTES,
    Slots,
    Verdict,
    confirm,
    issue,
    parse,
    parse_session,
    parse_worker,
    present,
    revoke,
)
from signald.ids import SeededEntropy, new_session_id, new_worker_id

ENTROPY = SeededEntropy(7)


def test_issue_and_parse() -> None:
    """A token names its owner and carries a secret, of which the store gets the SHA-256 only."""
    for owner in (new_session_id(ENTROPY), new_worker_id(ENTROPY)):
        token, kept = issue(owner, ENTROPY)
        assert parse(token) == (owner, kept)
        secret = base64.urlsafe_b64decode(token.split(".")[1] + "=")
        assert len(secret) == SECRET_BYTES
        assert hashlib.sha256(secret).digest() == kept


def test_issue_is_never_the_same() -> None:
    """Two tokens of one owner differ."""
    tokens = {issue("s_1", ENTROPY) for _ in range(100)}
    assert len({kept for _, kept in tokens}) == 100


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "s_1",
        "s_1.",
        "." + "A" * 43,
        "s_1." + "A" * 42,
        "s_1." + "A" * 44,
        "s_1." + "A" * 42 + "\n",
        "s_1." + "A" * 42 + "é",
        "s 1." + "A" * 43,
        "s/1." + "A" * 43,
        "s{1}." + "A" * 43,
        "s_1.x." + "A" * 41,
        "s" * 65 + "." + "A" * 43,
    ],
)
def test_parse_refuses(token: str) -> None:
    """What has not the form of a token is none; nothing of it reaches a store's key."""
    assert parse(token) is None


@given(st.text())
def test_parse_never_raises(text: str) -> None:
    """Any text at all is either a token or not."""
    parse(text)
    parse(f"s_1.{text}")


def test_slots_show_no_hash() -> None:
    """The representation of slots holds nothing of a token."""
    text = repr(Slots(b"current", b"previous", (b"retired",)))
    assert text == "Slots(current=True, previous=True, retired=1)"


def test_present_current() -> None:
    """The current token is granted and becomes the previous one."""
    assert present(Slots(b"t1"), b"t1", b"t2") == (Slots(b"t2", b"t1"), Verdict.GRANTED)


def test_present_previous() -> None:
    """While the new token has not been shown, the one before is granted; the unseen one is retired."""
    assert present(Slots(b"t2", b"t1"), b"t1", b"t3") == (Slots(b"t3", b"t1", (b"t2",)), Verdict.GRANTED)


def test_present_current_retires_previous() -> None:
    """To show the current token proves that the one before is not needed any more."""
    assert present(Slots(b"t2", b"t1"), b"t2", b"t3") == (Slots(b"t3", b"t2", (b"t1",)), Verdict.GRANTED)


def test_present_unknown() -> None:
    """A token that never was is unknown and changes nothing."""
    slots = Slots(b"t2", b"t1", (b"t0",))
    assert present(slots, b"t9", b"t3") == (slots, Verdict.UNKNOWN)


def test_present_retired() -> None:
    """A retired token revokes the lineage: from then on every token of it counts as retired."""
    slots, verdict = present(Slots(b"t2", b"t1", (b"t0",)), b"t0", b"t3")
    assert (slots, verdict) == (Slots(retired=(b"t0", b"t1", b"t2")), Verdict.REUSED)
    for token in (b"t0", b"t1", b"t2"):
        assert present(slots, token, b"t4") == (slots, Verdict.REUSED)


def test_present_after_revocation() -> None:
    """After a revocation nothing is granted, whatever is shown."""
    slots = revoke(Slots(b"t1"))
    assert present(slots, b"t9", b"t2") == (slots, Verdict.REVOKED)


def test_empty_is_no_token() -> None:
    """Nothing is not a token, though an empty slot holds nothing too."""
    assert present(Slots(b"t1"), b"", b"t2")[1] is Verdict.UNKNOWN
    assert present(Slots(), b"", b"t2")[1] is Verdict.REVOKED


def test_confirm() -> None:
    """A confirmation retires the previous token; without one it changes nothing."""
    assert confirm(Slots(b"t2", b"t1")) == Slots(b"t2", b"", (b"t1",))
    assert confirm(Slots(b"t2", b"", (b"t1",))) == Slots(b"t2", b"", (b"t1",))
    assert confirm(Slots(retired=(b"t1",))) == Slots(retired=(b"t1",))


def test_retired_are_bounded() -> None:
    """Only the last retired tokens are remembered; an older one is refused as unknown."""
    slots = Slots(b"t0")
    for number in range(1, 20):
        slots, _ = present(slots, b"t%d" % (number - 1), b"t%d" % number)
        slots = confirm(slots)
    assert len(slots.retired) == RETIRED_MAX
    assert present(slots, b"t0", b"t20")[1] is Verdict.UNKNOWN
    assert present(slots, b"t18", b"t20")[1] is Verdict.REUSED


class TokenOnce(RuleBasedStateMachine):
    """An honest holder that loses answers is never locked out, and a token it has gone beyond never resumes.

    The holder keeps the last token it has seen. The server may answer a resume and the answer be lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.issued = 0
        self.slots = Slots(b"0")
        self.held = 0
        self.revoked = False

    def resume(self) -> None:
        """Show the token that is held."""
        self.issued += 1
        self.slots, verdict = present(self.slots, b"%d" % self.held, b"%d" % self.issued)
        assert verdict is Verdict.GRANTED

    @precondition(lambda self: not self.revoked)
    @rule()
    def resume_and_hear(self) -> None:
        """The answer arrives."""
        self.resume()
        self.held = self.issued

    @precondition(lambda self: not self.revoked)
    @rule()
    def resume_and_lose(self) -> None:
        """The answer is lost."""
        self.resume()

    @precondition(lambda self: not self.revoked and self.held == self.issued)
    @rule()
    def send_something(self) -> None:
        """A frame after the answer shows that it arrived."""
        self.slots = confirm(self.slots)

    @rule(back=st.integers(1, 5))
    def thief(self, back: int) -> None:
        """A thief shows a token that the holder has gone beyond. While it may still be granted, it is the holder's last."""
        number = self.held - back
        token = b"%d" % number
        if number < 0 or token == self.slots.previous:
            return
        before = self.slots
        self.slots, verdict = present(self.slots, token, b"stolen")
        assert verdict in (Verdict.REUSED, Verdict.UNKNOWN, Verdict.REVOKED)
        if verdict is Verdict.REUSED:
            self.revoked = True
        else:
            assert self.slots == before

    @invariant()
    def held_is_good(self) -> None:
        """What the holder has is in one of the two slots, unless a theft was noticed."""
        if self.revoked:
            assert not self.slots.current
            assert not self.slots.previous
        else:
            assert b"%d" % self.held in (self.slots.current, self.slots.previous)


TestTokenOnce = TokenOnce.TestCase


def test_a_token_is_of_one_party_only() -> None:
    """The token of a worker is none of a client's, nor the other way round, and its owner keeps the type of its id."""
    entropy = SeededEntropy(5)
    session, worker = new_session_id(entropy), new_worker_id(entropy)
    of_session, hashed = issue(session, entropy)
    assert parse_session(of_session) == (session, hashed)
    assert parse_worker(of_session) is None
    of_worker, hashed = issue(worker, entropy)
    assert parse_worker(of_worker) == (worker, hashed)
    assert parse_session(of_worker) is None
    assert parse_session("x") is None
    assert parse_worker("") is None
