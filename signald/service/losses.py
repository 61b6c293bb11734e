"""Reports of lost messages: to the parties, to the log, and the alarm about the store.

The parties of a session are told of each loss (`error` `log_lost`), whatever its cause. The operator's alarm (`log_lost` at level
error, `signald_log_lost_total`) rings only where the store itself shows it: a log lacks what its numbers promise, a node knows
more than the store, or another server answered (`Store.lives`), numbers went back, or the store came back empty just now. That it
was away shows nothing, and neither does a party that claims more than is stored: it may lie. Its claim is a line of another name
(`claim_ahead`, at info) with a count of its own, unless the other party, which could not have heard of it, claims the same.
"""

from typing import Literal

import structlog
import trio

from signald.core.head import Party
from signald.service.attached import PartyLink
from signald.service.context import Context
from signald.store.session.ops import Claimed

log = structlog.get_logger(__name__)

Lost = tuple[int, int]
"""The first and the last seq."""


class Losses:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lives = context.store.lives
        self._seen_at = float("-inf")
        """When the store last showed that it may have lost something (trio time)."""
        self.shown = 0
        """Losses that the store has shown."""
        self.believed = 0
        """Claims beyond the store that were believed for their session."""
        self.refused = 0
        """Claims and acks that were refused because they lay too far beyond it."""

    def store_went_back(self, why: str) -> None:
        """The store shows that it may have lost something: until parties that were there then can resume no more, they are believed."""
        if not self._is_recent():
            log.warning("store_went_back", why=why)
        self._seen_at = trio.current_time()
        self._context.untold.doubted = True

    def check_store(self) -> None:
        """Find out whether another server answers than before."""
        lives = self._context.store.lives
        if lives != self._lives:
            self._lives = lives
            self.store_went_back("another server answers, or the same one was restarted")

    def is_store_in_doubt(self) -> bool:
        """Tell whether the store has shown lately that it may have lost something."""
        self.check_store()
        return self._is_recent()

    def _is_recent(self) -> bool:
        return trio.current_time() - self._seen_at <= self._context.config.session.resume_ttl_s

    def tell(
        self,
        link: PartyLink,
        session: str,
        direction: Literal["sent", "received"],
        lost: Lost | None,
        *,
        shown: bool,
        say: bool = True,
    ) -> None:
        """Tell a party of messages that it has sent or was to receive; `shown`: the store shows their loss. None: nothing.

        Not `say`: it is noted only.
        """
        if lost is None:
            return
        about = {
            "session": session,
            "party": link.party,
            "direction": direction,
            "lost_from": lost[0],
            "lost_to": lost[1],
        }
        if shown:
            self.shown += 1
            log.error("log_lost", **about)
        else:
            log.info("claim_ahead", **about)
        if say:
            link.log_lost(session, direction, lost)

    def tell_claim(self, link: PartyLink, session: str, claimed: Claimed) -> None:
        """Tell a party which messages the store must have lost if its claim is true. Behind the answer to its opening, never before."""
        shown = claimed.agreed or self.is_store_in_doubt()
        up, down = claimed.lost_up, claimed.lost_down
        if (up or down) and not shown:
            self.believed += 1
        sent, received = (up, down) if link.party == "client" else (down, up)
        self.tell(link, session, "sent", sent, shown=shown)
        # A worker's word of what its client has sent gives up no number: the worker has these, and the client may offer them again.
        self.tell(link, session, "received", received, shown=shown, say=link.party == "client")
        if claimed.agreed and not (up or down):
            # The other party was told when it claimed this; only now is it known to be true.
            self.shown += 1
            log.error("log_lost", session=session, party=link.party, agreed=True)

    def refuse(self, owner: str, party: Party, about: str) -> None:
        """A claim of `party` was refused: `about` tells in what, and `owner` is its session or worker."""
        self.refused += 1
        log.info("claim_refused", owner=owner, party=party, about=about)


def is_claimed(claimed: Lost, lost: Lost) -> bool:
    """Tell whether all of `lost` is a hole that a party's claim has made, so that the store shows nothing by it."""
    return claimed[0] <= lost[0] and lost[1] <= claimed[1]
