"""Holes in the log that a party reads: the party is told of each one, and its position goes on behind it.

A hole is found before a delivery, by what this node knows of the session, and after a look, by what the store has of the log.
"""

from signald.core.head import Party, other
from signald.service.attached import LiveSession
from signald.service.losses import is_claimed
from signald.service.relay_needs import RelayEvents
from signald.store.session.ops import Looked


def pass_over(session: LiveSession, party: Party, events: RelayEvents) -> None:
    """Say what a client will not get because a store that had lost its tail has let the numbers it knows be given again."""
    side = session.side(party)
    if party == "client" and side.link is not None and side.sent < session.void_to:
        events.lost(side.link, session.id, "received", (side.sent + 1, session.void_to), shown=True)
        side.sent = session.void_to


def check_dense(session: LiveSession, party: Party, after: int, looked: Looked, events: RelayEvents) -> int:
    """Say it when the log cannot supply what the party lacks; a broken promise is better known than hidden.

    The party acks it: until then it may not have heard, and is told again when it resumes.
    Returns up to which seq it is lost, or 0.
    """
    head = looked.head
    last, acked = (head.down_last, head.down_acked) if party == "client" else (head.up_last, head.up_acked)
    side = session.side(party)
    if acked > after:
        side.sent = acked  # it has that much by its own word, given elsewhere
        return 0
    if last <= after:
        return 0
    first = looked.entries[0].seq if looked.entries else (looked.unreadable_to or last) + 1
    if first <= after + 1 or side.link is None:
        return 0
    lost = after + 1, first - 1
    shown = not is_claimed(head.down_claimed if party == "client" else head.up_claimed, lost)
    events.lost(side.link, session.id, "received", lost, shown=shown)
    side.sent = first - 1
    sender = session.side(other(party)).link
    if sender is not None:
        events.lost(sender, session.id, "sent", lost, shown=shown)
    return side.sent
