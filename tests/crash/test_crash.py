"""The quick share of the crashes: every store operation and frame of a handover, some of everything else."""

import pytest

from tests.crash.campaign import Point, points, points_around, run_point, steps_of, story
from tests.crash.posting import FOUND_BY_ITS_KEY
from tests.crash.scripts import SCENARIOS
from tests.crash.steps import Kind, frame_marks

THOROUGH: dict[Kind, int] = {"store": 1, "frame": 1, "await": 25, "post": 1, "media": 1}
"""For each node of the handover alone: every n-th step of a kind."""
SPARSE: dict[Kind, int] = {"store": 13, "frame": 13, "await": 80, "post": 3, "media": 3}
"""For the rest, which `python -m tests.crash` goes through in full."""
SELDOM: dict[Kind, int] = SPARSE | {"store": 29, "frame": 29, "await": 160}
"""For `tell` and `upload`, whose own steps are those outside; what matters of the others is in `AROUND`."""

CASES = [
    (name, victim, kind)
    for name, scenario in SCENARIOS.items()
    for victim in scenario.victims
    for kind in scenario.kinds
]


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
@pytest.mark.parametrize(("scenario", "victim", "kind"), CASES)
def test_killed_at_any_step(scenario: str, victim: str, kind: Kind) -> None:
    """Any process may die at any step: all acked messages are heard once, no session is lost, all is settled in a minute."""
    every = THOROUGH if scenario in ("handover", "submit") and victim in ("old", "new") else SPARSE
    every = SELDOM if scenario in ("tell", "upload") else every
    for point in points(scenario, victim, every, (kind,)):
        verdict = run_point(point)
        assert verdict.violations == (), story(point, around=40)


AROUND = (
    ("tell", "old", "CreateSession", 2),
    ("tell", "old", "EndSession", 1),
    ("tell", "old", "DropEvents", 2),
    ("tell", "new", "TakeDue", 2),
    ("upload", "old", "BeginBlob", 1),
    ("upload", "old", "FinishBlob", 2),
    ("upload", "both", "RemoveBlob", 1),
    ("upload", "both", "ForgetBlobs", 2),
)
"""Scenario, victim, operation and how many of its batches: what it leaves for another node to do is seldom left by chance."""


@pytest.mark.long
@pytest.mark.parametrize(("scenario", "victim", "operation", "batches"), AROUND)
def test_killed_around_an_operation(scenario: str, victim: str, operation: str, batches: int) -> None:
    """A node dies before, within or behind a batch that has something left to be done: another node does it."""
    found = list(points_around(scenario, victim, operation, batches))
    assert found, f"{victim} has no {operation}"
    for point in found:
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


def test_what_is_outside_has_steps() -> None:
    """Both nodes tell the core server something, and both have to do with the media."""
    for victim in ("old", "new"):
        assert steps_of("tell", victim)["post"] >= 2  # before an answer, and behind it
        assert steps_of("upload", victim)["media"] > 4


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
