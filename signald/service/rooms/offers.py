"""What a party publishes, as the store takes it, or the reason for which it is refused. Nothing that is in it is an error of a frame."""

import msgspec
from msgspec import Raw

from signald.core import updates
from signald.core.rooms import Fault, Offer, Properties, Publication, Right, fault_of
from signald.wire import records
from signald.wire.fields import NO_DATA
from signald.wire.rooms import Publish

_records = msgspec.json.Decoder(dict[str, dict[str, Raw]])
_ids = msgspec.json.Decoder(list[str])


class _FaultError(Exception):
    """What is in a publication is refused."""

    def __init__(self, fault: Fault = "bad_record") -> None:
        super().__init__(fault)
        self.fault: Fault = fault


def offer_of(said: Publish, binary: bytes | None, rights: frozenset[Right]) -> Offer:
    """Return what `said` offers, by a party that has `rights` in the room; `binary` is the data of a binary frame."""
    try:
        publication = _publication(said, binary)
    except _FaultError as error:
        return refused(said.seq, error.fault)
    needed: Right = "publish" if publication.body else "state"
    if needed not in rights:
        return refused(said.seq, "forbidden")
    fault = fault_of(publication)
    return refused(said.seq, fault) if fault else Offer(publication)


def refused(seq: int, fault: Fault) -> Offer:
    """Return an offer that is refused already: of its content nothing is kept."""
    return Offer(Publication(seq), fault)


def _publication(said: Publish, binary: bytes | None) -> Publication:
    has_changes = not (said.put is said.patch is said.remove is NO_DATA)
    has_data = said.data is not NO_DATA or binary is not None
    if has_data is has_changes or (binary is not None and said.data is not NO_DATA):
        raise _FaultError
    if has_changes:
        puts, patches, removes = _changes(said.put), _changes(said.patch), _removes(said.remove)
        if not (puts or patches or removes):
            raise _FaultError
        return Publication(said.seq, b"", puts, patches, removes)
    if fault := updates.fault_in(said.kind, binary):
        raise _FaultError(fault)
    is_update = binary is not None and said.kind in updates.KINDS
    return Publication(said.seq, records.publication_body(said.kind, bytes(said.data), binary), update=is_update)


def _changes(part: Raw) -> tuple[tuple[str, Properties], ...]:
    if part is NO_DATA:
        return ()
    try:
        read = _records.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _FaultError from None
    return tuple([(name, tuple([(key, bytes(value)) for key, value in one.items()])) for name, one in read.items()])


def _removes(part: Raw) -> tuple[str, ...]:
    if part is NO_DATA:
        return ()
    try:
        return tuple(_ids.decode(part))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _FaultError from None
