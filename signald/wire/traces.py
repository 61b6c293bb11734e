"""W3C traceparents, as parties give them in `trace`: carried as they are, read only where signald itself tells of them."""

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class Traceparent(NamedTuple):
    """The parts of a traceparent."""

    trace_id: str
    span_id: str
    sampled: bool


def parse(trace: str | None) -> Traceparent | None:
    """Read a traceparent; None when it is none. Parties may write anything: nothing else of it is logged or shown."""
    found = _TRACEPARENT.fullmatch(trace) if trace is not None and len(trace) <= 256 else None
    return None if found is None else Traceparent(found[1], found[2], bool(int(found[3], 16) & 1))


def log_fields(trace: str | None) -> dict[str, str]:
    """Return the fields of a log line about a trace: its id, if there is one."""
    parsed = parse(trace)
    return {} if parsed is None else {"trace_id": parsed.trace_id}
