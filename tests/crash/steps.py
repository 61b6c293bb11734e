"""The steps of a victim, counted; and the crash at one of them.

store   a batch of operations is carried out: before it, after each of its operations, after all of them
frame   a write to a connection: before it, in the middle of each frame, after each frame
await   the scheduler gives a task of the victim a turn
post    an attempt to tell the core server: before it, and when it is processed and not answered
media   a step of the media, such as the begin or the end of an object: before it, and when it is done and not answered
"""

from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

import attrs
import trio

Kind = Literal["store", "frame", "await", "post", "media"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@attrs.frozen
class Crash:
    """When it is to happen; the first step is 1, and 0 is never."""

    kind: Kind = "store"
    step: int = 0


def frame_marks(data: bytes, *, plain: bool = False) -> list[int]:
    """Where a write may be cut: before all of it, in the middle of each frame, after each frame.

    What is no frame, the opening handshake and everything on a connection that is `plain` HTTP, counts as one.
    """
    marks, at = [0], 0
    while at < len(data):
        end = len(data) if plain or data[:4] in (b"HTTP", b"GET ") else min(at + _frame_bytes(data[at:]), len(data))
        marks += [(at + end) // 2, end]
        at = end
    return marks


def _frame_bytes(data: bytes) -> int:
    if len(data) < 2:
        return len(data)
    length, masked = data[1] & 127, 4 * (data[1] >> 7)
    if length == 126:
        return 4 + masked + int.from_bytes(data[2:4], "big")
    if length == 127:
        return 10 + masked + int.from_bytes(data[2:10], "big")
    return 2 + masked + length


class Steps(trio.abc.Instrument):
    """Counts the steps of the victims and strikes once.

    A task belongs to the process that started the nurseries it lives in, down to a root that was adopted: a connection's task
    to its node, though a party's task has asked for it.
    """

    def __init__(self, victims: frozenset[str], crash: Crash, strike: Callable[[], None]) -> None:
        """`strike` ends the victims' processes; it is called once."""
        self.counts: Counter[Kind] = Counter()
        self.counting = False
        self.reached = False
        """The step has come; a write is cut a moment later, when its first part has left."""
        self.struck = False
        self.dead: set[str] = set()
        """The nodes that were killed: what they still ask the store for does not happen."""
        self._victims = victims
        self._crash = crash
        self._strike = strike
        self._roots: dict[trio.lowlevel.Task, str] = {}
        self._owners: dict[trio.lowlevel.Task, str] = {}

    def adopt(self, root: trio.lowlevel.Task, owner: str) -> None:
        """`root`, and all that it starts, is the process called `owner`."""
        self._roots[root] = owner
        self._owners.pop(root, None)

    def owner(self, task: trio.lowlevel.Task) -> str:
        """Whose process a task belongs to; "" for what is no process of the cluster."""
        owner = self._owners.get(task)
        if owner is None:
            owner = self._roots.get(task)
            if owner is None:
                nursery = task.parent_nursery
                owner = "" if nursery is None else self.owner(nursery.parent_task)
            self._owners[task] = owner
        return owner

    def concerns(self, owner: str) -> bool:
        """Tell whether `owner` is a victim that still lives."""
        return self.counting and not self.reached and owner in self._victims

    def strike(self) -> None:
        """End the victims."""
        self.reached = self.struck = True
        self._strike()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a turn. When this was the last one, its effects leave the process no more."""
        if self.concerns(self.owner(task)):
            self.counts["await"] += 1
            if self._crash.kind == "await" and self.counts["await"] == self._crash.step:
                self.strike()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a task."""
        self._owners.pop(task, None)

    def of_batch(self, owner: str, count: int) -> int | None:
        """Count a batch of `count` operations: how many are carried out before the crash, or None."""
        return self._among("store", owner, list(range(count + 1)))

    def of_write(self, owner: str, data: bytes, *, plain: bool = False) -> int | None:
        """Count a write, of HTTP if it is `plain`: how many bytes leave before the crash, or None."""
        return self._among("frame", owner, frame_marks(data, plain=plain))

    def of_deed(self, kind: Kind, owner: str) -> int | None:
        """Count something that happens outside of the process: 0 to die before it, 1 to die when it has happened, or None."""
        return self._among(kind, owner, [0, 1])

    def _among(self, kind: Kind, owner: str, marks: list[int]) -> int | None:
        if not self.concerns(owner):
            return None
        before = self.counts[kind]
        self.counts[kind] += len(marks)
        if self._crash.kind == kind and before < self._crash.step <= self.counts[kind]:
            self.reached = True
            return marks[self._crash.step - before - 1]
        return None
