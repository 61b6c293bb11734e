"""The head of a session as Redis keeps it: one list of its fields, by which Python and Lua call them.

To add a field, give it a line in `FIELDS` with what its absence means: records of the release before do not have it. What
else a field needs is in docs/contributing.md.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from signald.core.failures import NO_FAILURES, Failures
from signald.core.head import Head
from signald.store.damage import SEAL_BYTES
from signald.store.lua import Raw, Value
from signald.store.redis_codec import labels
from signald.store.redis_connection import Word
from signald.store.redis_keys import PACKING
from signald.store.redis_replies import LABELS, read_name
from signald.store.seals import MARK, SEALED_BYTES
from signald.wire.fields import SEQ_MAX

SAFETY_MIN_MS = 3_600_000
"""For how long at least the keys of a session outlive a cluster of which no node is left: longer than any outage that is mended."""


class Kind(NamedTuple):
    """How the values of some fields are kept."""

    digits: bool
    """Whether a value is a number, of digits alone and at most `SEQ_MAX`."""
    read: Callable[[Any], Any]
    """Takes what is kept. Raises when that is damaged, and when it is None."""
    write: Callable[[Any], Word]


class Field(NamedTuple):
    """One field of `Head`."""

    name: str
    kind: Kind
    absent: bytes | None = None
    """What a record without the field means, as if it were kept so; None: it is damaged without the field."""
    kept_as: str = ""
    """The field's name in Redis, where it differs."""
    absent_as: str = ""
    """The other field whose value stands for this one where it is absent."""

    @property
    def key(self) -> str:
        """The field's name in Redis."""
        return self.kept_as or self.name


def _read_number(kept: bytes) -> int:
    number = int(kept)
    if not 0 <= number <= SEQ_MAX:
        raise ValueError("no number of ours")  # damaged, or it would leave in a frame that no party can read
    return number


@lru_cache(1024)
def _read_meta(kept: bytes) -> bytes:
    # It is put into frames as it is.
    if kept != b"":
        msgspec.json.decode(kept)
    return kept


@lru_cache(256)
def _read_answered(kept: bytes) -> bytes:
    # As `meta`. Of at most 32 KiB each, so that fewer are remembered.
    if kept != b"":
        msgspec.json.decode(kept)
    return kept


def _read_flag(kept: bytes) -> bool:
    return bytes.__eq__(kept, b"1")


def _read_claimed(kept: bytes) -> tuple[int, int]:
    # Merely keeps an alarm from ringing: what cannot be read counts as none.
    try:
        first, last, *_ = kept.split()
        return int(first), int(last)
    except ValueError:
        return 0, 0


def _read_count(kept: bytes) -> int:
    # Merely tells that there is news: what cannot be read counts as none.
    try:
        return _read_number(kept)
    except ValueError:
        return 0


def _read_failures(kept: bytes) -> Failures:
    # What cannot be read counts as none.
    try:
        seq, count, at_ms, aside = map(int, kept.split())
    except ValueError:
        return NO_FAILURES
    return Failures(seq, count, at_ms, aside == 1)


def _write_failures(failed: Failures) -> str:
    return f"{failed.seq} {failed.count} {failed.at_ms} {int(failed.set_aside)}"


_NUMBER = Kind(True, _read_number, int)
_COUNT = Kind(False, _read_count, int)
_TEXT = Kind(False, bytes.decode, str)
_NAME = Kind(False, read_name, str)
_LABELS = Kind(False, LABELS.decode, labels)
_META = Kind(False, _read_meta, bytes)
_ANSWERED = Kind(False, _read_answered, bytes)
_FLAG = Kind(False, _read_flag, int)
_CLAIMED = Kind(False, _read_claimed, lambda seqs: f"{seqs[0]} {seqs[1]}")
_FAILURES = Kind(False, _read_failures, _write_failures)

FIELDS = (
    Field("created_ms", _NUMBER),
    Field("principal", _TEXT),
    Field("want", _LABELS),
    Field("meta", _META),
    Field("receipts", _FLAG),
    Field("client_epoch", _NUMBER),
    Field("client_node", _NAME),
    Field("worker", _NAME),
    Field("worker_state", _NAME),
    Field("worker_epoch", _NUMBER),
    Field("worker_node", _NAME),
    Field("workers", _NUMBER),
    Field("up_last", _NUMBER),
    Field("up_acked", _NUMBER),
    Field("down_last", _NUMBER),
    Field("down_acked", _NUMBER),
    Field("said_before", _NUMBER, absent_as="down_last"),  # the worker began where the log ends now
    Field("up_claimed", _CLAIMED, absent=b"0 0", kept_as="up_ahead"),  # no party has claimed more than was stored
    Field("down_claimed", _CLAIMED, absent=b"0 0", kept_as="down_ahead"),
    Field("failed", _FAILURES, absent=b""),  # no hand-out has failed
    Field("pair", _FLAG, absent=b"1"),  # it wants a worker; only of a session that wants none it is kept
    Field("jobs", _NUMBER, absent=b"0"),  # it never had a job
    Field("streams", _COUNT, absent=b"0"),  # the session has had no stream
    Field("events", _COUNT, absent=b"0"),  # no event of it was told
    Field("events_max", _COUNT, absent=b"0"),  # it is not told
    Field("settings", _ANSWERED, absent=b""),  # the core server has said nothing for it
    Field("rooms", _ANSWERED, absent=b""),
    Field("asked_until_ms", _COUNT, absent=b"0"),  # the core server was never asked
)
"""All of `Head` after the session's id, in its order."""

assert ("session", *[field.name for field in FIELDS]) == Head.__struct_fields__


def _reader(field: Field) -> Callable[[Any], Any]:
    if field.absent is None:
        return field.kind.read
    read, absent = field.kind.read, field.absent
    meaning = read(absent)
    return lambda kept: meaning if kept is None else read(kept)


_PLACES = {field.name: place for place, field in enumerate(FIELDS)}
_SEALED = tuple([(_PLACES[name], name.encode()) for name in ("meta", "settings", "rooms")])
"""The fields that may be sealed: no script looks at more of them than whether they are empty."""
_READERS = tuple([_reader(field) for field in FIELDS])
_STAND_INS = tuple([(place, _PLACES[field.absent_as]) for place, field in enumerate(FIELDS) if field.absent_as])


def read_head(session: str, kept: list[Any]) -> Head:
    """Read what HMGET answers to all fields. Raises ValueError, TypeError, AttributeError or MsgspecError where it is damaged."""
    for place, other in _STAND_INS:
        if not kept[place]:
            kept[place] = kept[other]
    uncover = PACKING.get().seals.uncover
    for place, name in _SEALED:
        if kept[place]:
            kept[place] = data = uncover(kept[place], name, session)
            if data is None:
                raise ValueError("a sealed field does not open")  # absence has a meaning, and is not what this is
    return Head(session, *[read(value) for read, value in zip(_READERS, kept, strict=True)])


def write_head(head: Head) -> list[Word]:
    """Return the values of all fields, as they are kept."""
    values = [field.kind.write(getattr(head, field.name)) for field in FIELDS]
    for place, name in _SEALED:
        values[place] = cover(name.decode(), getattr(head, name.decode()), head.session)
    return values


def cover(name: str, value: bytes, session: str) -> bytes:
    """Return the value of a field that may be sealed, as it is kept."""
    return PACKING.get().seals.cover(value, name.encode(), session)


SEAL_CONSTANTS: dict[str, Value] = {"SEAL_BYTES": SEAL_BYTES, "SEALED_BYTES": SEALED_BYTES, "SEAL_MARK": MARK}
"""How a script knows a sealed value, and how many bytes of it are no content."""


CONSTANTS: dict[str, Value] = {
    "HEAD_FIELDS": Raw(", ".join(f"'{field.key}'" for field in FIELDS)),
    "HEAD_COUNT": len(FIELDS),
    "HEAD_KINDS": "".join("o" if field.absent is not None else "n" if field.kind.digits else "t" for field in FIELDS),
    **{f"HEAD.{field.name}": place for place, field in enumerate(FIELDS, 1)},
}
"""The head in Lua: the names for HMGET, and where each field stands in its answer. A letter of `HEAD_KINDS` tells what a field
that is whole has: `n` digits, `t` any text, `o` nothing or anything."""
