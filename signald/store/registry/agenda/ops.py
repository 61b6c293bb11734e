"""The operations on the agenda and their results.

An item has a kind and a name, and is due at a time. A node takes what is due with a lease, does it, and settles it. A node that dies
with an item loses the lease by time, and another one takes the item. No operation wakes a node: each asks the agenda now and then.
"""

from msgspec import Struct

from signald.store.base import Done, Refused, RegistryOp, Result, traits
from signald.store.registry.agenda.records import Kind

# --- results ------------------------------------------------------------------------------------------------------


class Scheduled(Result, frozen=True):
    """The items are in the agenda, but for so many new ones that it has no room for."""

    refused: int


class DueItem(Struct, frozen=True, gc=False):
    """One item that was taken."""

    name: str
    ticket: int
    """Of this lease; a later lease of whichever item has a higher one."""
    failures: int
    since_ms: int
    """When the first of the failures was; 0: there were none."""


class Due(Result, frozen=True):
    """What the node has now, oldest due first."""

    items: tuple[DueItem, ...]
    next_ms: int
    """When another item may be due, or a lease ends; 0: there is none."""


class AgendaRead(Result, frozen=True):
    """The sums of one kind."""

    count: int
    due: int
    """Due, and with no node."""
    failing: int
    oldest_ms: int
    """Since when the one that waits the longest is due or fails; 0: none is."""


class AgendaItem(Struct, frozen=True, gc=False):
    """One item as the operator sees it."""

    name: str
    due_ms: int
    """Of a taken item the end of its lease."""
    failures: int
    since_ms: int
    taken: bool


class AgendaPage(Result, frozen=True):
    """Some items, in order of name."""

    items: tuple[AgendaItem, ...]


# --- operations ---------------------------------------------------------------------------------------------------


class Schedule(RegistryOp[Scheduled], frozen=True):
    """Enter each name, to be due at `due_ms`, or move it forward to then; a later time changes nothing.

    An item that a node has taken is noted as asked for again. An item with failures keeps its time, unless `hurry`: a new event cuts no
    pause short. A kind is filled to `ITEMS_MAX`, and further new names are counted and left out. No time is further ahead than
    `AHEAD_MAX_MS`.
    """

    kind: Kind
    names: tuple[str, ...]
    due_ms: int
    now_ms: int
    hurry: bool = False


class Own(RegistryOp[Done | Refused], frozen=True):
    """Enter a room that is about to be made, for its `owner`, to be due at `due_ms`.

    The room counts for its owner until `Settle` ends its item. The last owner that was about to make it has it. An item of a room that is
    over is due at `due_ms` alone, and no node has it any more.

    Refusals, which change nothing: `owner` (the owner has `owned_max` other rooms in the agenda), `rooms` (there are `rooms_max` others).
    """

    room: str
    owner: str
    """A name of `core.holders`; empty: the room counts for all alone."""
    owned_max: int
    rooms_max: int
    due_ms: int
    now_ms: int


class TakeDue(RegistryOp[Due], frozen=True):
    """Give up to `limit` due items to `node` for `lease_ms`, at most `LEASE_MAX_MS`; the oldest due first.

    A lease that has ended makes an item due, and so does a time that lies too far ahead: it is of before the clock was set back.
    Repeated with the same `nonce`, it gives what the node still has by it, and takes nothing more.
    """

    kind: Kind
    node: str
    nonce: str
    now_ms: int
    lease_ms: int
    limit: int


class Settle(RegistryOp[Done], frozen=True):
    """Give an item back under the lease `ticket`, to be due at `due_ms` with these failures; ignored under another lease.

    `due_ms` 0: it is finished and goes, unless it was asked for again under this lease: then it is due as it was asked for. With
    `failures` it is due at `due_ms` all the same; without, at the earlier of both times.
    """

    kind: Kind
    name: str
    ticket: int
    due_ms: int
    failures: int
    since_ms: int
    now_ms: int


@traits(reads=True)
class ReadAgenda(RegistryOp[AgendaRead], frozen=True):
    """Read the sums of a kind."""

    kind: Kind
    now_ms: int


@traits(reads=True)
class ListAgenda(RegistryOp[AgendaPage], frozen=True):
    """Read up to `limit` items behind the name `after`, in order of name."""

    kind: Kind
    after: str
    limit: int
