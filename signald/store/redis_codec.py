"""The table of codecs: how each operation is sent to Redis and how its reply is read.

Each aggregate fills it in its `packing.py`; `redis_codecs.py` imports them all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from signald.store.base import Op
from signald.store.redis_connection import Reply, Word, pack
from signald.store.redis_keys import Script

OpT = TypeVar("OpT", bound=Op)


class Codec(NamedTuple):
    """How one kind of operation is sent and its reply read."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[Any, Reply], Any]


CODECS: dict[type[Op], Codec] = {}
"""By kind of operation: all of the contract, and `Check`."""


def codec(kind: type[OpT], packs: Callable[[OpT], bytes], unpacks: Callable[[OpT, Reply], object]) -> None:
    """Say how `kind` is sent, and how its reply is read as one of the results it declares.

    `unpacks` may raise what reading a damaged value raises (ValueError, TypeError, LookupError...); see `redis_codecs.read`.
    """
    assert kind not in CODECS, f"{kind.__name__} has two codecs"
    CODECS[kind] = Codec(packs, unpacks)


# --- for packing --------------------------------------------------------------------------------------------------

EVAL = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n%d\r\n"
"""The beginning of a command that is written by hand: its words in all, the script, and how many keys follow."""


def bulk(data: bytes) -> bytes:
    """Return one word of a command that is written by hand."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def call(script: Script, keys: tuple[str, ...], *words: Word) -> bytes:
    """Return the command that runs `script` on `keys` with `words`."""
    return pack("EVALSHA", script.sha, len(keys), *keys, *words)


def labels(of: dict[str, str]) -> bytes:
    """Return labels as they are kept."""
    return msgspec.json.encode(of)
