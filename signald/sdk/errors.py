"""The errors of a party, named by what the application can do next.

SignaldError
└── PartyError
    ├── Refused         the service does not take us: mend the credential or the request
    ├── SessionGone     the service took us, and that is over: start again or stop
    ├── StreamOver      a stream takes no more: end the work for it; the session goes on
    ├── Unreadable      a value that the peer sent cannot be read here: only its message is hurt (also a ValueError)
    └── LinkBroken      this connection cannot be trusted any more: internal, answered by opening another one
"""

from signald.errors import SignaldError


class PartyError(SignaldError):
    """Base of the SDK's errors."""


class Refused(PartyError):
    """The opening message was not granted and asking again would not help."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"refused ({code}): {reason}" if reason else f"refused ({code})")
        self.code = code
        self.reason = reason


class SessionGone(PartyError):
    """The session (or the worker's registration) is over; nothing can be sent or received any more."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"the session is gone: {reason}")
        self.code = code
        self.reason = reason


class StreamOver(PartyError):
    """A stream takes no more of this sender: it has ended, or a higher attempt has begun. The session goes on."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the stream takes no more: {code}")
        self.code = code
        """`stream_over` or `stream_superseded`."""


class Unreadable(PartyError, ValueError):
    """The peer sent a JSON value that Python cannot hold (`1e999`, five thousand digits): raised when it is read.

    The message can be acked all the same, by asking for the next one.
    """


class LinkBroken(PartyError):
    """The frames of this connection do not fit: better a broken connection than a silent gap."""
