"""Trio's loop without what virtual time has no use for; a run goes through the same steps with it, only sooner.

A third of what a simulated run took was Trio's own: a cancel scope and a raised `Cancelled` for each `sleep`, a generator for
each scope that begins or ends, and a system call in each turn to ask for I/O that there is none of.
"""

import math
from typing import Any

import trio

run: Any = trio._core._run

Patch = tuple[Any, str, Any]
"""A module or class, a name in it, and what that stands for meanwhile."""


class Alarm:
    """Stands in Trio's heap of deadlines like a cancel scope, and wakes its task in the moment in which one would."""

    __slots__ = ("_registered_deadline", "_task")

    def __init__(self, deadline: float, task: trio.lowlevel.Task) -> None:
        self._registered_deadline = deadline
        self._task = task
        task._runner.deadlines.add(deadline, self)  # type: ignore[arg-type]

    def _cancel(self, _reason: object) -> None:
        self._off()
        trio.lowlevel.reschedule(self._task)

    def abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """The sleeper was cancelled before its time."""
        self._off()
        return trio.lowlevel.Abort.SUCCEEDED

    def _off(self) -> None:
        deadline, self._registered_deadline = self._registered_deadline, math.inf
        self._task._runner.deadlines.remove(deadline, self)  # type: ignore[arg-type]


async def sleep_until(deadline: float) -> None:
    """As `trio.sleep_until`."""
    if deadline == math.inf:
        await trio.sleep_forever()
    task = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(Alarm(deadline, task).abort)
    if task._cancel_status.effectively_cancelled:
        raise trio.Cancelled._create(source="deadline")  # in the same turn, but after it was time


async def sleep(seconds: float) -> None:
    """As `trio.sleep`."""
    if seconds < 0:
        raise ValueError("`seconds` must be non-negative")
    if seconds == 0:
        await trio.lowlevel.checkpoint()
    else:
        await sleep_until(trio.current_time() + seconds)


class Change:
    """What `CancelScope._might_change_registered_deadline` makes of a generator, for runs that are not guests."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass  # what it registers is what holds in the end

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = math.inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = run.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != math.inf:
                deadlines.remove(old, scope)
            if new != math.inf:
                deadlines.add(new, scope)


def _change(scope: Any) -> Change:
    return Change(scope)


_poll = run.TheIOManager.get_events


def _get_events(manager: Any, timeout: float) -> Any:
    """The only events there are come of what is put into the entry queue (a generator was collected, Ctrl-C)."""
    entries = run.GLOBAL_RUN_CONTEXT.runner.entry_queue
    return _poll(manager, timeout) if timeout or entries.queue or entries.idempotent_queue else ()


FAST: tuple[Patch, ...] = (
    (trio, "sleep", sleep),
    (trio, "sleep_until", sleep_until),
    (trio.CancelScope, "_might_change_registered_deadline", _change),
    (run.TheIOManager, "get_events", _get_events),
)
