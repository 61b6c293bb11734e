"""How late the loop of this node runs. Successors publish it, so that drains go easy on them."""

import trio

LAG_EVERY_S = 0.1


class LoopLag:
    """See the module."""

    def __init__(self) -> None:
        self.ms = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due)
            late_ms = (trio.current_time() - due) * 1000
            # Rises at once, falls by halves: a burst of claims is felt before it is over.
            self.ms = max(late_ms, self.ms * 0.5)
