"""The task that takes due queues from the agenda and gives each its turn: `core.events_in_flight_max` at once at this node.

The agenda is asked once a second, at once when this node has entered something, and not at all while no core server is named. While the
receiver is away, one queue at a time shows whether it is back, and the others wait in the agenda for that. Once it has answered 410 to
this node, the node takes only what no other node has taken for a minute, to drop what is too old.
"""

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.http.client import Poster
from signald.ids import new_nonce
from signald.service.context import Context
from signald.service.inboxes import Poke
from signald.service.telling.receiver import Receiver
from signald.service.telling.scheduling import NAMES_AT_ONCE, Scheduling
from signald.service.telling.turn import LEASE_SHARE, LEASE_SLACK_S, Tally, Turn
from signald.store.registry.agenda.ops import AgendaRead, ListAgenda, ReadAgenda, Schedule, TakeDue

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""How often the agenda is asked: so late at most a queue is taken that another node has entered and does not take itself."""

POLL_MIN_S = 0.05
"""The least pause before a time that the agenda has named: another node may take the items that are due by then."""

GONE_LAG_S = 60.0
"""How long a queue must be due before a node takes it whose receiver has answered 410. A node that has been told to try again, or was
restarted, has taken it by then."""

SUMS_S = 10.0
"""How often the sums of the agenda are read, for metrics."""

IDLE_POLL_S = 0.02
"""How often the end of the turns under way is looked for, once in the life of a node."""


class Teller:
    """See the module."""

    def __init__(self, context: Context, poster: Poster) -> None:
        self._context = context
        self._due = Poke()
        self.receiver = Receiver(context, poster)
        self.scheduling = Scheduling(context, self._due)
        self.tally = Tally()
        self.agenda = AgendaRead(0, 0, 0, 0)
        """Its sums as they were read last."""
        self._turns: set[Turn] = set()
        self._stopping = False

    @property
    def in_flight(self) -> int:
        """How many queues have their turn here now."""
        return len(self._turns)

    # --- tasks ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._context.config_changed
                self._due.clear()
                if not self._context.config.core.events_url:
                    await changed.wait()
                    continue
                wait_s = await self._take(nursery)
                with trio.move_on_after(wait_s):
                    await self._due.wait()
                if changed.is_set():
                    await self._renew()

    async def run_sums(self) -> None:
        """Read how much waits in the cluster, until cancelled."""
        context = self._context
        while True:
            changed = context.config_changed
            if not context.config.core.events_url:
                self.agenda = AgendaRead(0, 0, 0, 0)
                await changed.wait()
                continue
            await self.read_sums()
            with trio.move_on_after(SUMS_S):
                await changed.wait()

    async def read_sums(self) -> AgendaRead:
        """Read how much waits in the cluster; while the store is away, return the last values."""
        try:
            self.agenda = await self._context.committer.call(ReadAgenda("e", self._context.now_ms()))
        except StoreUnavailable:
            log.debug("core_events_sums_late")
        return self.agenda

    # --- from outside -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more queues, and begin no more attempts: the queues held are handed on, in order."""
        self._stopping = True
        for turn in self._turns:
            turn.handing_on = True

    async def finish(self) -> None:
        """Wait until each turn under way has ended, which takes one attempt at most. The caller has a deadline."""
        self.stop()
        while self._turns:  # noqa: ASYNC110 - once in the life of a node
            await trio.sleep(IDLE_POLL_S)

    async def retry(self) -> int:
        """An operator says that the receiver takes events: end all pauses, and return how many queues wait. Raises StoreUnavailable."""
        context = self._context
        self.receiver.renew()
        after, count = "", 0
        while True:
            page = await context.committer.call(ListAgenda("e", after, NAMES_AT_ONCE))
            names = tuple([item.name for item in page.items if not item.taken])
            now_ms = context.now_ms()
            if names:
                await context.committer.call(Schedule("e", names, now_ms, now_ms, hurry=True))
            count += len(page.items)
            if len(page.items) < NAMES_AT_ONCE:
                self._due()
                return count
            after = page.items[-1].name

    # --- the work ---------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """The configuration was read again: a receiver that wanted no events is asked again."""
        was_gone = self.receiver.gone
        self.receiver.renew()
        if was_gone:
            try:
                await self.retry()
            except StoreUnavailable:
                log.warning("core_events_retry_late", why="the queues go on with their own pauses")

    async def _take(self, nursery: trio.Nursery) -> float:
        """Take what is due, as far as there is room, and return after how many seconds to look again."""
        context, receiver = self._context, self.receiver
        config = context.config.core
        now = trio.current_time()
        room = receiver.reachability.room(config.events_in_flight_max - len(self._turns), now)
        if room <= 0 or self._stopping or context.committer.down_since is not None:
            return POLL_S
        attempts_s = LEASE_SHARE * config.events_timeout_s
        now_ms = context.now_ms()
        lag_ms = round(GONE_LAG_S * 1000) if receiver.gone else 0
        lease_ms = round((attempts_s + LEASE_SLACK_S) * 1000) + lag_ms
        take = TakeDue("e", context.node, new_nonce(context.entropy), now_ms - lag_ms, lease_ms, room)
        try:
            due = await context.committer.call(take)
        except StoreUnavailable:
            return POLL_S  # what was taken by an answer that is lost comes back with its lease
        for item in due.items:
            receiver.reachability.probing = receiver.reachability.away
            turn = Turn(context, receiver, self.tally, item, now + attempts_s)
            turn.handing_on = self._stopping
            self._turns.add(turn)
            nursery.start_soon(self._run, turn)
        if len(due.items) == room or not due.next_ms or receiver.gone:
            return POLL_S  # the end of a turn makes room, and looks again at once
        return min(POLL_S, max(POLL_MIN_S, (due.next_ms - now_ms) / 1000))

    async def _run(self, turn: Turn) -> None:
        try:
            await turn.run()
        except Exception:
            # It has given its queue back; an error here must not end a node that holds connections.
            log.exception("core_events_failed")
        finally:
            self._turns.discard(turn)
            self.receiver.reachability.probing = False
            self._due()
