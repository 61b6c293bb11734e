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
from typing import Any

import attrs

from tests.planted import place
from tests.planted.bug import Bug

ROOT = Path(__file__).resolve().parents[2]

SEED_CPU_S = 25
"""What one seed may use of a processor: several times what the longest needs."""
SEED_WALL_S = 600
SEARCH_WALL_S = 3600
"""What a search of some seeds may take that does not even heed its own clock."""
MEMORY_BYTES_MAX = 3 << 30


class DoesNotApply(Exception):
    """What a bug replaces is not in its function exactly once: the code has changed, and the bug has to follow."""


class SearchFailed(Exception):
    """The process that plays seeds has ended otherwise than by saying what it found."""


@attrs.frozen
class Hunt:
    """What came of the search for one bug."""

    bug: Bug
    seed: int
    """The last seed that was played: the one that noticed, if one did; 0 where tests were run."""
    seconds: float
    transport: str = ""
    checker: str = ""
    """The checker, or the test, that noticed; empty when none did."""
    text: str = ""
    """What was noticed; if nothing was, why the search itself failed, if it did."""
    kept: bool = False
    """The seed was tried first, because it had noticed the bug before: others before it might do so as well."""

    @property
    def caught(self) -> bool:
        """Tell whether a checker or a test noticed."""
        return bool(self.checker)


def planted(bug: Bug, source: str) -> str:
    """Return `source`, the text of the bug's file, with the bug in it."""
    try:
        text = place.text_of(bug.file, source, bug.function)
    except place.NoSuchPlace as error:
        raise DoesNotApply(f"{bug.name}: {bug.file}: {error}") from None
    text += "\n"
    times = text.count(bug.old)
    if times != 1:
        raise DoesNotApply(f"{bug.name}: its text occurs {times} times in {bug.function or 'the whole'} of {bug.file}")
    return place.replaced(bug.file, source, bug.function, text.replace(bug.old, bug.new))


def _node_modules() -> list[Path]:
    """Return the folders of packages below the root: large, and the same for each copy."""
    found = [
        *ROOT.glob("signald/sdk/*/node_modules"),
        *ROOT.glob("tests/*/node_modules"),
        *ROOT.glob("tests/*/*/node_modules"),
    ]
    return [folder.relative_to(ROOT) for folder in found]


@contextmanager
def copy_with(bug: Bug | None) -> Iterator[Path]:
    """Copy signald and its tests, with `bug` planted in them, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        copy = Path(name)
        for part in ("signald", "tests"):
            shutil.copytree(
                ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.so", "node_modules")
            )
        for modules in _node_modules():
            (copy / modules).symlink_to((ROOT / modules).resolve())
        shutil.copy(ROOT / "pyproject.toml", copy)
        if bug is not None:
            file = copy / bug.file
            file.write_text(planted(bug, file.read_text()))
        yield copy


def hunt(bug: Bug, seeds: int, *, first: int = 1) -> Hunt:
    """Plant `bug` and play the seeds from `first` to `seeds` until one of them notices.

    A seed that fails without the bug too says nothing of the bug, and is passed over.
    """
    began = time.monotonic()
    seed = first - 1
    try:
        with copy_with(bug) as copy:
            while seed < seeds:
                found = search(copy, seed + 1, seeds)
                if found["checker"] and not fails_anyway(found["seed"]):
                    return Hunt(bug, seconds=time.monotonic() - began, **found)
                seed = found["seed"]
    except SearchFailed as failed:
        return Hunt(bug, seed, time.monotonic() - began, text=str(failed))
    return Hunt(bug, seed, time.monotonic() - began)


def fails_anyway(seed: int) -> bool:
    """Tell whether a seed fails without any bug planted."""
    with copy_with(None) as copy:
        return bool(search(copy, seed, seed)["checker"])


def hunt_by_tests(bug: Bug, first: str = "") -> Hunt:
    """Plant `bug` and run the tests it names until one of them fails that passes without it; the test `first` before all."""
    began = time.monotonic()
    said = ""
    try:
        with copy_with(bug) as copy:
            for arguments in ([first] if first else [], list(bug.noticed_by)):
                failed = trial(copy, arguments)["test"] if arguments else ""
                if failed and not fails_without(failed):
                    return Hunt(bug, 0, time.monotonic() - began, "test", failed, bug.story)
                said = f"{failed} fails anyway" if failed else ""
    except SearchFailed as error:
        said = str(error)
    return Hunt(bug, 0, time.monotonic() - began, "test", text=said)


def fails_without(test: str) -> bool:
    """Tell whether a test fails without any bug planted."""
    with copy_with(None) as copy:
        return bool(trial(copy, [test])["test"])


def trial(copy: Path, arguments: list[str]) -> dict[str, Any]:
    """Run tests in a copy, until one fails; what `tests.planted.trial` prints."""
    return _in_copy(copy, "tests.planted.trial", arguments)


def search(copy: Path, first: int, last: int) -> dict[str, Any]:
    """Play the seeds from `first` to `last` in a copy, until one fails; what `tests.planted.search` prints."""
    return _in_copy(copy, "tests.planted.search", [str(first), str(last)])


def _in_copy(copy: Path, module: str, arguments: list[str]) -> dict[str, Any]:
    try:
        process = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=SEARCH_WALL_S,
        )
    except subprocess.TimeoutExpired:
        raise SearchFailed(f"no end of {module} {' '.join(arguments)} after {SEARCH_WALL_S} s") from None
    if process.returncode != 0:
        raise SearchFailed(f"{module} itself failed, with {process.returncode}:\n{process.stderr}")
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found
