"""Updates of a document in a room: those that nobody but their authors can read, and those of Yjs, which signald can merge.

Merging needs the extra `yjs`, which is pycrdt. No document is made of the updates: `pycrdt.Doc` loses those whose predecessors are missing,
such as one behind a publication that was refused, and takes ten times as long. Merged updates are what their authors have written, and
content that they have deleted stays in them.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

from signald.core.rooms import Fault, Publication
from signald.wire.records import publication_body

UPDATE = "update"
"""The kind of binary data that is kept until a snapshot of a party stands for it."""

YJS = "yjs"
"""The kind of updates of Yjs, in its format version 1: signald makes the snapshots."""

KINDS = frozenset({UPDATE, YJS})

MERGED_MAX = 100
"""Updates that are merged in one step: the time goes with the square of their number, and a hundred take 0.3 ms."""

STEP_BYTES_MAX = 1 << 16
"""Bytes of them, but for a single larger one: the worst that a member can write, tiny structures without an end, takes some 5 ms."""

_YJS_FRONT = publication_body(YJS, b"", b"")
_YJS_JSON = b't"kind":"yjs",'


@cache
def can_merge() -> bool:
    """Tell whether the extra `yjs` is installed."""
    return find_spec("pycrdt") is not None


def is_yjs(publication: Publication) -> bool:
    """Tell whether `publication` is an update of Yjs."""
    return publication.update and is_of_yjs(publication.body)


def is_of_yjs(body: bytes) -> bool:
    """Tell whether a body that a node has written is of Yjs."""
    return body.startswith(_YJS_FRONT)


def fault_in(kind: str | None, binary: bytes | None) -> Fault | None:
    """Judge the data of a publication; `binary` is None for JSON."""
    if kind != YJS:
        return None
    if not can_merge():
        return "unsupported"
    return None if binary is not None and _is_sound(binary) else "bad_record"


def fault_of_update(publication: Publication) -> Fault | None:
    """Judge a publication that came over HTTP."""
    body = publication.body
    if body.startswith(_YJS_FRONT):
        return fault_in(YJS, body[len(_YJS_FRONT) :])
    return fault_in(YJS, None) if body.startswith(_YJS_JSON) else None


def _is_sound(update: bytes) -> bool:
    try:
        merge((update,))
    except ValueError:
        return False
    return True


def merge(updates: Sequence[bytes]) -> bytes:
    """Return one update that stands for all. Raises ValueError for what is no update of Yjs."""
    from pycrdt import merge_updates  # a node without documents does not pay for it

    try:
        return merge_updates(*updates)
    except BaseException as error:
        if type(error).__module__ == "pyo3_runtime":  # a panic of the library, which is no Exception
            raise ValueError("pycrdt has panicked") from error
        raise


def steps(updates: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the updates in groups, each of which is merged in one step."""
    group: list[bytes] = []
    size = 0
    for update in updates:
        if group and (len(group) == MERGED_MAX or size + len(update) > STEP_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(update)
        size += len(update)
    if group:
        yield group
