"""With which code a canvas socket is closed: those of RFC 6455 and the IANA registry, because its programs know no other."""

from collections.abc import Mapping

from signald.wire.close_codes import CloseCode

_CODES: Mapping[CloseCode, CloseCode] = {
    # A node that goes away, and one that restarts: the program connects again and restores its session.
    CloseCode.RESTARTING: CloseCode.GOING_AWAY,
    CloseCode.MOVED: CloseCode.GOING_AWAY,
    CloseCode.SUPERSEDED: CloseCode.GOING_AWAY,
    # What the same program may not, it may not the next time either.
    CloseCode.UNAUTHENTICATED: CloseCode.POLICY,
    CloseCode.FORBIDDEN: CloseCode.POLICY,
    CloseCode.SESSION_ENDED: CloseCode.POLICY,
    CloseCode.BAD_MESSAGE: CloseCode.POLICY,
    CloseCode.NOTHING_TO_RESUME: CloseCode.POLICY,
    # It may come again in a while.
    CloseCode.RATE: CloseCode.REFUSED,
    CloseCode.TIMEOUT: CloseCode.REFUSED,
}

GENTLE = frozenset((CloseCode.GOING_AWAY, CloseCode.RESTARTING))
"""Closes of a node that goes: what the peer has sent before its own Close is taken."""


def close_code(code: CloseCode) -> CloseCode:
    """Return the code that stands for `code` on this wire."""
    return _CODES.get(code, code)
