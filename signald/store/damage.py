"""What a store makes of a kept value that it cannot read: it counts as not there, for that session or worker only.

Disks lose bits, and people edit databases. What is kept as bytes is sealed with a CRC-32, so that a damaged message is never
delivered for a whole one (docs/decisions). A session's record that cannot be read is given back by the nodes that hold its
parties, as after a loss; where there is none, it can only end. Every other session of the batch gets its results.
"""

from zlib import crc32

import structlog

log = structlog.get_logger(__name__)

SEAL_BYTES = 4
REPORTS_MAX = 1024
"""How many damaged values are remembered as reported; beyond it the oldest is told again should it be met again."""


class Unreadable(Exception):
    """A kept value cannot be read."""

    def __init__(self, what: str, of: str) -> None:
        super().__init__(f"{what} of {of}")
        self.what = what
        self.of = of


def seal(data: bytes, place: int = 0) -> bytes:
    """Return `data` as it is kept at `place` (the seq of a message): moved to another one it is as damaged as changed."""
    return data + crc32(data, place).to_bytes(SEAL_BYTES, "big")


def unseal(kept: object, place: int = 0) -> bytes | None:
    """Return what `seal` was given; None when that cannot be told any more."""
    if type(kept) is not bytes or len(kept) < SEAL_BYTES:
        return None
    data = kept[:-SEAL_BYTES]
    return data if crc32(data, place) == int.from_bytes(kept[-SEAL_BYTES:], "big") else None


class Reports:
    """Says of each damaged value once that it is."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], None] = {}

    def tell(self, what: str, of: str) -> None:
        """`what` of the session, worker or node called `of` cannot be read. Its content is a secret of the parties, and is not logged."""
        if (what, of) in self._told:
            return
        while len(self._told) >= REPORTS_MAX:
            del self._told[next(iter(self._told))]
        self._told[what, of] = None
        log.error("record_unreadable", what=what, of=of)


REPORTS = Reports()
