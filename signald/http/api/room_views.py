"""What rooms are over HTTP: as they are shown, and as they are asked for."""

from typing import Annotated

import attrs
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.core.callers import Access, Caller
from signald.core.rooms import Publication


class ShownMember(Struct, frozen=True):
    """A member of a room."""

    member: Annotated[str, Meta(description="The id of its session; with `/worker` behind it: the worker of that.")]
    presence: Annotated[Raw, Meta(description="What it lets others see; null: nothing.")]


class ShownRoom(Struct, frozen=True):
    """A room."""

    room: str
    epoch: Annotated[str, Meta(description="Another one: the store has lost the room, and this one has begun anew.")]
    position: Annotated[int, Meta(description="Of the last publication; 0: there is none.")]
    members_count: int
    members: Annotated[list[ShownMember], Meta(description="The first of them, in the order of their last change.")]


class ShownPublications(Struct, frozen=True, omit_defaults=True):
    """A page of the publications that a room keeps, oldest first."""

    entries: Annotated[list[Raw], Meta(description="As `room_message` of `signald.v1`; binary data is `data_b64`.")]
    next: (
        Annotated[str, Meta(description="`before` of the page with older entries; absent on the last one.")] | UnsetType
    ) = UNSET


class PublishedAt(Struct, frozen=True):
    """The publication is stored."""

    position: int


class ShownState(Struct, frozen=True):
    """All records of a room, as they are at `position`."""

    room: str
    epoch: str
    position: int
    records: dict[str, dict[str, Raw]]


@attrs.frozen
class Asking:
    """The caller of a request about a room, and the session for which it asks."""

    caller: Caller
    tenant: str | None
    """Whose rooms a service means; None: those of no tenant."""
    session: str = ""
    """Of a party or a person; empty: a service, which needs none."""
    access: Access = attrs.field(factory=Access)
    """What the session is judged by."""
    address: str = ""
    """Where the request comes from; empty: a proxy that speaks for many."""


@attrs.frozen
class Post:
    """A publication of a request."""

    publication: Publication
    key: bytes
    """Digest of the idempotency key, and of the caller and the path to which it belongs; empty: there is none."""
    content: bytes = b""
    """Digest of what makes another request with the key the same."""


@attrs.frozen
class Stored:
    """What has become of a publication."""

    position: int
    replayed: bool
    """An earlier request with the same key has stored it."""
