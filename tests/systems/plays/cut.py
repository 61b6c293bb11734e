"""A7: an upload that is cut, at each tenth of its length, leaves no file and takes no room."""

import fcntl
from pathlib import Path

from tests.systems.program import Program
from tests.systems.repeated import Repeated
from tests.systems.service import UNPLANNED

UNFINISHED = "unfinished"
"""Where a node keeps what is not whole yet: see `blobs.url` in docs/operations.md."""


class Cut(Repeated):
    """Uploads of one user that are cut."""

    name = "cut"

    async def run(self) -> Program:
        """Start one run."""
        blobs = self.service.settings["blobs"]
        return await self.page("cut.mjs", str(blobs["principal_bytes_max"]), str(blobs["bytes_max"]))

    def judge_run(self, run: Program) -> None:
        """None was answered as if it were whole; then there was room for all that the user may have, and after that nothing was left."""
        assert [line["tenth"] for line in run.saw("cut")] == list(range(1, 10)), run.account()
        assert not [line for line in run.saw("answered") if line["status"] < 400], run.account()
        # The room is there at once: no upload waits for the end of what was cut.
        assert not [line for line in run.saw("put off") if line["status"] == 429], run.account()
        filled = run.saw("filled")
        assert [(line["status"], line["own"]) for line in filled] == [(201, True)] * 4, run.account()
        assert run.saw("over")[0]["status"] == 429, run.account()
        assert {line["status"] for line in run.saw("removed")} == {204}, run.account()
        assert {line["status"] for line in run.saw("gone")} == {404}, run.account()
        assert {line["during"] for line in run.saw("broken")} <= set(UNPLANNED), run.account()
        shelf = filled[0]["blob"][:24]
        media = self.service.media
        assert not [file.name for file in media.iterdir() if file.name.startswith(shelf)]
        assert not [file.name for file in (media / UNFINISHED).iterdir() if is_left(file)]


def is_left(path: Path) -> bool:
    """Tell whether a file is of no upload under way: other programs of the story upload as well, and a node locks what it writes."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is locked, or was whole meanwhile
        return False
    return path.exists()
