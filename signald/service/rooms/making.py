"""The place of a room that is about to be made: in the agenda, by which it is swept, and among the rooms of its owner.

A room outlives its members, so a party that makes rooms and leaves them could fill the store. Therefore a room has an owner, the principal
for which it is made, and no owner has more than its bound. The agenda is the ledger: a room is entered there, with its owner, before it is
made, and leaves it when a sweep has found it gone. So no end of a node leaves a room uncounted, or counted for ever.

The owner is

- the principal of a client; of an anonymous client its address (an IPv6 /64), as for the sessions that it may have: `rooms.owned_max`,
- the principal of a worker or a service, which make rooms for many users, or its address: a share of `rooms.rooms_max`,
- none for the room of a user, of which each principal has one.

A room that exists is entered by any party, whatever its owner has. A room of an owner stays, whatever becomes of the bound.
"""

from collections.abc import Callable

import attrs

from signald.config import Config
from signald.core.callers import Caller
from signald.core.head import Party
from signald.core.holders import address_holder, principal_holder
from signald.core.room_names import is_of_user, shown_name
from signald.net.admission import bearer_of_share, share
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.service.rooms.counts import NOT_MADE
from signald.service.rooms.sweeping import AGAIN_S
from signald.store.base import Refused
from signald.store.registry.agenda.ops import Own

LEAST_S = 60.0
"""When a room is swept first at the earliest: no sweep must come between its place in the agenda and the step that makes it, which has up
to half a minute (`joining.STORE_S`)."""

_REFUSALS = dict(zip(("owner", "rooms"), NOT_MADE, strict=True))


@attrs.frozen
class Owner:
    """The owner for which a room is made."""

    holder: str
    """As the registry names it (`core.holders`); empty: it counts for no owner."""
    many: bool = False
    """It makes rooms for many users."""


OF_NONE = Owner("")
"""The owner of a room that its members make again: the store has lost it, and the members need not be those who have made it."""


def owner_of(session: LiveSession, party: Party) -> Owner:
    """Return the owner of what a party of a session makes, which is attached here."""
    link = session.side(party).link
    address = "" if link is None or link.conn.shared else bearer_of_share(link.conn.remote)
    if party == "client":
        return _owner(session.principal, address, is_server=False)
    credential = None if link is None else link.credential
    return _owner("" if credential is None else credential.principal.name, address, is_server=True)


def owner_of_caller(caller: Caller, address: str) -> Owner:
    """Return the owner of what a caller of the HTTP API makes, from `address` (empty: one of many behind a proxy)."""
    return _owner(caller.principal, address, is_server=caller.kind in ("service", "worker"))


def _owner(principal: str, address: str, *, is_server: bool) -> Owner:
    if principal:
        return Owner(principal_holder(principal), is_server)
    # A proxy that names no address speaks for many clients, and these share one bound.
    return Owner(address_holder(address), is_server or not address)


class Making:
    """See the module."""

    def __init__(self, context: Context, refused: Callable[[str], None]) -> None:
        """`refused` is called with the reason, one of `NOT_MADE`, for each room that is not made."""
        self._context = context
        self._refused = refused

    async def enter(self, room: str, owner: Owner, timeout_s: float) -> str:
        """Give `room`, by the name that the store knows, its place before it is made; or return one of `NOT_MADE`.

        Raises StoreUnavailable.
        """
        context = self._context
        config, now_ms = context.config, context.now_ms()
        holder = "" if is_of_user(shown_name(room)) else owner.holder
        bounds = owned_max(config, owner), config.rooms.rooms_max
        # A room with members is swept now and then, and one without when it is kept no longer.
        due_s = max(LEAST_S, min(config.rooms.keep_s, AGAIN_S))
        op = Own(room, holder, *bounds, now_ms + round(due_s * 1000), now_ms)
        answer = await context.committer.call(op, timeout_s)
        if not isinstance(answer, Refused):
            return ""
        reason = _REFUSALS[answer.reason]
        self._refused(reason)
        return reason


def owned_max(config: Config, owner: Owner) -> int:
    """Return how many rooms an owner may have."""
    return share(config.rooms.rooms_max, config.admission.address_share) if owner.many else config.rooms.owned_max
