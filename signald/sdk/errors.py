"""The errors of a party, named by what the application can do next.

SignaldError
└── PartyError
    ├── Refused         the service does not take us: mend the credential or the request
    ├── SessionGone     the service took us, and that is over: start again or stop
    ├── StreamOver      a stream takes no more: end the work for it; the session goes on
    ├── RoomGone        the party is not in a room, or not any more; the session goes on
    ├── ApiRefused      signald does not do what was asked over HTTP
    ├── JobFailed       a job has ended otherwise than by success
    ├── BlobFailed      the bytes of a blob could not be carried whole
    ├── Unreadable      a value that the peer sent cannot be read here: only its message is hurt (also a ValueError)
    └── LinkBroken      this connection cannot be trusted any more: internal, answered by opening another one
"""

from typing import Literal

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


class RoomGone(PartyError):
    """The party is not in a room, or not any more. The session goes on."""

    def __init__(self, room: str, reason: str) -> None:
        super().__init__(f"not in the room {room}: {reason}")
        self.room = room
        self.reason = reason
        """As in `left`: `forbidden`, `room_full`, ..."""


class ApiRefused(PartyError):
    """A request over HTTP was refused, and asking again would not help. The fields are those of its problem document."""

    def __init__(self, status: int, kind: str, title: str, detail: str) -> None:
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}")
        self.status = status
        self.type = kind
        """A stable word at its end, for programs."""
        self.title = title
        self.detail = detail


class JobFailed(PartyError):
    """A job has ended as `failed`, `cancelled` or `expired`."""

    def __init__(self, job: str, state: str, code: str, message: str) -> None:
        super().__init__(f"the job is {state}: {code} {message}".rstrip(": "))
        self.job = job
        self.state = state
        self.code = code
        """Why, by the word of the worker or of signald; "" for none."""
        self.message = message


class BlobFailed(PartyError):
    """The bytes of a blob could not be carried whole, and no refusal of signald is the reason.

    After an upload that was late the blob may be kept all the same: the same `key` finds it.
    """

    def __init__(self, reason: Literal["late", "too_long", "changed"], detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        """`late`: not in the time that the caller gave. `too_long`: more bytes than the caller takes. `changed`: the bytes are others than
        those that were announced."""


class Unreadable(PartyError, ValueError):
    """The peer sent a JSON value that Python cannot hold (`1e999`, five thousand digits): raised when it is read.

    The message can be acked all the same, by asking for the next one.
    """


class LinkBroken(PartyError):
    """The frames of this connection do not fit: better a broken connection than a silent gap."""
