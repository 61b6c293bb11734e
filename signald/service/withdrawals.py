"""A session that is taken back from its worker, which refused it, was late, or erred in it: it waits for another one.

The store unpairs it in a task of its own, however long the store is away. Meanwhile the pair is remembered as withdrawn, so
that the registry, which has it still, does not make the worker be asked again. A pair stays remembered as refused for longer,
so that other workers are asked first.
"""

from functools import partial
from math import inf

import trio

from signald.core.failures import PAUSE_REFUSED_S
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.service.line import leave_if_away
from signald.service.relay import Relay
from signald.service.retries import Retries
from signald.store.base import Fenced, Result
from signald.store.registry.ops import Release
from signald.store.session.ops import NoSession, Unpair, Unpaired

REFUSED_PAUSE_S = PAUSE_REFUSED_S
"""How long a refused session stays out of the waiting line, so that a worker that refuses all is not asked in a loop."""

REFUSALS_MAX = 4096
"""Pairs remembered as refused; the oldest are forgotten, which costs at most a repeated question."""

Pair = tuple[str, str]
"""(session, worker)"""


class Withdrawals:
    """See the module."""

    def __init__(self, context: Context, relay: Relay, retries: Retries) -> None:
        self._context = context
        self._relay = relay
        self._retries = retries
        self.refused: dict[Pair, None] = {}
        """Pairs whose worker has lately refused, or was not fit to serve the session; the oldest first."""
        self.pairs: set[Pair] = set()
        """Pairs that the registry still has, though the worker is not to be asked again."""

    def note_refused(self, session: str, worker: str) -> None:
        """Have other workers asked first."""
        while len(self.refused) >= REFUSALS_MAX:
            del self.refused[next(iter(self.refused))]
        self.refused[session, worker] = None

    def begin(
        self, session: LiveSession, worker: str, epoch: int, *, failed: bool, lost: bool, at_once: bool = False
    ) -> None:
        """Take `session` from `worker` in the store, under the claim `epoch`.

        `failed`: the hand-out counts as failed; `lost`: it does for the jobs of the session as well. `at_once`: the worker leaves, so it
        is not asked again, and another one may be asked without a pause.
        """
        context = self._context
        pair = (session.id, worker)
        self.note_refused(*pair)
        unpair = Unpair(session.id, context.node, worker, epoch)
        if failed:
            unpair = self._retries.unpair(session.id, worker, epoch, context.now_ms(), lost=lost)
        self.pairs.add(pair)
        context.spawn(self._withdraw, session, pair, unpair, at_once)

    async def _withdraw(self, session: LiveSession, pair: Pair, unpair: Unpair, at_once: bool) -> None:
        context = self._context
        # However long the store is away: until it has answered, it is unknown whose the session is.
        unpaired = await context.committer.call(unpair, inf)
        while isinstance(unpaired, NoSession) and await self._may_come_back():
            # The node that gives it back to a store that has come back empty may not have heard of the refusal.
            await trio.sleep(REFUSED_PAUSE_S)
            unpaired = await context.committer.call(unpair, inf)
        self._relay.look(session)
        if isinstance(unpaired, Fenced):
            # The worker has come back elsewhere and claimed the session before this was heard: it has it there, and it is
            # asked there.
            self.pairs.discard(pair)
            return
        if at_once:
            context.committer.submit(Release(*pair, True), partial(self._released, pair))
            return
        pause_s = self._retries.note(unpaired.head, "refused") if isinstance(unpaired, Unpaired) else REFUSED_PAUSE_S
        await trio.sleep(REFUSED_PAUSE_S)
        # A longer pause is not spent at the place of this worker, which may have room for others.
        at_once = pause_s <= REFUSED_PAUSE_S
        context.committer.submit(Release(*pair, at_once), partial(self._released, pair))
        if isinstance(unpaired, Unpaired) and not at_once:
            await self._retries.queue_later(unpaired.head, pause_s - REFUSED_PAUSE_S)

    async def _may_come_back(self) -> bool:
        try:
            return await self._context.incarnation.may_come_back()
        except StoreUnavailable:
            return True

    def _released(self, pair: Pair, _: Result) -> None:
        self.pairs.discard(pair)
        self._context.spawn(leave_if_away, self._context, pair[:1])
        self._context.inboxes.line()
