"""What the clients of each address make the store keep: one budget for an address, and a small part for each session.

A session may leave its `meta`, messages that its worker has not acked and its chat history, and all of it outlives the
connection by `session.resume_ttl_s`. One session is bounded; this bounds the sum. Beyond `limits.address_bytes_max`

- a session with more than `SMALL_BYTES` of messages that are not acked is pushed back with `backlog`,
- a session keeps `SMALL_BYTES` of its chat history, the latest,
- a new session with a `meta` of more than that is refused.

A session whose parties ack holds next to nothing, so it goes on beside any number of others of its address.

It is counted at the node where a client is or was, so an address has one budget at each node. What is away is counted until
it would have expired: the store would have to be asked for every session to know better.
"""

from collections import deque

import attrs
import trio

from signald.service.attached import LiveSession
from signald.service.context import Context

SMALL_BYTES = 16384
"""What a session may always hold: some seconds of chat that its worker has not acked, and as much of its history. A thousand
sessions of one address hold 32 MiB by it."""

RECOUNT_S = 0.25
"""How often the sum of one address is taken again while it is over its budget: as often as its senders try again."""


@attrs.define
class Holding:
    """What one address holds."""

    here: dict[str, LiveSession] = attrs.field(factory=dict)
    """Sessions whose client is attached here."""
    away: dict[str, tuple[int, float]] = attrs.field(factory=dict)
    """Sessions whose client has gone: the bytes they left, and when they expire."""
    history: dict[str, int] = attrs.field(factory=dict)
    """Bytes that a session's client has added to its chat history, at most what is kept of one."""
    bytes: int = 0
    """All bytes; too high by what was acked since the last count."""
    counted_at: float = -1.0


class Holdings:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_address: dict[str, Holding] = {}
        self._address_of: dict[str, str] = {}
        self._expiring: deque[tuple[float, str]] = deque()
        """Sessions whose client went, in that order, and when each expires unless it has come back."""
        self.pushed_back = 0
        """Messages pushed back since the start."""

    @property
    def bytes(self) -> int:
        """Bytes that all addresses hold."""
        return sum(holding.bytes for holding in self._by_address.values())

    def may_begin(self, address: str, meta_bytes: int) -> bool:
        """Tell whether a new session of `address` with so much `meta` may be stored."""
        holding = self._by_address.get(address)
        if holding is None:
            return True
        self._count_when_full(holding, meta_bytes)
        return holding.bytes + meta_bytes <= self._bytes_max or meta_bytes <= SMALL_BYTES

    def attach(self, address: str, session: LiveSession) -> None:
        """The client of `session` is attached here, from `address` ("": it has no share)."""
        self.forget(session.id)
        self._expire()
        if address:
            self._address_of[session.id] = address
            holding = self._by_address.setdefault(address, Holding())
            holding.here[session.id] = session
            holding.bytes += self._weight(holding, session)

    def detach(self, session: LiveSession) -> None:
        """The client of `session` has gone from here and may come back."""
        holding = self._holding(session.id)
        if holding is not None and holding.here.pop(session.id, None) is not None:
            until = trio.current_time() + self._context.config.session.resume_ttl_s
            holding.away[session.id] = self._weight(holding, session), until
            self._expiring.append((until, session.id))
        self._expire()

    def forget(self, session: str) -> None:
        """The session has ended, or its client is elsewhere."""
        holding = self._holding(session)
        if holding is not None:
            session_here = holding.here.pop(session, None)
            size, _ = holding.away.pop(session, (0, 0.0))
            holding.bytes -= self._weight(holding, session_here) if session_here is not None else size
            holding.history.pop(session, None)
            address = self._address_of.pop(session)
            if not holding.here and not holding.away:
                del self._by_address[address]

    def address_of(self, session: str) -> str:
        """Return the address that a session counts for; "": none is known here."""
        return self._address_of.get(session, "")

    def may_add(self, session: LiveSession, size: int) -> bool:
        """Tell whether the client of `session` may store `size` bytes more, and count them."""
        holding = self._holding(session.id)
        if holding is None:
            return True
        self._count_when_full(holding, size)
        if holding.bytes + size > self._bytes_max and _unacked(session) + size > SMALL_BYTES:
            self.pushed_back += 1
            return False
        kept = holding.history.get(session.id, 0)
        holding.history[session.id] = min(self._history_max(holding), kept + size)
        holding.bytes += size + holding.history[session.id] - kept
        return True

    def history_bytes_max(self, session: str) -> int:
        """Return how much of the session's chat history is kept."""
        holding = self._holding(session)
        return self._context.config.session.history_bytes_max if holding is None else self._history_max(holding)

    def _history_max(self, holding: Holding) -> int:
        most = self._context.config.session.history_bytes_max
        return min(most, SMALL_BYTES) if holding.bytes > self._bytes_max else most

    @property
    def _bytes_max(self) -> int:
        return self._context.config.limits.address_bytes_max

    def _holding(self, session: str) -> Holding | None:
        address = self._address_of.get(session)
        return None if address is None else self._by_address[address]

    def _weight(self, holding: Holding, session: LiveSession) -> int:
        return len(session.meta) + _unacked(session) + holding.history.get(session.id, 0)

    def _count_when_full(self, holding: Holding, size: int) -> None:
        if holding.bytes + size > self._bytes_max and trio.current_time() - holding.counted_at >= RECOUNT_S:
            self._count(holding)

    def _count(self, holding: Holding) -> None:
        self._expire()
        holding.counted_at = trio.current_time()
        holding.bytes = sum(self._weight(holding, session) for session in holding.here.values())
        holding.bytes += sum(size for size, _ in holding.away.values())

    def _expire(self) -> None:
        now = trio.current_time()
        while self._expiring and self._expiring[0][0] <= now:
            _, session = self._expiring.popleft()
            holding = self._holding(session)
            if holding is not None and session in holding.away and holding.away[session][1] <= now:
                self.forget(session)


def _unacked(session: LiveSession) -> int:
    return session.up.bytes_held + session.down.bytes_held
