"""Waiting for what is only counted."""

from collections.abc import Callable

import trio

POLL_S = 0.02


async def until(condition: Callable[[], bool]) -> None:
    """Look at `condition` now and then until it is true: the judge only counts, it wakes no task."""
    while True:
        if condition():
            return
        await trio.sleep(POLL_S)
