"""The table of rules: what each operation does in the stores whose rules are in Python, memory and SQLite.

A rule is a synchronous function of an operation and of `Rows`, the few ways in which a store keeps things. It checks
first and changes afterwards, so a refused operation has changed nothing. Which nodes to wake it tells `Wakes`, which the store
delivers together with the change. There is no clock and no randomness here: time comes with the operation.

Each aggregate fills the table with `rule`; `rules.py` imports them all, so whatever can apply a rule knows every one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from signald.store.base import Op
from signald.store.rows import Rows, Wakes

OpT = TypeVar("OpT", bound=Op)
R = TypeVar("R")

RULES: dict[type[Op], Callable[[Any, Rows, Wakes], Any]] = {}
"""By kind of operation."""


def rule(
    kind: type[Op[R]],
) -> Callable[[Callable[[OpT, Rows, Wakes], R]], Callable[[OpT, Rows, Wakes], R]]:
    """Make the decorated function the rule of `kind`. It may return what `kind` declares, and nothing else."""

    def enter(function: Callable[[OpT, Rows, Wakes], R]) -> Callable[[OpT, Rows, Wakes], R]:
        assert kind not in RULES, f"{kind.__name__} has two rules"
        RULES[kind] = function
        return function

    return enter
