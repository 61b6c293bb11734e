"""Turns: one piece of bytes that pass through a node is worked on in each turn of its event loop, however many come at once.

Trio runs all tasks that are ready before it looks at the clock and at sockets again. Twenty uploads whose bytes are there would have twenty
pieces parsed, copied and digested before the next message of a session. Here they take turns, in their order, and sessions come between.
"""

import trio


class Turns:
    """See the module. One for each node."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    @property
    def waiting(self) -> int:
        """How many pieces wait for their turn."""
        return self._lock.statistics().tasks_waiting

    async def wait(self) -> None:
        """Return in a turn of the event loop that no other piece has."""
        async with self._lock:
            # A task that waits for the lock acquires it in the turn after its release.
            pass
