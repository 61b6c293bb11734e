"""One turn of one queue at this node: its events are read, sent one after the other, and dropped when the receiver has them.

The node has the queue by a lease of the agenda, so no other node sends its events meanwhile, and they arrive in their order. An attempt
begins only while the lease holds longer than the attempt may last. An event that was sent and not dropped, because the node was killed
between, is sent again with the same id and the same bytes by the next node.

A turn ends in one of three ways, each of which gives the queue back (`Settle`):

    empty       the queue goes from the agenda, unless it was asked for again meanwhile
    handed on   due at once: the lease has no time for another attempt, or this node stops
    failed      due after a pause, which grows with each failure

At each end of a turn, by a cancellation as well, both steps are handed to the committer, which is the last part of a node to end.
"""

from collections import Counter

import attrs
import structlog
import trio

from signald.core.deliveries import FAILURES_MAX, Outcome, pause_s
from signald.core.life import Event
from signald.errors import StoreUnavailable
from signald.ids import SessionId, as_session
from signald.service.context import Context
from signald.service.telling.messages import message_of
from signald.service.telling.receiver import Receiver
from signald.store.base import Op
from signald.store.registry.agenda.ops import DueItem, Settle
from signald.store.registry.queues.ops import DropQueue, ReadQueue
from signald.store.session.events.ops import DropEvents, EventsLeft, EventsRead, ReadEvents

log = structlog.get_logger(__name__)

READ_MAX = 32
"""Events of one read: more than most sessions ever have, and small beside a message."""

DROP_EVERY = 8
"""Events that are dropped in one step: so many at most are sent twice when the node is killed."""

DROP_AFTER_S = 1.0
"""Or fewer, when the receiver is slow: then a step costs nothing beside the attempts."""

LEASE_SHARE = 3
"""A lease lasts as long as so many attempts at their slowest."""

LEASE_SLACK_S = 2.0
"""And so much longer: for the steps of the store, and the difference of the clocks of two nodes."""

OTHERS_PAUSE_S = 60.0
"""How long a queue rests that was answered 410: another node, which was not, may have more luck with it."""

GONE_PAUSE_S = 3600.0
"""How long a queue rests that no such node has taken. It is looked at only to drop what is too old."""

DROP_REASONS = ("full", "expired")


@attrs.define
class Tally:
    """What became of events, beside those that were delivered."""

    dropped: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(DROP_REASONS, 0)))
    """By reason: `full` never fitted into its queue, `expired` could not be delivered in `core.events_keep_s`."""

    def not_fitted(self, event: Event) -> None:
        """Count what did not fit into the queue before `event`."""
        count = event.fields.get("dropped", 0)
        if isinstance(count, int):
            self.dropped["full"] += count


class Turn:
    """See the module. `run` is called once."""

    def __init__(self, context: Context, receiver: Receiver, tally: Tally, item: DueItem, lease_until: float) -> None:
        """`lease_until` is a trio time."""
        self._context = context
        self._receiver = receiver
        self._tally = tally
        self._item = item
        self._lease_until = lease_until
        self._is_session = as_session(item.name) is not None
        self._sent = 0
        """The number of the last event that is told, or too old."""
        self._dropped = 0
        """The number up to which the store has dropped."""
        self._dropped_at = trio.current_time()
        self._pause_s: float | None = 0.0
        """After how long the queue is due again; None: it is empty."""
        self._failures, self._since_ms = item.failures, item.since_ms
        self.handing_on = False
        """This node stops: no further attempt begins."""

    async def run(self) -> None:
        """Send what there is, as long as it goes."""
        try:
            while await self._send_some():
                pass
        except StoreUnavailable:
            pass  # what was sent is dropped, and the queue given back, when the store is back
        except Exception:
            self._failed(
                (), 0.0
            )  # an error of signald's own comes again with the queue: not at once, and ever more rarely
            raise
        finally:
            if self._sent > self._dropped:
                self._context.submit(self._drop_op())
            self._settle()

    async def _send_some(self) -> bool:
        """Send one read of events; False when the turn is over. Raises StoreUnavailable."""
        read: EventsRead = await self._context.committer.call(self._read_op())
        if not read.events and read.upto <= self._dropped:
            self._pause_s = None
            return False
        going_on = await self._send(read)
        if going_on:
            self._sent = max(self._sent, read.upto)  # behind the last whole event may stand damaged ones
        if self._sent > self._dropped:
            left = await self._drop()
            if going_on and not left:
                self._pause_s = None
                return False
        return going_on

    async def _send(self, read: EventsRead) -> bool:
        """Send events in their order; False when the turn is over before the last. Raises StoreUnavailable."""
        for event in read.events:
            if self._receiver.gone:
                return self._rest(read.events, GONE_PAUSE_S)
            if self.handing_on or not self._has_time:
                return False
            attempt = await self._receiver.tell(message_of(self._item.name, event))
            if attempt.outcome is Outcome.GONE:
                return self._rest(read.events, OTHERS_PAUSE_S)
            if attempt.outcome is not Outcome.DELIVERED:
                return self._failed(read.events, attempt.retry_after_s)
            self._told(event)
            if event.n - self._dropped >= DROP_EVERY or trio.current_time() - self._dropped_at >= DROP_AFTER_S:
                await self._drop()
        return True

    @property
    def _has_time(self) -> bool:
        """Tell whether an attempt, at its slowest, ends within the lease."""
        return trio.current_time() + self._context.config.core.events_timeout_s < self._lease_until

    def _told(self, event: Event) -> None:
        self._sent = event.n
        self._failures = self._since_ms = 0
        self._tally.not_fitted(event)

    def _failed(self, events: tuple[Event, ...], retry_after_s: float) -> bool:
        """An attempt has failed: the queue waits. Returns whether the turn goes on, with events behind those that are too old."""
        context = self._context
        self._failures = min(self._failures + 1, FAILURES_MAX)
        self._since_ms = self._since_ms or context.now_ms()
        self._pause_s = max(retry_after_s, pause_s(self._failures, context.entropy.uniform(0.0, 1.0)))
        self._expire(events)
        return False

    def _rest(self, events: tuple[Event, ...], pause_s: float) -> bool:
        """The receiver wants no events: the queue rests, until its oldest event is too old at most. Nothing more is sent."""
        # With a failure, so that no new event of the queue makes it due before.
        self._failures, self._since_ms = max(1, self._failures), self._since_ms or self._context.now_ms()
        self._pause_s = pause_s
        self._expire(events)
        for event in events:
            if event.n > self._sent:
                until_s = (event.at_ms - self._context.now_ms()) / 1000 + self._context.config.core.events_keep_s
                self._pause_s = min(pause_s, max(1.0, until_s))
                break
        return False

    def _expire(self, events: tuple[Event, ...]) -> None:
        """Give up what is too old. It has been attempted, or another event behind which it would have come has."""
        config = self._context.config.core
        oldest_ms = self._context.now_ms() - round(config.events_keep_s * 1000)
        late = [event for event in events if event.n > self._sent and event.at_ms < oldest_ms]
        if late:
            self._sent = late[-1].n
            self._tally.dropped["expired"] += len(late)
            for event in late:
                self._tally.not_fitted(event)
            log.warning("core_events_expired", queue=self._item.name, count=len(late), upto=self._sent)

    # --- the store --------------------------------------------------------------------------------------------------

    def _read_op(self) -> Op:
        name = self._item.name
        return ReadEvents(SessionId(name), READ_MAX) if self._is_session else ReadQueue(name, READ_MAX)

    def _drop_op(self) -> Op:
        name, now_ms = self._item.name, self._context.now_ms()
        if self._is_session:
            return DropEvents(SessionId(name), self._sent, now_ms)
        return DropQueue(name, self._sent)

    async def _drop(self) -> int:
        """Drop what is told, and return how many events wait. Raises StoreUnavailable."""
        upto = self._sent
        left: EventsLeft = await self._context.committer.call(self._drop_op())
        self._dropped, self._dropped_at = upto, trio.current_time()
        return left.waiting

    def _settle(self) -> None:
        context, item = self._context, self._item
        now_ms = context.now_ms()
        due_ms = 0 if self._pause_s is None else now_ms + round(self._pause_s * 1000)
        context.submit(Settle("e", item.name, item.ticket, due_ms, self._failures, self._since_ms, now_ms))
