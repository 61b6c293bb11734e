"""Receipts on their way to the store: completed from the trails of the sessions that moved, and stored once."""

from collections.abc import Callable

import structlog
import trio

from signald.core.drain import WhyLeft
from signald.core.head import Party
from signald.errors import StoreUnavailable
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.drain.ledger import Ledger
from signald.service.events import Suspended
from signald.service.trail import DELAY_S as TRAIL_DELAY_S
from signald.service.trail import Trail as TrailWriter
from signald.store.committer import ignore
from signald.store.registry.ops import PutReceipt
from signald.store.session.ops import ReadTrail, Trail

log = structlog.get_logger(__name__)

FOLLOW_SHARE = 0.5
"""Share of FLUSH's time that reading the trails of moved sessions may take."""
FOLLOW_LOT = 200
"""Trails read in one go: other batches get in between."""


class Receipts:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments, trail: TrailWriter) -> None:
        self._context = context
        self._attachments = attachments
        self._trail = trail

    async def store(self, ledger: Ledger, flush_s: float, finish: Callable[[], bytes | None]) -> bool:
        """Complete the receipt and store it, within `flush_s` seconds each; True when the store has it.

        `finish` closes the ledger once it is complete; None when the receipt is not wanted any more.
        """
        context = self._context
        try:
            await self._follow(ledger, flush_s)
            if (receipt := finish()) is None:
                return False
            await context.committer.call(PutReceipt(context.node, receipt, context.now_ms()), flush_s)
        except StoreUnavailable:
            log.warning("receipt_not_stored")
            return False
        return True

    def submit(self, ledger: Ledger, finish: Callable[[], bytes]) -> None:
        """Hand in the receipt of a drain that was stopped before the end of FLUSH; the store is not waited for."""
        context = self._context
        receipt = finish()
        log.info("drain_receipt", **ledger.totals())
        context.committer.submit(PutReceipt(context.node, receipt, context.now_ms()), ignore)

    async def _follow(self, ledger: Ledger, flush_s: float) -> None:
        """Learn from the trails where the moved sessions went on. Raises StoreUnavailable."""
        committer = self._context.committer
        with trio.move_on_after(flush_s * FOLLOW_SHARE):
            # The last of them have been live for a moment only, and trails are stored a moment later.
            for wait_s in (0.0, TRAIL_DELAY_S):
                names = ledger.followed()
                if not names:
                    return
                await trio.sleep(wait_s)
                for start in range(0, len(names), FOLLOW_LOT):
                    lot = names[start : start + FOLLOW_LOT]
                    trails = await committer.call_many([ReadTrail(name) for name in lot])
                    for name, trail in zip(lot, trails, strict=True):
                        if isinstance(trail, Trail):
                            ledger.follow(name, trail.steps)

    def note_parties(self, ledger: Ledger) -> list[tuple[str, Party]]:
        """Note the parties that are here, which this drain is about to close; returns (session, party)."""
        here: list[tuple[str, Party]] = []
        for session in self._attachments.sessions.values():
            sides: tuple[tuple[Party, object], ...] = (("client", session.client.link), ("worker", session.worker.link))
            parties = [party for party, link in sides if link is not None]
            if parties:
                client = session.client.link
                ledger.closing(session.id, session.worker_id, parties, client.dialect if client is not None else "")
                here += [(session.id, party) for party in parties]
        return here

    def note_cut(self, ledger: Ledger, reason: str, why: WhyLeft) -> None:
        """Note in the receipt and in the sessions' trails that this drain closes the parties that are here, and why."""
        context, trail = self._context, self._trail
        detail = f"by the drain of {context.node} ({reason}): {why.value}"[:200]
        for session, party in self.note_parties(ledger):
            context.events.emit(Suspended(session, party, detail))
        trail.store()
