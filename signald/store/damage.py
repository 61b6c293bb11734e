"""Damage: a kept value that cannot be read counts as absent, for its session or worker only.

Disks lose bits, and operators edit databases. Kept bytes are sealed with a CRC-32, so that a damaged message is never delivered as a whole
one (docs/decisions). The nodes that hold the parties of a session give its damaged record back, as after a loss; without such
a node the session can only end. Every other session of the batch gets its results.
"""

from zlib import crc32

import structlog

log = structlog.get_logger(__name__)

SEAL_BYTES = 4
REPORTS_MAX = 1024
"""How many damaged values are remembered as reported. Beyond it the oldest is forgotten, and is reported again when it is met again."""


class Unreadable(Exception):
    """A kept value cannot be read."""

    def __init__(self, what: str, of: str) -> None:
        super().__init__(f"{what} of {of}")
        self.what = what
        self.of = of


def seal(data: bytes, place: int = 0) -> bytes:
    """Return `data` as it is kept at `place` (the seq of a message). Data that was moved to another place counts as damaged."""
    return data + crc32(data, place).to_bytes(SEAL_BYTES, "big")


def unseal(kept: object, place: int = 0) -> bytes | None:
    """Return the data that `seal` was given; None when it is damaged."""
    if type(kept) is not bytes or len(kept) < SEAL_BYTES:
        return None
    data = kept[:-SEAL_BYTES]
    return data if crc32(data, place) == int.from_bytes(kept[-SEAL_BYTES:], "big") else None


class Reports:
    """Logs each damaged value once."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], None] = {}

    def tell(self, what: str, of: str) -> None:
        """Report that `what` of the session, worker or node `of` is damaged. Its content is a secret of the parties, and is not logged."""
        if (what, of) in self._told:
            return
        while len(self._told) >= REPORTS_MAX:
            del self._told[next(iter(self._told))]
        self._told[what, of] = None
        log.error("record_unreadable", what=what, of=of)


REPORTS = Reports()
