"""The one table of close codes: the meaning of each, and the advice to its receiver.

Codes below 3000 are those of RFC 6455 and the IANA registry; 4000 to 4999 are private to `signald.v1`. A close never
ends a session: only `bye`, an expiry or an operator does. Unknown codes, and 1005/1006 (nothing was said), mean
"reconnect and resume".
"""

from enum import IntEnum
from typing import NamedTuple


class CloseCode(IntEnum):
    """Every code signald puts on the wire."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    REFUSED = 1013
    MOVED = 4001
    BAD_MESSAGE = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    NOTHING_TO_RESUME = 4404
    TIMEOUT = 4408
    SUPERSEDED = 4409
    SESSION_ENDED = 4410
    RATE = 4429
    SLOW_CONSUMER = 4508


class Advice(NamedTuple):
    """The advice to the receiver of a close."""

    meaning: str
    may_reconnect: bool
    """Opening a new connection to the same service is sensible."""
    may_resume: bool
    """The recovery token is still worth showing."""


ADVICE: dict[int, Advice] = {
    CloseCode.NORMAL: Advice("the session ended after `bye`, or the app was terminated", False, False),
    CloseCode.GOING_AWAY: Advice("the node goes away and the party did not move in time", True, True),
    CloseCode.PROTOCOL_ERROR: Advice("the frames broke RFC 6455", False, True),
    CloseCode.UNSUPPORTED: Advice("a kind of data this endpoint does not take", False, True),
    CloseCode.INVALID_DATA: Advice("a text frame was not UTF-8", False, True),
    CloseCode.POLICY: Advice("a rule of the service was broken", False, True),
    CloseCode.TOO_BIG: Advice("a message or its number of fragments exceeds the limit", False, True),
    CloseCode.INTERNAL: Advice("signald failed; the session is kept", True, True),
    CloseCode.RESTARTING: Advice("the node restarts and there is no successor yet", True, True),
    CloseCode.REFUSED: Advice("not admitted now; the reason carries retry_after_ms", True, True),
    CloseCode.MOVED: Advice("the party has resumed on another connection; this one is done", False, False),
    CloseCode.BAD_MESSAGE: Advice("a message signald.v1 does not allow", False, True),
    CloseCode.UNAUTHENTICATED: Advice("no valid credential", False, False),
    CloseCode.FORBIDDEN: Advice("valid credential or token, but not for this", False, False),
    CloseCode.NOTHING_TO_RESUME: Advice("no session or worker for this token", True, False),
    CloseCode.TIMEOUT: Advice("no opening message, or no pong, in time", True, True),
    CloseCode.SUPERSEDED: Advice("a newer claim of the same party holds the session", False, False),
    CloseCode.SESSION_ENDED: Advice("the session ended by expiry or an operator", False, False),
    CloseCode.RATE: Advice("far over the message rate", True, True),
    CloseCode.SLOW_CONSUMER: Advice("the party does not read what it is sent", True, True),
}

UNKNOWN = Advice("a code without a rule, or a connection that ended without a close", True, True)


def advice(code: int | None) -> Advice:
    """Return what a party may do after a close with `code` (None: the connection just broke)."""
    return UNKNOWN if code is None else ADVICE.get(code, UNKNOWN)
