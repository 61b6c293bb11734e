"""What people have drawn and said in a room, and whether all of them have seen the same. No I/O.

The log of a room is put together from what its members were shown, and folded here by rules of its own: what the store and the SDK make of
the same publications is compared with that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from signald.sdk.trio import MembersChanged, RecordsChanged, RoomPublication, RoomReset

Content = dict[str, Any]
"""A publication: `{"data": …}`, or some of `put`, `patch` and `remove`."""
Drawing = dict[str, dict[str, Any]]
"""Records by id."""


@frozen
class Entry:
    """A publication at its place."""

    member: str
    content: Content


Log = dict[int, Entry]
"""Publications by position."""


def content_of(said: Mapping[str, Any]) -> Content:
    """Return what was published, of an entry of a history or an event's fields."""
    return {name: said[name] for name in ("data", "put", "patch", "remove") if said.get(name)}


def plain(records: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Return records as they are now."""
    return {name: dict(record) for name, record in records.items()}


@define(eq=False)
class Sight:
    """What one person has published and seen."""

    name: str
    member: str = ""
    said: list[Content] = field(factory=list)
    """What it has published, in order."""
    at: int = 0
    """Everything up to here was shown, or was there before."""
    begun_at: int = 0
    shown: Log = field(factory=dict)
    """What others have published, as it was shown."""
    found: Log = field(factory=dict)
    """What it has read in a history."""
    holes: list[range] = field(factory=list)
    """Positions that it was told it would not be shown."""
    joined: Counter[str] = field(factory=Counter)
    left: list[str] = field(factory=list)
    records: Drawing = field(factory=dict)
    """At the end; so the next."""
    members: dict[str, Any] = field(factory=dict)
    faults: list[str] = field(factory=list)
    """Events that there must not be."""

    def begin(self, position: int) -> None:
        """Be a member from `position` on."""
        self.at = self.begun_at = position

    def take(self, event: object) -> None:
        """Note an event of the room."""
        match event:
            case RoomPublication():
                self._show(event.position, Entry(event.member, content_of({"data": event.data})))
            case RecordsChanged():
                changes = {"put": plain(event.put), "patch": plain(event.patch), "remove": list(event.removed)}
                self._show(event.position, Entry(event.member, content_of(changes)))
            case MembersChanged():
                self.joined.update(event.joined)
                self.left += event.left
            case RoomReset(lost=False):
                self.holes.append(range(self.at + 1, event.position + 1))
                self.at = event.position
            case _:
                self.faults.append(repr(event))

    def _show(self, position: int, entry: Entry) -> None:
        if position <= self.at:
            self.faults.append(f"position {position} came behind {self.at}")
        self.at = position
        self.shown[position] = entry

    def find(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Note what stands in a history."""
        for entry in entries:
            self.found[entry["position"]] = Entry(entry.get("member", ""), content_of(entry))


def log_of(sights: Sequence[Sight], last: int) -> Log:
    """Return the log of a room up to `last` as its members have seen it; all must have seen one and the same, each position once."""
    log: Log = {}
    for sight in sights:
        for position, entry in [*sight.shown.items(), *sight.found.items()]:
            known = log.setdefault(position, entry)
            assert known == entry, f"position {position} is {known} and, for {sight.name}, {entry}"
    missing = sorted(set(range(1, last + 1)) ^ log.keys())
    assert not missing, f"positions that no member has seen, or that there are not: {missing[:20]}"
    return log


def folded(log: Log) -> Drawing:
    """Return the records that a log makes."""
    records: Drawing = {}
    for position in sorted(log):
        content = log[position].content
        for name, record in content.get("put", {}).items():
            records[name] = dict(record)
        for name, patch in content.get("patch", {}).items():
            merged = {**records.get(name, {}), **patch}
            records[name] = {key: value for key, value in merged.items() if value is not None}
        for name in content.get("remove", []):
            records.pop(name, None)
    return records


def judge(sights: Sequence[Sight], last: int, *, leavers: Sequence[str] = ()) -> Drawing:
    """Assert that all have seen all, and no one a departure but those of `leavers`; return the records."""
    for sight in sights:
        assert not sight.faults, f"{sight.name}: {sight.faults[:5]}"
    log = log_of(sights, last)
    for sight in sights:
        published = [log[position].content for position in sorted(log) if log[position].member == sight.member]
        assert published == sight.said, f"of {sight.name} {len(sight.said)} were said, {len(published)} are there"
        missed = {position for hole in sight.holes for position in hole}
        wanted = [n for n in range(sight.begun_at + 1, last + 1) if n not in missed and log[n].member != sight.member]
        assert sorted(sight.shown) == wanted, f"{sight.name} misses {sorted(set(wanted) - sight.shown.keys())[:20]}"
        assert sorted(sight.left) == sorted(set(leavers) - {sight.member}), f"{sight.name} saw leave: {sight.left}"
        twice = [name for name, times in sight.joined.items() if times > 1]
        assert not twice, f"{sight.name} saw join more than once: {twice}"
    records = folded(log)
    for sight in sights:
        differ = {name for name in records.keys() | sight.records if records.get(name) != sight.records.get(name)}
        assert not differ, f"{sight.name} has other records: {sorted(differ)[:5]}"
    return records
