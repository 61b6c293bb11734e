"""Where a WebSocket may be opened: at fixed paths, and at patterns such as `/ws/{session_id}`, whose last segment is the peer's.

An endpoint is known by its *route*: the fixed path, or the pattern as it is written. Routes are few and all of them are the node's own, so
they may stand in counters and in logs, in the place of a path that a peer has chosen.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import attrs

SEGMENT_CHARS_MAX = 128
"""Characters of the peer's segment: as many as the name of a room has. A UUID has 36."""

_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}){1,1536}")
"""A segment as RFC 3986 (3.3) writes it. Twelve bytes for each character: four of UTF-8, each as `%xx`."""

_PATTERN = re.compile(r"(/(?:[a-z0-9_-]+/)+)\{[a-z_]+\}")


@attrs.frozen
class Endpoint:
    """What is spoken at a route."""

    subprotocols: tuple[str, ...] = ()
    """Those that are spoken there, the preferred ones first. A peer that offers none of them is let in without one."""
    message_bytes_max: int | None = None
    """The bound of a message there, where it is not the general one."""


class Endpoints:
    """The endpoints of a listener, by route."""

    def __init__(self, at: Mapping[str, Endpoint]) -> None:
        """Take the endpoints. Raises ValueError for a pattern that has its braces elsewhere than in the last segment."""
        self._at = dict(at)
        self._patterns = {_prefix(route): route for route in at if "{" in route}
        """What stands in front of the peer's segment → the pattern."""

    def __contains__(self, path: object) -> bool:
        """Tell whether a WebSocket may be opened at `path`."""
        return isinstance(path, str) and self.route(path) is not None

    def __getitem__(self, route: str) -> Endpoint:
        """Return the endpoint of `route`, one of its routes."""
        return self._at[route]

    def route(self, path: str) -> str | None:
        """Return the route that `path` fits; None: there is none. A fixed path comes before a pattern."""
        if path in self._at and "{" not in path:
            return path
        head, slash, segment = path.rpartition("/")
        route = self._patterns.get(head + slash)
        return route if route is not None and read_segment(segment) is not None else None


def _prefix(route: str) -> str:
    fitting = _PATTERN.fullmatch(route)
    if fitting is None:
        raise ValueError(f"no pattern of a path: {route}")
    return fitting[1]


def read_segment(segment: str) -> str | None:
    """Return the text of the last segment of a path; None: it is malformed, too long, or has characters that cannot be shown.

    The limit is `SEGMENT_CHARS_MAX`.
    """
    if _SEGMENT.fullmatch(segment) is None:
        return None
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= SEGMENT_CHARS_MAX and text.isprintable() else None


def endpoints_of(at: Mapping[str, Endpoint] | Endpoints) -> Endpoints:
    """Return `at` as endpoints."""
    return at if isinstance(at, Endpoints) else Endpoints(at)
