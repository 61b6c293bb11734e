"""Receipts on their way to the store: completed from the trails of the sessions that moved, and stored once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from signald.core.drain import WhyLeft
from signald.core.head import Party
from signald.errors import StoreUnavailable
from signald.service.drain.ledger import Ledger
from signald.service.events import Suspended
from signald.service.trail import DELAY_S as TRAIL_DELAY_S
from signald.store.committer import ignore
from signald.store.registry.ops import PutReceipt
from signald.store.session.ops import ReadTrail, Trail

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

FOLLOW_SHARE = 0.5
"""Share of FLUSH's time that reading the trails of moved sessions may take."""
FOLLOW_LOT = 200
"""Trails read in one go: other batches get in between."""


class Receipts:
    """See the module."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    async def store(self, ledger: Ledger, flush_s: float, finish: Callable[[], bytes | None]) -> bool:
        """Complete the receipt and store it, within `flush_s` seconds each; True when the store has it.

        `finish` closes the ledger once it is complete; None when the receipt is not wanted any more.
        """
        hub = self._hub
        try:
            await self._follow(ledger, flush_s)
            if (receipt := finish()) is None:
                return False
            await hub.committer.call(PutReceipt(hub.node, receipt, hub.store.now_ms()), flush_s)
        except StoreUnavailable:
            log.warning("receipt_not_stored")
            return False
        return True

    def submit(self, ledger: Ledger, finish: Callable[[], bytes]) -> None:
        """Hand in the receipt of a drain that was stopped before the end of FLUSH; the store is not waited for."""
        hub = self._hub
        receipt = finish()
        log.info("drain_receipt", **ledger.totals())
        hub.committer.submit(PutReceipt(hub.node, receipt, hub.store.now_ms()), ignore)

    async def _follow(self, ledger: Ledger, flush_s: float) -> None:
        """Learn from the trails where the moved sessions went on. Raises StoreUnavailable."""
        committer = self._hub.committer
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
        for session in self._hub.sessions.values():
            sides: tuple[tuple[Party, object], ...] = (("client", session.client.link), ("worker", session.worker.link))
            parties = [party for party, link in sides if link is not None]
            if parties:
                ledger.closing(session.id, session.worker_id, parties)
                here += [(session.id, party) for party in parties]
        return here

    def note_cut(self, ledger: Ledger, reason: str, why: WhyLeft) -> None:
        """Note in the receipt and in the sessions' trails that this drain closes the parties that are here, and why."""
        hub = self._hub
        detail = f"by the drain of {hub.node} ({reason}): {why.value}"[:200]
        for session, party in self.note_parties(ledger):
            hub.context.events.emit(Suspended(session, party, detail))
        hub.trail.store()
