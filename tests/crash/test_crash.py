"""The quick share of the crashes: every store operation and frame of a handover, some of everything else."""

import pytest

from tests.crash.campaign import Point, points, run_point, steps_of, story
from tests.crash.posting import FOUND_BY_ITS_KEY
from tests.crash.scripts import SCENARIOS
from tests.crash.steps import KINDS, Kind, frame_marks

THOROUGH: dict[Kind, int] = {"store": 1, "frame": 1, "await": 25}
"""For each node of the handover alone: every n-th step of a kind."""
SPARSE: dict[Kind, int] = {"store": 13, "frame": 13, "await": 80}
"""For the rest, which `python -m tests.crash` goes through in full."""

CASES = [(name, victim) for name, scenario in SCENARIOS.items() for victim in scenario.victims]


FOUND = {
    Point("handover", "c0", "frame", 1): (
        "a client that waited was told to go while the claim of a worker here for it was under way: granted, not yet heard of"
    ),
}
"""Point → what it has shown."""


@pytest.mark.parametrize("point", FOUND, ids=str)
def test_what_was_found(point: Point) -> None:
    """What a crash has shown once, it does not show again."""
    assert run_point(point).violations == ()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scenario", "victim"), CASES)
def test_killed_at_any_step(scenario: str, victim: str, kind: Kind) -> None:
    """Any process may die at any step: all acked messages are heard once, no session is lost, all is settled in a minute."""
    every = THOROUGH if scenario in ("handover", "submit") and victim in ("old", "new") else SPARSE
    for point in points(scenario, victim, every, (kind,)):
        verdict = run_point(point)
        assert verdict.violations == (), story(point, around=40)


def test_a_job_is_stored_and_its_program_does_not_know() -> None:
    """A node dies with a job in the store and no answer on its way: the next request with the key finds the job."""
    told = [story(Point("submit", "old", "store", step), around=None) for step in range(4, 9)]
    assert any(FOUND_BY_ITS_KEY in one for one in told)
    assert not any("BROKEN" in one for one in told)


def test_the_script_is_what_it_says() -> None:
    """Both nodes of a handover have work to do at each kind of step, so that there is something to interrupt."""
    for victim in ("old", "new"):
        counts = steps_of("handover", victim)
        assert all(counts[kind] > 30 for kind in ("store", "frame", "await")), counts


def test_a_point_is_a_run() -> None:
    """The same crash happens again when it is asked for again."""
    point = Point("handover", "both", "await", 300)
    assert story(point, around=None) == story(point, around=None)


def test_a_write_is_cut_around_each_frame() -> None:
    """A write may be cut before it, within each frame and behind each; a handshake is one piece."""
    short, masked, long = b"\x81\x02hi", b"\x81\x82abcd..", b"\x81\x7e\x00\x80" + bytes(128)
    assert frame_marks(short) == [0, 2, 4]
    assert frame_marks(short + masked) == [0, 2, 4, 8, 12]
    assert frame_marks(long + short) == [0, 66, 132, 134, 136]
    assert frame_marks(b"HTTP/1.1 101 \r\n\r\n") == [0, 8, 17]
