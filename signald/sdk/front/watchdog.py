"""Says when a call blocks the event loop of a worker, and where.

While the loop is blocked, no heartbeat is answered, no message goes out, and no signal is noticed. signald takes the worker for lost
after `timeouts.ping_interval_s` and `timeouts.pong_timeout_s` (20 s each). A thread cannot answer in its place: the connection belongs to
the loop, and a worker that does nothing but answer would keep its sessions from others. So the thread only tells which line it is. The
remedy is to run the call in a thread of its own, `anyio.to_thread.run_sync(model.generate, prompt)`.
"""

import logging
import sys
import threading
import time
import traceback

import anyio

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

TICK_S = 0.5
"""How often the loop shows that it runs: a fraction of what is called blocked, and work that no profile shows."""

BLOCKED_S = 5.0
"""A quarter of the silence after which signald asks, so that the log names the line before the worker is lost."""

FRAMES_MAX = 12
"""Lines of the stack that are told: those of the call that blocks are the last."""


class _Loop:
    """What the thread knows of the loop."""

    def __init__(self, blocked_s: float) -> None:
        self.blocked_s = blocked_s
        self.alive_at = time.monotonic()
        self.thread = threading.get_ident()
        self.stopped = threading.Event()

    def watch(self) -> None:
        """Look at the loop until the worker is over."""
        said_of = 0.0
        while not self.stopped.wait(self.blocked_s / 5):
            alive_at = self.alive_at
            if time.monotonic() - alive_at >= self.blocked_s and said_of != alive_at:
                said_of = alive_at
                frame = sys._current_frames().get(self.thread)
                stack = "".join(traceback.format_stack(frame)[-FRAMES_MAX:]) if frame is not None else ""
                log.warning(
                    "a call has blocked the event loop for %.0f s: run it in a thread\n%s", self.blocked_s, stack
                )


async def watch(blocked_s: float = BLOCKED_S) -> None:
    """Watch the event loop until cancelled."""
    loop = _Loop(blocked_s)
    # A daemon: a process that ends by force does not wait for a thread that only looks.
    threading.Thread(target=loop.watch, name="signald-watchdog", daemon=True).start()
    try:
        while True:
            loop.alive_at = time.monotonic()
            await anyio.sleep(min(TICK_S, blocked_s / 5))
    finally:
        loop.stopped.set()
