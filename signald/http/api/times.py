"""Times of the HTTP API: RFC 3339 texts in UTC, with milliseconds."""

from datetime import UTC, datetime

LATEST_MS = 253_402_300_799_999
"""The last millisecond that a year of four digits can name."""


def rfc3339(ms: int) -> str:
    """Return `ms`, milliseconds since 1970, as a text. A time that no such text can name counts as the nearest one."""
    seconds, rest = divmod(min(max(ms, 0), LATEST_MS), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"
