"""A room: a log that the store numbers, and records that are a fold of it.

Theory of operation. The store gives each publication the next *position* of the room, dense from 1. The publications of one member have
seqs, dense from 1 for as long as it is a member. A publication that is refused uses up its seq and takes no position, so a bad one never
holds up the others.

A publication has a body, or it changes *records*. A record is a map of properties. In one publication the order is put, patch, remove.
`put` replaces a record, `patch` sets some of its properties and makes the record when it is missing, and `null` in a patch removes a
property. The store's order decides, and the last writer of a property wins. Each record has the position of its last change. A removal is
remembered as a record without properties, up to a *horizon*.

A member that comes back says which position it has. All or nothing: it gets each publication behind that one, or it is told that they
are not kept. An *update* is a body that the store never looks into, such as a change of a Yjs document. It is kept until a snapshot stands
for it.

The *epoch* of a room is made with it, by chance. A store that has lost the room makes another one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec import Struct

Right = Literal["join", "publish", "state"]
RIGHTS: frozenset[Right] = frozenset(("join", "publish", "state"))
NO_RIGHTS: frozenset[Right] = frozenset()

Fault = Literal["forbidden", "bad_record", "too_big", "room_full", "rate", "unsupported"]
"""Why one publication is refused; a gap refuses all behind it."""

NAME_CHARS_MAX = 128
"""Longest name of a room, from the contract of the wire."""

ID_CHARS_MAX = 128
"""Longest id of a record: as that of a room. A UUID has 36, a path of a design tool some 80."""

CHANGES_MAX = 2000
"""Records that one publication may change: a paste of a large group of shapes. A script of Redis passes up to 8,000 words at once."""

ENTRY_BYTES = 64
"""What an entry of the log takes beside its content, so that empty ones have a bound too."""

REFUSALS_MAX = 32
"""Refused publications of a member that are remembered, to be told again: more than one batch of a member has."""

DEPARTED_MAX = 256
"""Departures that are remembered. A node that is further behind reads the whole list of members."""

KEYS_MAX = 1024
"""Idempotency keys that a room remembers: an hour of seventeen messages a minute, and far more than are in flight. All of them are one
value of some 24 KiB, which is written with each of them."""

UPDATES_MAX = 10_000
"""Updates behind the last snapshot: 273 kB of small ones. A member that joins has to apply them all, in some tens of milliseconds."""

_NAME = re.compile(r"[A-Za-z0-9_.:~-]{1,128}")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")

Properties = tuple[tuple[str, bytes], ...]
"""The properties of a record, in the order in which they came: name, and value as JSON."""

NULL = b"null"


# --- names and rights ---------------------------------------------------------------------------------------------


def is_room(name: str) -> bool:
    """Tell whether `name` can be that of a room."""
    return _NAME.fullmatch(name) is not None


def escape(text: str) -> str:
    """Return `text` as part of the name of a room: `~xx` for other bytes, and for `~` itself, so that no two texts are one."""
    return "".join([chr(byte) if byte in _PLAIN else f"~{byte:02x}" for byte in text.encode(errors="surrogatepass")])


def room_of(kind: str, text: str) -> str:
    """Return the room `KIND:TEXT`, such as that of a subject. A long text is told by its digest behind `~.`, which no escape makes."""
    name = f"{kind}:{escape(text)}"
    return name if len(name) <= NAME_CHARS_MAX else f"{kind}:{digest_of(text)}"


def digest_of(text: str) -> str:
    """Return what stands for a long text in the name of a room."""
    return f"~.{sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def rights_in(patterns: Mapping[str, Iterable[str]], room: str) -> frozenset[Right]:
    """Return what `patterns` allow in `room`: the rights of each pattern that fits. Unknown words are none."""
    words = {word for pattern, allowed in patterns.items() if fits(pattern, room) for word in allowed}
    return RIGHTS & words


def fits(pattern: str, room: str) -> bool:
    """Tell whether the name of a room fits a pattern, in which `*` at the end stands for any rest."""
    return room.startswith(pattern[:-1]) if pattern.endswith("*") else room == pattern


def read_patterns(claim: object) -> dict[str, tuple[str, ...]]:
    """Read the claim `rooms`. A malformed claim or pattern allows nothing: a right is never given by a mistake."""
    if not isinstance(claim, dict):
        return {}
    return {
        pattern: tuple([word for word in words if isinstance(word, str)])
        for pattern, words in claim.items()
        if isinstance(pattern, str) and isinstance(words, list | tuple)
    }


# --- publications -------------------------------------------------------------------------------------------------


class Bounds(Struct, array_like=True, frozen=True, gc=False):
    """What a room may hold. Each of them may change from one operation to the next, and holds for what comes then."""

    history_messages_max: int
    history_bytes_max: int
    records_max: int
    record_bytes_max: int
    room_bytes_max: int
    """Of the records, the snapshot and the updates behind it."""
    tombstones_max: int
    members_max: int
    keep_ms: int
    """How long a room without members is kept."""


class Publication(Struct, array_like=True, frozen=True, gc=False):
    """What a member or a service publishes. A field that is added stands last, with the meaning of its absence as its default."""

    seq: int
    """0: a service's, which has none."""
    body: bytes = b""
    """As the node writes it; the store does not look into it."""
    puts: tuple[tuple[str, Properties], ...] = ()
    patches: tuple[tuple[str, Properties], ...] = ()
    removes: tuple[str, ...] = ()
    update: bool = False
    """Its body is kept until a snapshot stands for it."""

    @property
    def size(self) -> int:
        """Bytes for which it counts in the log."""
        if not (self.puts or self.patches or self.removes):
            return ENTRY_BYTES + len(self.body)
        changed = sum([record_size(name, properties) for name, properties in (*self.puts, *self.patches)])
        return ENTRY_BYTES + len(self.body) + changed + sum([len(name.encode()) for name in self.removes])

    @property
    def names(self) -> frozenset[str]:
        """The ids of the records that it changes."""
        return frozenset((*(name for name, _ in self.puts), *(name for name, _ in self.patches), *self.removes))


class Offer(Struct, array_like=True, frozen=True, gc=False):
    """A publication on its way to the store, and why its node refuses it already; empty: it does not."""

    publication: Publication
    fault: Fault | Literal[""] = ""


class Entry(Struct, array_like=True, frozen=True, gc=False):
    """A publication in the log."""

    position: int
    member: str
    """Empty: a service."""
    at_ms: int
    publication: Publication


class Member(Struct, array_like=True, frozen=True, gc=False):
    """A member as others see it."""

    member: str
    presence: bytes
    """JSON; empty: it has said nothing."""
    is_new: bool
    """It has joined since the turn that was asked about."""


def fault_of(publication: Publication) -> Fault | Literal[""]:
    """Judge a publication by itself; the store judges what becomes of the records."""
    changes = len(publication.puts) + len(publication.patches) + len(publication.removes)
    if not changes:
        return ""
    if publication.body or publication.update:
        return "bad_record"
    if changes > CHANGES_MAX:
        return "too_big"
    return "bad_record" if not all(0 < len(name) <= ID_CHARS_MAX for name in publication.names) else ""


# --- records ------------------------------------------------------------------------------------------------------


class Record(Struct, array_like=True, frozen=True, gc=False):
    """A record, or the removal of one."""

    position: int
    """Of its last change."""
    properties: Properties | None
    """None: it is removed."""


def record_size(name: str, properties: Properties) -> int:
    """Return the bytes for which a record counts."""
    return len(name.encode()) + sum([len(key.encode()) + len(value) for key, value in properties])


def fold(publication: Publication, read: Callable[[str], Properties | None]) -> dict[str, Properties | None]:
    """Return the records that `publication` changes as they are then; None: removed. `read` gives them as they are now."""
    records: dict[str, Properties | None] = dict(publication.puts)
    for name, patch in publication.patches:
        known = records[name] if name in records else read(name)
        records[name] = patched(known or (), patch)
    for name in publication.removes:
        records[name] = None
    return records


def patched(known: Properties, patch: Properties) -> Properties:
    """Return a record after a patch. A property keeps its place, and a new one stands last."""
    properties = dict(known)
    for key, value in patch:
        if value == NULL:
            properties.pop(key, None)
        else:
            properties[key] = value
    return tuple(properties.items())


def properties_of(record: Mapping[str, object]) -> Properties:
    """Return the properties of a record that was read from JSON."""
    return tuple([(key, msgspec.json.encode(value)) for key, value in record.items()])


# --- coming back --------------------------------------------------------------------------------------------------


class Welcome(Struct, frozen=True, gc=False):
    """What a joiner is to get."""

    recovered: bool
    """Each publication behind the position that it has is kept, and follows."""
    wipe: bool
    """It is to forget the records that it has, and gets all of them; else those that have changed."""


def welcome(received: int, *, same: bool, position: int, floor: int, horizon: int) -> Welcome:
    """Judge what a member gets that has everything up to `received`, all or nothing. `same`: it knows this epoch of the room.

    The log has what is behind `floor`, up to `position`. Removals up to `horizon` may be forgotten.
    """
    recovered = same and floor <= received <= position
    return Welcome(recovered, not recovered or received < horizon)


def is_dense(entries: Sequence[Entry], after: int, upto: int) -> bool:
    """Tell whether `entries` are all from `after` to `upto`: damage leaves a hole, behind which nothing may be shown."""
    return [entry.position for entry in entries] == list(range(after + 1, upto + 1))


def is_picture(after: int, begun: int, horizon: int) -> bool:
    """Tell whether pages of records from `after` on have each removal: none is forgotten since.

    `begun` is the position of the room at the first page, `horizon` that of the last one. A reader from 0 on has nothing to be removed but
    what the pages have brought.
    """
    return horizon <= (after or begun)
