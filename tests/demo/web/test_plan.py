"""Which move comes next: the rota, wishes in between, and releases that are served."""

import pytest

from signald.demo.web.plan import ROTA, SOON_S, Kind, Releases, Rota


def test_moves_come_by_themselves_in_their_order() -> None:
    """None before its time; after each a whole pause; all three kinds within one round."""
    rota = Rota(15.0, due=100.0)
    assert rota.take(99.9) is None
    begun, now = [], 100.0
    for _ in range(2 * len(ROTA)):
        kind = rota.take(now)
        assert kind is not None
        begun.append(kind)
        rota.done(now + 1.0)
        assert rota.take(now + 15.9) is None
        now += 16.0
    assert begun == [*ROTA, *ROTA]
    assert set(begun) == set(Kind)


def test_a_wish_goes_first_and_only_the_last_one_counts() -> None:
    """It needs no pause, and does not use up the rota's own move."""
    rota = Rota(15.0, due=100.0)
    assert rota.hear({"do": "deploy"}, 1.0)
    assert rota.hear({"do": "kill"}, 1.0)
    assert rota.take(1.0) is Kind.KILL
    rota.done(2.0)
    assert rota.take(16.9) is None
    assert rota.take(17.0) is ROTA[0]


def test_a_visitor_stops_the_moves_and_starts_them_again() -> None:
    """While they are stopped, wishes are granted; started again, the next one comes soon."""
    rota = Rota(15.0, due=10.0)
    assert rota.hear({"do": "stop"}, 5.0)
    assert rota.take(1000.0) is None
    rota.hear({"do": "rollback"}, 1000.0)
    assert rota.take(1000.0) is Kind.ROLLBACK
    assert rota.hear({"do": "go"}, 2000.0)
    assert rota.take(2000.0) is None
    assert rota.take(2000.0 + SOON_S) is ROTA[0]


def test_going_on_twice_does_not_put_a_move_off() -> None:
    """The second tab's word changes nothing."""
    rota = Rota(15.0, due=10.0)
    rota.hear({"do": "go"}, 9.9)
    assert rota.take(10.0) is ROTA[0]


@pytest.mark.parametrize("said", [None, 3, "kill", [], {}, {"do": None}, {"do": 3}, {"do": ["kill"]}, {"do": "KILL"}])
def test_what_means_nothing_is_ignored(said: object) -> None:
    """A page may publish anything."""
    rota = Rota(15.0, due=100.0)
    assert not rota.hear(said, 1.0)
    assert rota.take(1.0) is None
    assert rota.by_itself


def test_a_rollback_leads_to_the_release_before() -> None:
    """A deploy after it is a new release, not the one that was rolled back; a kill changes none."""
    releases = Releases()
    assert releases.current == "r1"
    assert releases.possible(Kind.ROLLBACK) is Kind.DEPLOY
    assert [releases.move(kind) for kind in (Kind.DEPLOY, Kind.ROLLBACK, Kind.DEPLOY, Kind.KILL, Kind.DEPLOY)] == [
        "r2",
        "r1",
        "r3",
        "r3",
        "r4",
    ]
    assert releases.possible(Kind.ROLLBACK) is Kind.ROLLBACK
    assert [releases.move(Kind.ROLLBACK), releases.move(Kind.ROLLBACK)] == ["r3", "r1"]
    assert releases.possible(Kind.ROLLBACK) is Kind.DEPLOY
