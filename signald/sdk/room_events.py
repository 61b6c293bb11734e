"""What a room tells an application: its publications, its members, and what was missed. Frozen values, in the order of the room."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import UNSET, Raw, UnsetType

from signald.sdk.values import read, readable

Fields = dict[str, bytes]
"""The properties of a record: name, and value as JSON."""


class Record(Mapping[str, Any]):
    """A record of a room, or the changes of one, as it was when it was read: a mapping of property to value.

    Each read decodes the value anew, so an application that changes it changes nothing here. A read raises `Unreadable` when the
    value is one that Python cannot hold.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return readable(read(self._fields[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Record({', '.join(self._fields)})"


@frozen(match_args=False)
class RoomPublication:
    """What another member or a service has published, other than a change of records."""

    __match_args__ = ("member", "data", "kind")

    position: int
    member: str
    """Empty: a service."""
    at_ms: int
    """When it was stored, in milliseconds since 1970."""
    _data: Any = field(repr=False)
    kind: str | None = None
    binary: bool = False

    @property
    def data(self) -> Any:
        """The decoded JSON value, or bytes.

        Raises:
            Unreadable: the member sent what cannot be read here.
        """
        return readable(self._data)


@frozen
class RecordsChanged:
    """Another member or a service has changed records. `Room.records` shows it already, below own changes that are not stored yet."""

    position: int
    member: str
    """Empty: a service."""
    at_ms: int
    put: Mapping[str, Record]
    """The records that were replaced, by id."""
    patch: Mapping[str, Record]
    """The properties that were set, by the id of their record; those that are None were removed."""
    removed: tuple[str, ...]


@frozen
class RoomUpdate:
    """A snapshot of opaque updates, or one update behind it: what a member that joins is to apply, in this order."""

    position: int
    data: bytes = field(repr=False)
    kind: str | None = None
    snapshot: bool = False
    """All updates up to `position`, folded into one."""


@frozen
class MembersChanged:
    """Members have come, have changed what others see of them, or have left. `Room.members` shows it already."""

    joined: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@frozen
class PublicationRefused:
    """One of the own publications is not stored, and the others go on. Its records show nothing of it any more."""

    number: int
    """What `Room.publish` and its like have returned."""
    code: str
    """`forbidden`, `bad_record`, `too_big`, `room_full` or `rate`."""


@frozen
class RoomReset:
    """What was missed is not to be had, so a state that the application has made from events is void: it begins anew at `position`.

    `Room.records` and `Room.members` are right again already. Own publications that were not confirmed are sent again.
    """

    position: int
    lost: bool
    """The store has lost the room: its epoch is another one, and positions count anew."""


@frozen
class RoomLagged:
    """The application was too far behind, and `missed` events were dropped here. `Room.records` and `Room.members` are right all the same.

    An application that needs each publication has the room tell all anew with `Room.resync`.
    """

    missed: int
    position: int
    """The room stood here when the last of them was dropped."""


RoomEvent = RoomPublication | RecordsChanged | RoomUpdate | MembersChanged | PublicationRefused | RoomReset | RoomLagged


class _Kept(msgspec.Struct, frozen=True):
    """A publication of the history, as `joined` lists it."""

    position: int
    member: str = ""
    at_ms: int = 0
    kind: str | None = None
    data: Raw | UnsetType = UNSET
    data_b64: bytes | None = None
    put: dict[str, dict[str, Raw]] = {}
    patch: dict[str, dict[str, Raw]] = {}
    remove: list[str] = []


_kept = msgspec.json.Decoder(_Kept)


def fields_of(record: Mapping[str, Raw]) -> Fields:
    """Return the properties of a record. The bytes are copied: a `Raw` keeps the whole frame that it came in."""
    return {name: bytes(value) for name, value in record.items()}


def history_of(entries: list[Raw]) -> list[RoomPublication | RecordsChanged]:
    """Return the history that `joined` has, oldest first. An entry that cannot be read is left out."""
    found: list[RoomPublication | RecordsChanged] = []
    for raw in entries:
        try:
            kept = _kept.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        place = (kept.position, kept.member, kept.at_ms)
        if kept.data_b64 is not None:
            found.append(RoomPublication(*place, kept.data_b64, kept.kind, binary=True))
        elif isinstance(kept.data, Raw):
            found.append(RoomPublication(*place, read(kept.data), kept.kind))
        else:
            found.append(records_changed(*place, kept.put, kept.patch, kept.remove))
    return found


def records_changed(
    position: int,
    member: str,
    at_ms: int,
    put: Mapping[str, Mapping[str, Raw]],
    patch: Mapping[str, Mapping[str, Raw]],
    removed: list[str],
) -> RecordsChanged:
    """Return the event of a change of records."""
    puts = {name: Record(fields_of(record)) for name, record in put.items()}
    patches = {name: Record(fields_of(record)) for name, record in patch.items()}
    return RecordsChanged(position, member, at_ms, puts, patches, tuple(removed))
