"""The names of rooms, as parties say them and as the store knows them.

Each tenant has rooms of its own: two that give a room the same name have two rooms, as two subjects of the same name are two principals.
So the store knows a room of a tenant by the tenant, a separator that no name has, and the name. Parties and programs say the name alone.

The room of a user, `user:SUBJECT`, is that of a principal. Only services publish there.
"""

from signald.core.rooms import NAME_CHARS_MAX, digest_of, escape, room_of
from signald.core.wants import SEPARATOR, subject_of, tenant_of

USER = "user"
"""The kind of the room that each principal has."""


def stored_name(room: str, tenant: str | None) -> str:
    """Return the name by which the store knows `room`, as a party or a service of `tenant` says it; None: of no tenant."""
    if tenant is None:
        return room
    named = escape(tenant)
    return f"{named if len(named) <= NAME_CHARS_MAX else digest_of(tenant)}{SEPARATOR}{room}"


def shown_name(stored: str) -> str:
    """Return the name of a room as its members say it."""
    return stored.rpartition(SEPARATOR)[2]


def tenant_in(stored: str) -> str | None:
    """Return the tenant of a room as its stored name has it, with other bytes as `~xx`; None: it is of no tenant."""
    tenant, separator, _ = stored.rpartition(SEPARATOR)
    return tenant if separator else None


def of_principal(room: str, principal: str) -> str:
    """Return the name by which the store knows `room`, as a session of `principal` says it."""
    return stored_name(room, tenant_of(principal))


def room_of_user(principal: str) -> str:
    """Return the room of a principal as its sessions say it; "" for an anonymous one, which has none."""
    subject = subject_of(principal)
    return room_of(USER, subject) if subject else ""


def is_of_user(room: str) -> bool:
    """Tell whether `room` is that of a user, in which no party publishes."""
    return room.startswith(f"{USER}:")
