"""What makes a run repeatable: one seed for the scheduler, the ids, the masks and the faults.

Trio draws the order of ready tasks from `_r` on request, and breaks ties between equal deadlines by the address of a
cancel scope. Here both follow the seed. With the rest passed in (`Entropy`, `random.Random`, the clock), two processes
with different hash seeds go through the same run.
"""

import itertools
import random
import types
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import heappush
from typing import Any

import trio
import trio_websocket
import wsproto

from signald.ids import SeededEntropy
from signald.testing.loop import FAST, Patch


class JumpClock(trio.abc.Clock):
    """Virtual time that jumps to the next deadline as soon as no task can run: only for runs without I/O and threads.

    What `MockClock(autojump_threshold=0)` does, in one turn of the loop instead of two.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Return the virtual time."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Go on to `deadline`: Trio asks only when there is nothing else to do."""
        if deadline == float("inf"):
            return 1.0  # the run begins or ends, and Trio has called itself through a socket
        self._now = max(self._now, deadline)
        return 0.0


class Chance:
    """Everything random, a stream of its own for each user: leaving one thing out does not change the others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _seed(self, name: str) -> int:
        return (self.seed << 32) ^ zlib.crc32(name.encode())

    def random(self, name: str) -> random.Random:
        """The stream of `name`."""
        return random.Random(self._seed(name))

    def entropy(self, name: str) -> SeededEntropy:
        """The same, for code that takes an `Entropy`."""
        return SeededEntropy(self._seed(name))


@contextmanager
def determined_by(seed: int, patches: Sequence[Patch] = (), *, fast: bool = True) -> Iterator[None]:
    """Within the block, Trio, wsproto and trio-websocket draw from `seed`, and `patches` hold.

    With `fast` the loop is that of `loop`, which serves runs without I/O and threads only.
    """
    run: Any = trio._core._run
    ties = itertools.count()

    def add(self: Any, deadline: float, scope: trio.CancelScope) -> None:
        heappush(self._heap, (deadline, next(ties), scope))
        self._active += 1

    bits = random.Random(seed)
    fake_os = types.SimpleNamespace(urandom=bits.randbytes)
    patches = [
        *(FAST if fast else ()),
        *patches,
        (run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (run.Deadlines, "add", add),
        (wsproto.frame_protocol, "os", fake_os),
        (wsproto.utilities, "os", fake_os),
        (trio_websocket._impl, "random", bits),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    run._r.seed(seed)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
