"""Every input kept from before, and a short search for more. `python -m tests.fuzz` searches for longer."""

import random

import pytest

from tests.fuzz import corpus, mutate
from tests.fuzz.party import Harm, complain
from tests.fuzz.targets import TARGETS, run

SHARE = {
    "frames": 150,
    "json": 150,
    "handshakes": 150,
    "http": 40,
    "toml": 200,
    "decoders": 4000,
    "records": 60,
    "live": 60,
}
"""How many inputs each target gets here: a second or two each."""

MARKS = {"http": [pytest.mark.real], "records": [pytest.mark.real], "live": [pytest.mark.real]}


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [])) for name in TARGETS])
def test_the_corpus_harms_nobody(name: str) -> None:
    """Inputs that once did harm, or that are known to do it elsewhere, are taken or refused, and no other party notices."""
    kept = corpus.kept(name)
    assert kept
    run(name, 0, list(kept.values()))


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [])) for name in SHARE])
def test_a_short_search_finds_nothing(name: str) -> None:
    """The same for inputs drawn from a seed that is always the same."""
    rng = random.Random(name)
    outcomes = run(name, 1, [TARGETS[name].make(rng) for _ in range(SHARE[name])])
    assert len(set(outcomes)) > 1, "inputs that all end alike search nothing"


def test_inputs_are_repeatable() -> None:
    """A seed draws the same inputs every time: a failure can be tried again anywhere."""
    for target in TARGETS.values():
        drawn = [[target.make(rng) for _ in range(20)] for rng in (random.Random(7), random.Random(7))]
        assert drawn[0] == drawn[1]
    assert mutate.damage(b"x" * 100, random.Random(1)) == mutate.damage(b"x" * 100, random.Random(1))


def test_the_corpus_holds_what_parsers_are_known_to_stumble_over() -> None:
    """The classics are part of the corpus."""
    names = {name for target in TARGETS for name in corpus.kept(target)}
    assert names >= {
        "deep-nesting", "integer-of-5000-digits", "float-1e400", "nan", "lone-surrogate", "invalid-utf8", "duplicate-keys",
        "true-for-int", "2-53-plus-1", "empty-object", "proto", "nul", "string-of-10-mb", "header-injection",
    }  # fmt: skip


def test_a_complaint_is_heard() -> None:
    """An error in the log is a failure of the input that caused it, be it ever so well handled."""
    complain([{"event": "session_started", "log_level": "info"}])
    with pytest.raises(Harm):
        complain([{"event": "handler_failed", "log_level": "error", "exc_info": True}])
