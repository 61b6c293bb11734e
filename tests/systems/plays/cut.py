"""A7: an upload that is cut, at each tenth of its length, leaves no file and takes no room."""

import fcntl
from pathlib import Path

from tests.real.harness import until
from tests.systems.program import Program
from tests.systems.repeated import Repeated
from tests.systems.service import UNPLANNED, credential

UNFINISHED = "unfinished"
"""Where a node keeps what is not whole yet: see `blobs.url` in docs/operations.md."""

SWEPT_S = 60.0
"""Far above what a node takes to delete the bytes of what was removed. One that is killed meanwhile leaves that to others for minutes."""


class Cut(Repeated):
    """Uploads that are cut; those of each run are of a user of their own, who has all the room."""

    name = "cut"

    async def run(self) -> Program:
        """Start one run."""
        blobs = self.service.settings["blobs"]
        room, longest = str(blobs["principal_bytes_max"]), str(blobs["bytes_max"])
        shown = credential("client", f"{self.name} {len(self.runs) + 1}")
        return await self.cast.start("cut.mjs", self.service.url, room, longest, credential=shown)

    async def goes_on(self) -> None:
        """Wait for its end, and for that of what it has removed."""
        await super().goes_on()
        for run in self.runs:
            await until(lambda run=run: not self._left(run), SWEPT_S, "what was removed is deleted")

    def _left(self, run: Program) -> list[str]:
        """Return the files of its user."""
        shelves = {line["blob"][:24] for line in run.saw("filled") if "blob" in line}
        return [file.name for file in self.service.media.iterdir() if file.name[:24] in shelves]

    def judge_run(self, run: Program) -> None:
        """None was kept. Once the last cut was seen there was room for all that the user may have, and after that nothing was left."""
        cuts = run.saw("cut")
        assert [line["tenth"] for line in cuts] == list(range(1, 10)), run.account()
        # Each had its place before it was cut, and was not answered.
        assert [line["tenth"] for line in run.saw("begun")] == list(range(1, 10)), run.account()
        assert not [line for line in cuts if "status" in line], run.account()
        # The room is there with the key: no upload waits for the end of what was cut.
        assert not [line for line in run.saw("put off") if line["status"] == 429], run.account()
        filled = run.saw("filled")
        assert [(line["status"], line["own"]) for line in filled] == [(201, True)] * 4, run.account()
        assert run.saw("over")[0]["status"] == 429, run.account()
        assert {line["status"] for line in run.saw("removed")} == {204}, run.account()
        assert {line["status"] for line in run.saw("gone")} == {404}, run.account()
        assert {line["during"] for line in run.saw("broken")} <= set(UNPLANNED), run.account()
        assert not self._left(run)
        assert not [file.name for file in (self.service.media / UNFINISHED).iterdir() if is_left(file)]


def is_left(path: Path) -> bool:
    """Tell whether a file is of no upload under way: other programs of the story upload as well, and a node locks what it writes."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is locked, or was whole meanwhile
        return False
    return path.exists()
