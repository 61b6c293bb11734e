"""The chat histories that outlive their sessions, so that an API token reads them until it runs out: for how long, and how many.

A history is kept for `auth.api_token_ttl_s` from the end of its session, when the last token that was made for it has run out. One
history is bounded by `session.history_bytes_max`; this bounds the sum. The histories of sessions that this node has ended have
`BYTES_MAX`, and one principal, or the address of an anonymous client, has `admission.address_share` of that. A history that begins
beyond either goes with its session: nothing that is kept gives way, and no session that lives has less for it.

What ends at the same moment is judged before it is counted. A process that was replaced leaves what it has counted: during a deploy
there may be twice as much, for `auth.api_token_ttl_s` at most.
"""

from collections import Counter, deque

import trio

from signald.net.admission import share
from signald.service.context import Context
from signald.service.holdings import Holdings
from signald.store.base import Op
from signald.store.sagas import end_session
from signald.store.session.ops import Ended

BYTES_MAX = 64 << 20
"""256 histories of the largest size, or ten thousand of twenty short messages: what ten sessions a second leave in 15 minutes."""

ENTRY_BYTES = 256
"""What a kept history counts for beside its messages, so that a million empty ones are not nothing."""

UNHEARD = "nobody has heard of it"
"""Why a session ends that was made, and could not be told to its client."""


def take_back(context: Context, session: str) -> tuple[Op, ...]:
    """Return what ends a session of which no party has heard. No history is kept."""
    return end_session(session, context.node, context.now_ms(), reason=UNHEARD, told=context.events_max > 0)


class Pasts:
    """See the module."""

    def __init__(self, context: Context, holdings: Holdings) -> None:
        self._context = context
        self._holdings = holdings
        self._kept: deque[tuple[float, str, int]] = deque()
        """When each goes, the payer, bytes. A shorter life that is set by a reload holds behind those before it."""
        self._bytes_of: Counter[str] = Counter()
        self.bytes = 0

    def keep_ms(self, session: str, principal: str = "") -> int:
        """Return for how long the history of a session that ends now is kept; 0: not at all."""
        self._expire()
        payer_max = share(BYTES_MAX, self._context.config.admission.address_share)
        if self.bytes >= BYTES_MAX or self._bytes_of[self._payer(session, principal)] >= payer_max:
            return 0
        return round(self._context.config.auth.api_token_ttl_s * 1000)

    def end(self, session: str, principal: str, reason: str) -> tuple[Op, ...]:
        """Return what ends a session in the store and keeps its history. `count` is to be told of the result of the first."""
        context, keep_ms = self._context, self.keep_ms(session, principal)
        told = context.events_max > 0
        return end_session(session, context.node, context.now_ms(), keep_ms, reason=reason, told=told)

    def count(self, ended: Ended) -> None:
        """Count the history of a session that this node has ended; before the session is let go of here. Have its events told."""
        if ended.events:
            self._context.untold.note(ended.head.session)
        if ended.history_bytes < 0:
            return
        head = ended.head
        payer, size = self._payer(head.session, head.principal), ENTRY_BYTES + ended.history_bytes
        self._kept.append((trio.current_time() + self._context.config.auth.api_token_ttl_s, payer, size))
        self._bytes_of[payer] += size
        self.bytes += size

    def _payer(self, session: str, principal: str) -> str:
        return principal or self._holdings.address_of(session)

    def _expire(self) -> None:
        now = trio.current_time()
        while self._kept and self._kept[0][0] <= now:
            _, payer, size = self._kept.popleft()
            self.bytes -= size
            self._bytes_of[payer] -= size
            if not self._bytes_of[payer]:
                del self._bytes_of[payer]
