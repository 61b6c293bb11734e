"""The search in a planted copy, a process of its own: `python -m tests.planted.search FIRST LAST` prints what it found.

Most seeds are played over the fast transport, with small plans, and some over frames, with large ones. Seeds that do
not end are ended here: by a timer that counts the processor's time, so that a busy machine ends no honest seed.
"""

import gc
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType

import signald
from tests.hostile.__main__ import PARTS
from tests.planted.plant import MEMORY_BYTES_MAX, SEED_CPU_S, SEED_WALL_S
from tests.sim.runner import GC_EVERY
from tests.sim.scene import Transport, play

FRAMES_EVERY, FRAMES_EVERY_LATER = 5, 10
"""One seed of so many is played over frames. It costs as much as ten others: what only bytes show is shown by the first."""
FIRST_SEEDS = 25
"""Nearly all bugs are noticed by these."""


class Search:
    """Plays seeds until one fails."""

    def __init__(self) -> None:
        self.seed = 0

    @property
    def transport(self) -> Transport:
        """The transport of the seed that is played."""
        every = FRAMES_EVERY if self.seed <= FIRST_SEEDS else FRAMES_EVERY_LATER
        return "messages" if self.seed % every else "frames"

    def run(self, first: int, last: int) -> None:
        """Play; say what came of it."""
        signal.signal(signal.SIGPROF, self._hangs)
        signal.signal(signal.SIGALRM, self._hangs)
        for self.seed in range(first, last + 1):
            signal.setitimer(signal.ITIMER_PROF, SEED_CPU_S)
            signal.setitimer(signal.ITIMER_REAL, SEED_WALL_S)
            outcome = play(self.seed, transport=self.transport)
            harm = self.liars() if self.seed <= FIRST_SEEDS and not outcome.violations else ""
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if outcome.violations:
                self.say(*outcome.violations[0])
                return
            if harm:
                self.say("nobody-hurts", harm)
                return
        self.say("", "")

    def liars(self) -> str:
        """Let the liars of this seed do their worst; return what harm came of it."""
        for name, part in PARTS.items():
            try:
                with redirect_stdout(sys.stderr):
                    part(self.seed)
            except Exception as error:
                return f"a hostile {name}: {''.join(traceback.format_exception_only(error)).strip()}"
        return ""

    def say(self, checker: str, text: str) -> None:
        """Print the result."""
        found = {"seed": self.seed, "transport": self.transport, "checker": checker, "text": text}
        print(json.dumps(found), flush=True)

    def _hangs(self, _: int, frame: FrameType | None) -> None:
        # Whatever is raised here might be caught by the code that spins: the process ends on the spot.
        where = traceback.extract_stack(frame)[-1]
        self.say("hang", f"the run does not end, in {where.name} of {Path(where.filename).name}")
        os._exit(0)


if __name__ == "__main__":
    # What is searched must be the copy, however signald was installed.
    assert Path(signald.__file__).is_relative_to(Path.cwd()), signald.__file__
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    gc.set_threshold(GC_EVERY)
    Search().run(int(sys.argv[1]), int(sys.argv[2]))
