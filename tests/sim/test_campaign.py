"""The campaign tells what it did, what failed and what it was blind for."""

import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.sim.campaign import PARTS, Done, Part, program, report, slice_s, summary, until
from tests.sim.runner import Failure, Job, Total


def total(**reached: int) -> Total:
    """Three hundred seeds, of which none failed."""
    return Total(seeds=300, deploys=900, kills=40, reached=Counter(reached))


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.title)
def test_parts_know_what_they_are_told(part: Part) -> None:
    """Every part of the campaign is a program there is, which takes its options, a time and a seed."""
    command = [sys.executable, "-m", part.module, "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [
        flag for flag in (*part.options, "--minutes", "--seed") if flag.startswith("--") and flag not in known
    ] == []


def test_time_is_shared_out() -> None:
    """The time that is left is divided by the shares of the parts still to come, and each part gets some."""
    assert slice_s(100.0, 0.25, 1.0) == 25.0
    assert slice_s(50.0, 0.25, 0.25) == 50.0
    assert slice_s(-20.0, 0.1, 0.5) > 0.0


def test_failure_is_told_with_its_seed() -> None:
    """A broken promise fails the campaign, and the report says what to type to see it again."""
    one = total()
    one.failures.append(Failure(Job(17, "messages"), "liveness", "c1 waits\nfor ever"))
    result = summary({"found": one}, [], 60.0, 1)
    assert result["failed"]
    assert "* --transport messages --only 17: liveness: c1 waits for ever" in report({**result, "simulated": {
        name: {**result["simulated"]["found"], "blind": []} for name in ("found", "frames", "messages")
    }})  # fmt: skip


def test_blind_campaign_fails() -> None:
    """Seeds that met nothing rare prove nothing: the campaign fails and says what they did not meet."""
    result = summary({"frames": total(), "messages": total()}, [], 60.0, 1)
    assert result["failed"]
    text = report(result)
    assert text.startswith("# Campaign: FAILED")
    assert "client handed over: in 0 of 300 frames seeds" in text
    assert "| frames | 300 | 900 | 40 |" in text


def test_failed_part_fails_the_campaign() -> None:
    """A part that is a program of its own fails the campaign by its status, and its last words are in the report."""
    fails = program(Part("A part", "tests.no_such_part", 0.1), (), 60.0)
    assert fails.status != 0
    result = summary({}, [Done(PARTS[0], 0, 1.0, "well"), fails], 60.0, 1)
    assert result["failed"]
    assert not summary({}, [Done(PARTS[0], 0, 1.0, "well")], 60.0, 1)["failed"]
    assert "No module named tests.no_such_part" in result["programs"][1]["tail"]


def test_seeds_until_it_is_time() -> None:
    """Seeds are taken one after the other from the first, and none after the deadline."""
    jobs = until(time.monotonic() + 3600.0, "messages", 5)
    assert [next(jobs).seed for _ in range(3)] == [5, 6, 7]
    assert list(until(time.monotonic() - 1.0, "frames", 5)) == []
