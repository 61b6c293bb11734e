"""Plant one bug in a copy of signald, and let the simulation look for it there.

The copy is a directory of its own, and the search a process of its own that sees nothing but the copy. It stops at the first
seed that breaks a promise. A seed that does not come to an end counts as well: that is how a task that spins reads.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.planted.bugs import Bug

ROOT = Path(__file__).resolve().parents[2]

SEED_CPU_S = 60
"""What one seed may use of a processor: more than ten times what the longest needs."""
SEED_WALL_S = 600
MEMORY_BYTES_MAX = 3 << 30


class DoesNotApply(Exception):
    """The text a bug replaces is not there exactly once: the code has changed, and the bug has to follow."""


@attrs.frozen
class Hunt:
    """What came of the search for one bug."""

    bug: Bug
    seeds: int
    """How many seeds were played, the one that caught it included."""
    seconds: float
    checker: str = ""
    """Who noticed; empty when nobody did."""
    text: str = ""
    transport: str = ""

    @property
    def caught(self) -> bool:
        """Tell whether somebody noticed."""
        return bool(self.checker)


def planted(bug: Bug, source: str) -> str:
    """Return `source`, the text of the bug's file, with the bug in it."""
    times = source.count(bug.old)
    if times != 1:
        raise DoesNotApply(f"{bug.name}: its text occurs {times} times in {bug.file}")
    return source.replace(bug.old, bug.new)


@contextmanager
def copy_with(bug: Bug | None) -> Iterator[Path]:
    """Copy signald and its tests, with `bug` planted in them, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        copy = Path(name)
        for part in ("signald", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        if bug is not None:
            file = copy / bug.file
            file.write_text(planted(bug, file.read_text()))
        yield copy


def hunt(bug: Bug | None, seeds: int, first: int = 1) -> Hunt:
    """Plant `bug` and play up to `seeds` seeds, until one of them notices. No bug: what is there is searched as it is."""
    began = time.monotonic()
    with copy_with(bug) as copy:
        search = subprocess.run(
            [sys.executable, "-m", "tests.planted.search", str(first), str(seeds)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    took_s = time.monotonic() - began
    if search.returncode != 0:
        raise RuntimeError(f"the search itself failed:\n{search.stderr}")
    found = json.loads(search.stdout)
    return Hunt(bug or Bug("none", "", "", "", "", ""), found.pop("seeds"), took_s, **found)
