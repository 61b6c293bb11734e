"""Which servers are asked where the primaries are: those of the URL and those that were met, by turns."""

import pytest

from signald.errors import StoreMisused
from signald.store.redis_members import ASKED_MAX, LEARNT_MAX, Members
from signald.store.redis_url import Address, parse_url

SEEDS = [Address("a", 1), Address("b", 2)]


def address(number: int) -> Address:
    """One that was met."""
    return Address("10.0.0.1", 7000 + number)


@pytest.fixture
def members() -> Members:
    """Of a cluster whose URL names two servers."""
    return Members(parse_url("redis+cluster://a:1,b:2"))


def test_nothing_but_the_url_at_first(members: Members) -> None:
    """Each search begins at another server."""
    assert members.to_ask(0) == SEEDS
    assert members.to_ask(1) == SEEDS[::-1]


def test_what_was_met_and_what_the_url_says_by_turns(members: Members) -> None:
    """Neither the dead of the one kind nor those of the other are all waited for first; none is asked twice."""
    members.learn([address(1), SEEDS[0], address(2), address(3)])
    assert members.to_ask(0) == [address(1), SEEDS[0], address(2), SEEDS[1], address(3)]
    assert members.to_ask(1) == [address(2), SEEDS[1], address(3), SEEDS[0], address(1)]


def test_what_was_met_stays_known(members: Members) -> None:
    """The latest answer comes first; what it does not name may live all the same, until there is no place for it."""
    members.learn([address(1), address(2)])
    members.learn([address(3)])
    assert members.to_ask(0)[::2] == [address(3), address(1), address(2)][: len(members.to_ask(0)[::2])]
    assert set(members.learnt) == {address(1), address(2), address(3)}
    members.learn(address(number) for number in range(10, 10 + LEARNT_MAX))
    assert members.learnt == tuple(address(number) for number in range(10, 10 + LEARNT_MAX))


def test_a_search_is_bounded(members: Members) -> None:
    """Each server may take its time not to answer; in the end all have been asked."""
    members.learn(address(number) for number in range(LEARNT_MAX))
    asked = [members.to_ask(turn) for turn in range(2 * LEARNT_MAX)]
    assert {len(one) for one in asked} == {ASKED_MAX}
    assert set().union(*asked) == {*SEEDS, *members.learnt}


def test_another_login_or_address(members: Members) -> None:
    """A new URL holds for what is connected from now on, and connections made with the old one are to be dropped."""
    members.learn([address(1)])
    members.renew(parse_url("rediss+cluster://:secret@c:3"))
    assert members.target.password == "secret"
    assert members.to_ask(0) == [address(1), Address("c", 3)]
    assert members.version == 1


def test_the_same_url_drops_nothing(members: Members) -> None:
    """A reload of something else costs no connection."""
    members.renew(parse_url("redis+cluster://a:1,b:2"))
    assert members.version == 0


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("redis://h", "redis://h/1"),
        ("redis://h", "redis+cluster://h"),
        ("redis+sentinel://h/main", "redis+sentinel://h/other"),
    ],
)
def test_another_store_is_refused(now: str, then: str) -> None:
    """Sessions are in the store that they are in: going to another one needs a restart."""
    members = Members(parse_url(now))
    with pytest.raises(StoreMisused, match="restart"):
        members.renew(parse_url(then))
    assert (members.target, members.version) == (parse_url(now), 0)
