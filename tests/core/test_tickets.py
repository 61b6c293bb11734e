"""Admission tickets: their holder, their end, and that nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.core import tickets

SECRET = b"s" * tickets.SECRET_BYTES
NOW_MS = 1_700_000_000_000


def test_a_ticket_admits_its_owner_until_it_expires() -> None:
    """Valid for the named party up to and including its last millisecond."""
    ticket = tickets.make(SECRET, "s_1", NOW_MS)
    assert tickets.valid(SECRET, "s_1", ticket, NOW_MS)
    assert not tickets.valid(SECRET, "s_1", ticket, NOW_MS + 1)


def test_a_ticket_admits_nobody_else() -> None:
    """Another party, another cluster, and a cluster without a secret refuse it."""
    ticket = tickets.make(SECRET, "s_1", NOW_MS)
    assert not tickets.valid(SECRET, "s_2", ticket, NOW_MS)
    assert not tickets.valid(b"x" * 32, "s_1", ticket, NOW_MS)
    assert not tickets.valid(b"", "s_1", tickets.make(b"", "s_1", NOW_MS), NOW_MS)


@pytest.mark.parametrize(
    "ticket", ["", ".", "5", "5.", ".x", "-5.x", "1e9.x", "٣.x", "9" * 400 + ".x", "9" * 15 + ".é"]
)
def test_a_misshapen_ticket_is_refused(ticket: str) -> None:
    """Whatever a party sends, the answer is no, never an error."""
    assert not tickets.valid(SECRET, "s_1", ticket, 0)


@given(st.integers(0, 10**14), st.integers(0, 40), st.characters(codec="utf-8"))
def test_a_changed_ticket_is_refused(expires_ms: int, place: int, letter: str) -> None:
    """Expiry and mac are bound together: no letter can be changed."""
    ticket = tickets.make(SECRET, "s_1", expires_ms)
    place %= len(ticket)
    changed = ticket[:place] + letter + ticket[place + 1 :]
    assert tickets.valid(SECRET, "s_1", changed, 0) is (changed == ticket)


def test_an_expiry_has_one_spelling() -> None:
    """A ticket is taken as it was made: zeros before its expiry, or digits of another script, make it another one."""
    secret = b"k" * 32
    expiry, _, mac = tickets.make(secret, "s_1", 5000).partition(".")
    assert tickets.valid(secret, "s_1", f"{expiry}.{mac}", 1000)
    for other in ("05000", "\u0665000"):
        assert int(other) == 5000
        assert not tickets.valid(secret, "s_1", f"{other}.{mac}", 1000)
