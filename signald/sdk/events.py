"""The events of a party for its application, as frozen values. A port to another language uses the same names."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from attrs import field, frozen

from signald.sdk.values import readable


class BlobBytes(Protocol):
    """The bytes of a blob as they come; `async for` yields them in pieces."""

    @property
    def size(self) -> int:
        """How many bytes the whole blob has."""

    @property
    def content_type(self) -> str:
        """As its sender gave it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class NamedBlob(Protocol):
    """A blob that a peer has named; a driver of the SDK reads it over HTTP."""

    @property
    def id(self) -> str:
        """Its id, by the word of the peer."""

    async def read(self, *, bytes_max: int = ..., timeout_s: float = ...) -> bytes:
        """Return all its bytes."""

    def open(
        self, start: int = 0, end: int | None = None, *, timeout_s: float = ...
    ) -> AbstractAsyncContextManager[BlobBytes]:
        """Read its bytes from `start` to `end` (not included; None: all that follow) as they come, for the time of a block."""


@frozen(match_args=False)
class MessageReceived:
    """A message of the peer, handed out exactly once and in order of `seq`."""

    __match_args__ = ("seq", "data", "kind", "binary", "trace", "stream", "attempt", "end", "outcome")

    seq: int
    _data: Any
    kind: str | None = None
    binary: bool = False
    trace: str | None = None
    """The W3C traceparent that its sender gave it."""
    stream: str | None = None
    """The stream that it is a piece of; None for a plain message."""
    attempt: int = 1
    end: bool = False
    """It is the last piece of its stream."""
    outcome: str | None = None
    blob: NamedBlob | None = None
    """The blob that it names; None for none. Whether there is one is seen when it is read."""

    @property
    def data(self) -> Any:
        """The decoded JSON value, or bytes when the peer sent bytes.

        Raises:
            Unreadable: the peer sent what cannot be read here.
        """
        return readable(self._data)


@frozen(match_args=False)
class RealtimeReceived:
    """Carried at once or not at all; has no seq."""

    __match_args__ = ("data",)

    _data: Any
    size: int = field(default=0, eq=False, repr=False)
    """Bytes of the data on the wire."""

    @property
    def data(self) -> Any:
        """As that of a message.

        Raises:
            Unreadable: the peer sent what cannot be read here.
        """
        return readable(self._data)


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
class AuthExpiring:
    """The credential of this party runs out, and the SDK has no fresh one: give it one with `renew_auth`.

    After `grace_s` seconds signald closes the connection with 4401. None: the credential that was sent last was refused.
    """

    grace_s: float | None


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
    | AuthExpiring
    | LogLost
    | ReceiptUpTo
    | RealtimeReceived
    | Gone
)
"""What tells an application of its session; `MessageReceived` is no such event."""
