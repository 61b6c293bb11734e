"""What the SDK tells the application, as frozen values. A port to another language uses the same names."""

from typing import Any

from attrs import frozen


@frozen
class MessageReceived:
    """One message of the peer, handed out exactly once and in order of `seq`."""

    seq: int
    data: Any
    """The decoded JSON value, or bytes when the peer sent bytes."""
    kind: str | None = None
    binary: bool = False
    trace: str | None = None
    """The W3C traceparent that its sender gave it."""


@frozen
class RealtimeReceived:
    """Carried at once or not at all; has no seq."""

    data: Any


@frozen
class Waiting:
    """No worker fits yet; the session waits in line."""


@frozen
class Paired:
    """The session has this worker."""

    worker: str


@frozen
class PeerAway:
    """The worker's connection is gone; it may come back."""


@frozen
class Replaced:
    """Another worker has the session now; it was given the chat history."""

    worker: str


@frozen
class PeerGone:
    """The worker will not come back."""


@frozen
class HandedOver:
    """The party moved to another connection before the old one was closed."""

    node_hint: str | None
    """The `target` of the goaway, if it named one."""


@frozen
class Disconnected:
    """The connection is gone; the SDK is opening another one."""

    code: int | None
    """The close code; None when nothing was said."""
    reason: str


@frozen
class Resumed:
    """The session goes on, on a new connection."""


@frozen
class LogLost:
    """The service's store lost these stored messages; no seq of theirs is used again."""

    from_seq: int
    to_seq: int


@frozen
class ReceiptUpTo:
    """The peer's application has everything up to `seq`."""

    seq: int


@frozen
class Gone:
    """The session is over for this party, for good."""

    reason: str


LifecycleEvent = (
    Waiting
    | Paired
    | PeerAway
    | Replaced
    | PeerGone
    | HandedOver
    | Disconnected
    | Resumed
    | LogLost
    | ReceiptUpTo
    | RealtimeReceived
    | Gone
)
