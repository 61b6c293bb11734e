"""The same seed gives the same handover: without that no failure found by simulation could be played again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.transcript import transcript

ROOT = Path(__file__).parents[2]


def in_a_process(seed: int, hash_seed: int) -> list[str]:
    """Play the transcript in a process of its own, whose hashes differ."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.transcript", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_one_seed_one_transcript() -> None:
    """Phases, GOAWAYs, claims and their times, and every party's story: the same twice in one process; other seeds differ."""
    first, again, other = transcript(7), transcript(7), transcript(8)
    assert first == again
    assert first != other


@pytest.mark.real
def test_the_transcript_does_not_depend_on_the_process() -> None:
    """Neither on hashes nor on what ran before."""
    assert in_a_process(7, 1) == in_a_process(7, 2) == transcript(7)
