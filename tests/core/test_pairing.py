"""The match of sessions with workers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from signald.core.pairing import Candidate, match, wants, with_room


def worker(name: str, capacity: int = 10, assigned: int = 0, **labels: str) -> Candidate:
    """A worker that may be given sessions."""
    return Candidate(name, labels, capacity, assigned)


def test_labels_must_include_what_is_wanted() -> None:
    """Each wanted label must be there with the same value; further labels do not matter."""
    assert wants({}, {})
    assert wants({}, {"lang": "en"})
    assert wants({"lang": "en"}, {"lang": "en", "gpu": "no"})
    assert not wants({"lang": "en"}, {"lang": "de"})
    assert not wants({"lang": "en"}, {})


def test_the_least_loaded_worker_is_chosen() -> None:
    """Load is the share of the capacity in use; ties go to the lower id, whatever the order."""
    assert match([("s", {})], [worker("a", 10, 6), worker("b", 100, 50)]) == [("s", "b")]
    assert match([("s", {})], [worker("b"), worker("a")]) == [("s", "a")]


def test_each_match_counts_for_the_next() -> None:
    """Sessions of one pass are spread, and never beyond a worker's capacity."""
    line: list[tuple[str, dict[str, str]]] = [(f"s{i}", {}) for i in range(5)]
    assert match(line, [worker("a", 2), worker("b", 2)]) == [("s0", "a"), ("s1", "b"), ("s2", "a"), ("s3", "b")]


def test_first_come_first_served() -> None:
    """When there is room for one session, the session that has waited longest gets it."""
    assert match([("old", {}), ("new", {})], [worker("a", 1)]) == [("old", "a")]


def test_who_cannot_be_served_holds_nobody_up() -> None:
    """A session that no worker suits is passed over."""
    assert match([("odd", {"lang": "xx"}), ("next", {})], [worker("a")]) == [("next", "a")]


def test_a_refused_pair_is_the_last_resort() -> None:
    """A worker that said no is asked again only if no other matches, however free it is."""
    busy, free = worker("a", 10, 9), worker("b")
    assert match([("s", {})], [busy, free], {("s", "b")}) == [("s", "a")]
    assert match([("s", {})], [free], {("s", "b")}) == [("s", "b")]
    assert match([("s", {"x": "1"})], [busy, worker("c", x="1")], {("s", "c")}) == [("s", "c")]


def test_full_workers_have_no_room() -> None:
    """A worker at or over its capacity, and one without any, are left out."""
    kept = worker("a", 2, 1)
    assert with_room([kept, worker("b", 2, 2), worker("c", 1, 3), worker("d", 0, 0)]) == [kept]


LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2)
WORKERS = st.lists(st.tuples(LABELS, st.integers(0, 4), st.integers(0, 4)), max_size=5)


@given(st.lists(LABELS, max_size=12), WORKERS, st.sets(st.tuples(st.integers(0, 11), st.integers(0, 4))))
def test_pairs_are_possible_and_no_one_is_forgotten(
    line: list[dict[str, str]],
    workers: list[tuple[dict[str, str], int, int]],
    refused: set[tuple[int, int]],
) -> None:
    """Labels match, no worker is overfilled, no session left out could have been served, and order does not matter."""
    waiting = [(f"s{i:02}", want) for i, want in enumerate(line)]
    free = with_room([Candidate(f"w{i}", labels, cap, have) for i, (labels, cap, have) in enumerate(workers)])
    no = {(f"s{s:02}", f"w{w}") for s, w in refused}
    pairs = match(waiting, free, no)
    by_id = {one.id: one for one in free}
    given_out = Counter(name for _, name in pairs)
    wanted = dict(waiting)
    assert len({session for session, _ in pairs}) == len(pairs)
    assert [session for session, _ in pairs] == sorted(session for session, _ in pairs)
    for session, name in pairs:
        assert wants(wanted[session], by_id[name].labels)
        assert by_id[name].assigned + given_out[name] <= by_id[name].capacity
    left_over = [one for one in free if one.assigned + given_out[one.id] < one.capacity]
    for session in wanted.keys() - {session for session, _ in pairs}:
        assert not any(wants(wanted[session], one.labels) for one in left_over)
    assert match(waiting, free[::-1], no) == pairs
    assert all(one.assigned == workers[int(one.id[1:])][2] for one in free), "the caller's workers are left alone"
