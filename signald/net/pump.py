"""The reader of a connection that sleeps while the poller reads for it.

    run ─▸ asleep ◂─ end        the connection is over
              │   ◂─ a read     has failed: what it raised is raised by `run`
              ▾
        the poller: receive ▸ hand on, in its own turn

A read may end the connection, or cancel the task that sleeps. So what happens within a read is heeded behind it.
"""

from collections.abc import Callable

import outcome
import structlog
import trio

from signald.net.transport import GONE, SocketTransport

log = structlog.get_logger("signald.net")


class Pump:
    """See the module."""

    __slots__ = ("_hand_on", "_is_over", "_is_within", "_task", "_transport")

    def __init__(self, transport: SocketTransport, hand_on: Callable[[bytes], None]) -> None:
        """`hand_on` takes the bytes of each read, and none of them when the peer is gone."""
        self._transport = transport
        self._hand_on = hand_on
        self._task: trio.lowlevel.Task | None = None
        self._is_over = self._is_within = False

    async def run(self) -> None:
        """Sleep until the end, or until `hand_on` raises, which is raised here."""
        self._transport.watch(self._read)
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop)

    def end(self) -> None:
        """Wake the task: the connection is over."""
        self._is_over = True
        if not self._is_within:
            self._wake(outcome.Value(None))

    def _read(self) -> None:
        try:
            data = self._transport.receive_nowait()
        except GONE:
            data = b""
        if data is None:
            return
        self._is_within = True
        try:
            self._hand_on(data)
        except Exception as error:
            if self._task is None:  # it was cancelled within the read, and ends by that
                log.exception("handler_failed")
            self._wake(outcome.Error(error))
        else:
            if self._is_over:
                self._wake(outcome.Value(None))
        finally:
            self._is_within = False

    def _wake(self, result: outcome.Outcome[None]) -> None:
        task = self._task
        if task is not None:
            self._stop()
            trio.lowlevel.reschedule(task, result)

    def _stop(self, _: object = None) -> trio.lowlevel.Abort:
        self._task = None
        self._transport.unwatch()
        return trio.lowlevel.Abort.SUCCEEDED
