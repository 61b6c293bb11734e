"""The bounds of a room as the configuration has them."""

from signald.config import RoomsConfig
from signald.core.rooms import Bounds


def bounds_of(config: RoomsConfig) -> Bounds:
    """Return what a room may hold now. Each operation carries it, so a reload counts from the next one on."""
    return Bounds(
        history_messages_max=config.history_messages_max,
        history_bytes_max=config.history_bytes_max,
        records_max=config.records_max,
        record_bytes_max=config.record_bytes_max,
        room_bytes_max=config.room_bytes_max,
        tombstones_max=config.tombstones_max,
        members_max=config.members_max,
        keep_ms=round(config.keep_s * 1000),
    )
