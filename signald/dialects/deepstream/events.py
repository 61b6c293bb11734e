"""What an app says while no client is paired with it: `app.message` of the core server."""

from signald.ids import new_nonce
from signald.service.context import Context
from signald.store.base import Result
from signald.store.registry.queues.ops import TellWorker

IN_FLIGHT_MAX = 100
"""Messages of one app that the store has not taken yet. With the longest ones 800 KB; while the store is away further ones are dropped."""


class CoreEvents:
    """See the module. One for each connection."""

    def __init__(self, context: Context, worker: str, instance: str, epoch: int) -> None:
        self._context = context
        self._worker = worker
        self._instance = instance
        self._in_flight = 0
        # The store tells repetitions of one request apart from two messages with the same text by this.
        self._prefix = f"{epoch}-{new_nonce(context.entropy)[:8]}"
        self._number = 0

    def tell(self, payload: bytes) -> str:
        """Store a message of the app for the core server; returns the word for why it is dropped, or nothing."""
        context, config = self._context, self._context.config.deepstream
        counts = context.counts.app_messages
        if not context.events_max:
            counts["unwanted"] += 1
            return ""  # no core server is named: that is no mistake of the app's
        if len(payload) > config.event_bytes_max:
            counts["too_big"] += 1
            return "too_big"
        if self._in_flight >= IN_FLIGHT_MAX:
            counts["store"] += 1
            return "backlog"
        self._number += 1
        self._in_flight += 1
        counts["told"] += 1
        fields: dict[str, str | int] = {
            "instance": self._instance,
            "message": f"{self._prefix}-{self._number}",
            "data": payload.decode(),
        }
        events_max = min(context.events_max, config.events_queue_max)
        context.committer.submit(
            TellWorker(self._worker, "app.message", fields, events_max, context.now_ms()), self._told
        )
        return ""

    def _told(self, _result: Result) -> None:
        self._in_flight -= 1
