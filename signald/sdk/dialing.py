"""How a connection fails to come about, and whether asking again can mend it. No I/O."""

from signald.sdk.errors import PartyError
from signald.wire.close_codes import CloseCode
from signald.wire.messages import SUBPROTOCOL

_LATER = frozenset((408, 425, 429))
"""The refusals below 500 that ask to come again: a timeout, an early request, too many requests (RFC 9110 §15.5, RFC 8470, RFC 6585)."""

_CLOSE_CODES = {401: CloseCode.UNAUTHENTICATED, 403: CloseCode.FORBIDDEN}


class DialFailed(PartyError):
    """The connection never stood."""

    def __init__(
        self, code: int | None, reason: str, retry_after_ms: int | None = None, *, wrong_url: bool = False
    ) -> None:
        """With `wrong_url` the other side has answered, and signald is not there: a wrong path or port."""
        super().__init__(reason)
        self.code = code
        """The close code that says the same; None when there is none."""
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.wrong_url = wrong_url


def refused_handshake(status: int, retry_after: bytes = b"") -> DialFailed:
    """Return the error for a handshake that was answered with `status`, which is not 101, and with this `Retry-After` (seconds)."""
    text = f"the handshake was answered with HTTP {status}"
    if status in _CLOSE_CODES:
        return DialFailed(_CLOSE_CODES[status], text)
    if status in (429, 503):
        # Seven digits are four months; a longer number is no hint.
        hint = int(retry_after) * 1000 if retry_after.isdigit() and len(retry_after) < 7 else None
        return DialFailed(CloseCode.REFUSED if hint is not None else None, text, hint)
    return DialFailed(None, text, wrong_url=status < 500 and status not in _LATER)


def other_protocol() -> DialFailed:
    """Return the error for a WebSocket server that is not signald."""
    return DialFailed(None, f"the other side does not speak {SUBPROTOCOL}", wrong_url=True)
