"""What has come of hunts: written down as they go, so that a campaign that was cut short goes on where it was.

The seeds and tests that have noticed something are kept as well, in `noticed.json`. They are tried first the next time: one seed,
for most bugs, instead of all that come before it.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tests.planted.bug import Bug
from tests.planted.plant import ROOT, Hunt

NOTICED = Path(__file__).with_name("noticed.json")
SEARCHED = ("signald", "tests")
"""What decides what comes of a hunt."""


def noticed(path: Path = NOTICED) -> dict[str, int | str]:
    """Bug → the seed, or the test, that noticed it last."""
    kept: dict[str, int | str] = json.loads(path.read_text())
    return kept


def remember(hunts: Iterable[Hunt], path: Path = NOTICED) -> None:
    """Keep what has noticed something for the next time."""
    kept = noticed(path) | {one.bug.name: one.seed or one.checker for one in hunts if one.caught}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


@cache
def code() -> str:
    """Name the code that is searched, and that which searches: another one has another name."""
    digest = hashlib.sha256()
    for folder in SEARCHED:
        for file in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.lua")]):
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def fields(one: Hunt) -> dict[str, Any]:
    """One hunt as JSON."""
    return {
        "bug": one.bug.name,
        "file": one.bug.file,
        "breaks": one.bug.breaks,
        "caught": one.caught,
        "seed": one.seed,
        "kept": one.kept,
        "seconds": round(one.seconds, 1),
        "transport": one.transport,
        "checker": one.checker,
        "text": one.text,
    }


class Record:
    """The hunts of a campaign, by bug; in a file, a line for each step, if there is one."""

    def __init__(self, bugs: Iterable[Bug], path: Path | None = None) -> None:
        self.hunts = {bug.name: Hunt(bug, 0, 0.0) for bug in bugs}
        self._path = path
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                self._read(json.loads(line))

    def _read(self, said: dict[str, Any]) -> None:
        before = self.hunts.get(said["bug"])
        if before is not None and said["code"] == code():
            self.hunts[said["bug"]] = Hunt(
                before.bug,
                said["seed"],
                said["seconds"],
                said["transport"],
                said["checker"],
                said["text"] if said["caught"] else "",  # what went wrong may go well now
                kept=said["kept"],
            )

    def put(self, one: Hunt) -> None:
        """Take note of how far a hunt has come, with all that was done for it."""
        self.hunts[one.bug.name] = one
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({**fields(one), "code": code()}) + "\n")

    @property
    def left(self) -> list[Hunt]:
        """Those that were not caught yet."""
        return [one for one in self.hunts.values() if not one.caught]
