"""The records of a room as a member sees them. No I/O.

Two layers. The *base* is what the store has, as far as this member was told: the fold of all publications up to a position. Over it lie the
own changes that are not confirmed, in the order in which they were made. An own change goes into the base at its place in the room, so an
own change that is older than another one's is shown below that one as soon as the order is known.

The rules of one change are those of the store (wire: put, patch, remove; `null` in a patch removes a property), so all members end alike.
"""

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from signald.sdk.room_events import Fields, Record

NULL = b"null"


@frozen
class Change:
    """A change of records: the part of a publication that the fold is made of."""

    puts: Mapping[str, Fields] = field(factory=dict)
    patches: Mapping[str, Fields] = field(factory=dict)
    removes: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The ids of the records that it changes."""
        return frozenset((*self.puts, *self.patches, *self.removes))

    def applied(self, name: str, known: Fields | None) -> Fields | None:
        """Return the record `name` as it is after the change; None: it is removed."""
        fields = self.puts.get(name, known)
        patch = self.patches.get(name)
        if patch is not None:
            fields = patched(fields or {}, patch)
        return None if name in self.removes else fields


def patched(known: Fields, patch: Fields) -> Fields:
    """Return a record after a patch; `known` stays as it is."""
    fields = {**known, **patch}
    for key, value in patch.items():
        if value == NULL:
            del fields[key]
    return fields


def record_bytes(name: str, fields: Fields | None) -> int:
    """Return the bytes for which a record counts."""
    return 0 if fields is None else len(name) + sum([len(key) + len(value) for key, value in fields.items()])


class RoomRecords(Mapping[str, Record]):
    """See the module. A live view for the application; only the core of the room changes it."""

    __slots__ = ("_base", "_over", "size")

    def __init__(self) -> None:
        self._base: dict[str, Fields] = {}
        self._over: dict[str, list[Change]] = {}
        """Id → the own changes of it that are not confirmed, oldest first."""
        self.size = 0
        """Bytes of the base."""

    # --- what the application sees ----------------------------------------------------------------------------------

    def _shown(self, name: str) -> Fields | None:
        fields = self._base.get(name)
        for change in self._over.get(name, ()):
            fields = change.applied(name, fields)
        return fields

    def __getitem__(self, name: str) -> Record:
        fields = self._shown(name)
        if fields is None:
            raise KeyError(name)
        return Record(fields)

    def __iter__(self) -> Iterator[str]:
        names = [name for name in self._base if name not in self._over or self._shown(name) is not None]
        names += [name for name in self._over if name not in self._base and self._shown(name) is not None]
        return iter(names)

    def __len__(self) -> int:
        differ = [(self._shown(name) is not None) - (name in self._base) for name in self._over]
        return len(self._base) + sum(differ)

    def __repr__(self) -> str:
        return f"RoomRecords({len(self)} records, {self.size} bytes)"

    # --- own changes ------------------------------------------------------------------------------------------------

    def show(self, change: Change) -> None:
        """Show an own change over all others."""
        for name in change.names:
            self._over.setdefault(name, []).append(change)

    def hide(self, change: Change) -> None:
        """Show an own change no longer: it is refused, or goes into the base."""
        for name in change.names:
            left = [each for each in self._over.get(name, ()) if each is not change]
            if left:
                self._over[name] = left
            else:
                self._over.pop(name, None)

    # --- the base ---------------------------------------------------------------------------------------------------

    def fold(self, change: Change) -> None:
        """Apply what stands next in the room."""
        for name in change.names:
            self.keep(name, change.applied(name, self._base.get(name)))

    def keep(self, name: str, fields: Fields | None) -> None:
        """Set a record of the base; None: it is removed."""
        self.size += record_bytes(name, fields) - record_bytes(name, self._base.get(name))
        if fields is None:
            self._base.pop(name, None)
        else:
            self._base[name] = fields

    def wipe(self) -> None:
        """Forget the base."""
        self._base.clear()
        self.size = 0
