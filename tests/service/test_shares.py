"""Places for transfers: bounded in all and for each holder, and given back whatever happens."""

import random
from collections import Counter
from contextlib import ExitStack

import pytest

from signald.service.shares import NoPlace, Shares


def test_each_holder_has_its_share() -> None:
    """A holder at its share is refused as such, also when all places are taken; another one is told that they are."""
    shares = Shares()
    with ExitStack() as stack:
        for holder in ("ann", "ann", "bob"):
            stack.enter_context(shares.place(3, {holder: 2, "address": 3}))
        for holder, full in (("ann", "share"), ("bob", "busy")):
            with pytest.raises(NoPlace) as refused, shares.place(3, {holder: 2}):
                pass
            assert refused.value.full == full
        with pytest.raises(NoPlace) as refused, shares.place(9, {"cid": 2, "address": 3}):
            pass
        assert refused.value.full == "share"
        assert (shares.taken, len(shares)) == (3, 3)
    assert (shares.taken, len(shares)) == (0, 0)


def test_a_place_is_given_back_by_a_failure() -> None:
    """The end of a block is the end of its place."""
    shares = Shares()
    with pytest.raises(KeyError), shares.place(1, {"ann": 1}):
        raise KeyError
    with shares.place(1, {"ann": 1}):
        assert shares.taken == 1


@pytest.mark.parametrize("seed", range(20))
def test_no_bound_is_passed(seed: int) -> None:
    """Whatever comes and goes, no holder and not all of them have more than they may."""
    rng = random.Random(seed)
    shares = Shares()
    held: list[tuple[dict[str, int], ExitStack]] = []
    for _ in range(300):
        if held and rng.random() < 0.4:
            _, stack = held.pop(rng.randrange(len(held)))
            stack.close()
            continue
        holders = {name: rng.choice((2, 3)) for name in rng.sample("abcd", rng.choice((1, 2)))}
        stack = ExitStack()
        before = Counter(name for names, _ in held for name in names)
        fits = all(before[name] < most for name, most in holders.items())
        if fits and len(held) < 5:
            stack.enter_context(shares.place(5, holders))
            held.append((holders, stack))
        else:
            with pytest.raises(NoPlace) as refused:
                stack.enter_context(shares.place(5, holders))
            assert refused.value.full == ("busy" if fits else "share")
        assert shares.taken == len(held) <= 5
    for _, stack in held:
        stack.close()
    assert (shares.taken, len(shares)) == (0, 0)
