"""The conversation of an application within a session; clients and workers alike."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.lowlevel

from signald.sdk.blob_core import OCTETS, Blob
from signald.sdk.client_core import EVENTS_MAX
from signald.sdk.core import SessionCore
from signald.sdk.errors import SessionGone
from signald.sdk.events import LifecycleEvent, MessageReceived, NamedBlob, RealtimeReceived
from signald.sdk.front.blobs import TRANSFER_S, Blobs, RemoteBlob
from signald.sdk.front.rooms import Hall, Room
from signald.sdk.front.sources import SPOOL_BYTES_MAX, Source
from signald.sdk.front.waiting import Lot
from signald.sdk.rooms_core import Rooms
from signald.sdk.stream_fields import Of
from signald.wire.messages import StreamError

EVENTS_BYTES_MAX = 1024 * 1024
"""Realtime data that waits for the application: what is not read in time is of no use, and a peer may send a lot of it."""


class Kept:
    """The newest events, by number and by bytes."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def surplus(self, waiting: int, event: LifecycleEvent) -> int:
        """Return how many of the oldest of `waiting` events must go for `event`, which is counted from now on."""
        sizes = self._sizes
        while len(sizes) > waiting:  # the application has taken them
            self._bytes -= sizes.popleft()
        size = event.size if isinstance(event, RealtimeReceived) else 0
        gone = 0
        while sizes and (len(sizes) >= EVENTS_MAX or (size and self._bytes + size > EVENTS_BYTES_MAX)):
            self._bytes -= sizes.popleft()
            gone += 1
        sizes.append(size)
        self._bytes += size
        return gone


class Events:
    """The events of a party, until they are read. Bounded: the oldest are dropped rather than that the party waits for a reader."""

    def __init__(self) -> None:
        self._events: deque[LifecycleEvent] = deque()
        self._kept = Kept()
        self._news = Lot()

    def put(self, event: LifecycleEvent) -> None:
        """Add an event; for the party itself."""
        for _ in range(self._kept.surplus(len(self._events), event)):
            self._events.popleft()
        self._events.append(event)
        self._news.unpark_all()

    async def receive(self) -> LifecycleEvent:
        """Return the next event; wait while there is none."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._events:
            await self._news.park()
        return self._events.popleft()

    def receive_nowait(self) -> LifecycleEvent | None:
        """Return the next event, or None while there is none."""
        return self._events.popleft() if self._events else None

    def __aiter__(self) -> AsyncIterator[LifecycleEvent]:
        return self

    async def __anext__(self) -> LifecycleEvent:
        return await self.receive()


class Conversation(ABC):
    """Sending and receiving within one session."""

    def __init__(self, core: SessionCore, room: Lot, blobs: Blobs, rooms: Rooms) -> None:
        self._conversation = core
        self._hall = Hall(rooms, self._member, self._touched, lambda: core.ended, self._failure, self._gone)
        self._blobs = blobs
        core.blob_of = blobs.named
        self._reading_room = room
        self._lot = Lot()
        self._handed_out = 0
        core.changed = self._changed

    def _changed(self) -> None:
        self._lot.unpark_all()
        self._reading_room.unpark_all()

    @abstractmethod
    def _member(self) -> str: ...

    @abstractmethod
    def _touched(self) -> None: ...

    @abstractmethod
    def _failure(self) -> Exception | None: ...

    @abstractmethod
    async def _boundary(self) -> None:
        """Nothing is unfinished here: a worker that leaves hands the session over."""

    def _gone(self) -> Exception:
        return self._failure() or SessionGone(None, self._conversation.ended or "ended")

    async def send(
        self,
        data: Any,
        *,
        kind: str | None = None,
        history: bool | None = None,
        trace: str | None = None,
        stream: str | None = None,
        attempt: int | None = None,
        fold: str | None = None,
        content_type: str | None = None,
        end: bool = False,
        outcome: str | None = None,
        error: Mapping[str, str] | None = None,
        blob: Blob | NamedBlob | str | None = None,
    ) -> int:
        """Send a message; return its seq. It is kept and sent again until signald has stored it.

        `data` is any JSON value, or bytes. `kind` is carried along; `history` says whether it belongs to the chat
        history (unsaid: text without a kind, or of kind `chat`, does). `trace` is a W3C traceparent that the peer
        finds on the message. The fields from `stream` to `error` make it a piece of a stream: see docs/protocol.md. `blob`
        names what `upload` has returned, or an id: the peer finds it as `message.blob`. Waits only while too much is unconfirmed.

        Raises:
            SessionGone: the session has ended.
            ValueError: signald would refuse it; nothing was sent. It is too large with its head, nested too deep, or not JSON (NaN,
                a set, a key that is no text). Or its `kind` or `trace` is too long.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        core = self._conversation
        while core.ended is None and not core.room:
            await self._lot.park()
        if core.ended is not None:
            raise self._gone()
        failure = None if error is None else StreamError(error.get("code", ""), error.get("message", ""))
        named = blob if blob is None or isinstance(blob, str) else blob.id
        of = Of(stream, attempt, fold, content_type, end, outcome, failure, named)
        seq = core.send(data, kind=kind, history=history, trace=trace, of=of)
        self._touched()
        return seq

    async def upload(
        self,
        source: Source,
        *,
        content_type: str = OCTETS,
        key: str | None = None,
        timeout_s: float = TRANSFER_S,
        bytes_max: int = SPOOL_BYTES_MAX,
    ) -> Blob:
        """Upload a voice message or another medium; return when signald keeps it, whatever nodes come and go meanwhile.

        `source` is a path, bytes, or an async iterator of bytes, which is kept here until the upload is over, up to `bytes_max`. Give the
        blob to `send` for the peer to have it. `timeout_s` is for the whole, from the moment at which the bytes are known. With a `key`
        of its own a program that starts again finds the blob that it has uploaded; else the SDK makes one.

        Raises:
            ApiRefused: signald does not take it: it is too long, or the principal keeps as much as it may (`blobs-full`).
            BlobFailed: it was not over in time, the iterator yields too much, or the file was changed meanwhile.
            OSError: the file cannot be read.
            SessionGone: the session is over.
            ValueError: the party was opened without `api`; or an argument that signald would refuse.
        """
        return await self._blobs.upload(source, content_type, key, timeout_s, bytes_max)

    def blob(self, blob: Blob | NamedBlob | str) -> RemoteBlob:
        """Return what reads a blob: by its id, as that of an entry of the chat history, or one that was uploaded."""
        return self._blobs.named(blob if isinstance(blob, str) else blob.id)

    def room(
        self, name: str, *, presence: Any = None, state: bool = False, history: int = 0
    ) -> AbstractAsyncContextManager[Room]:
        """Be in a room for the time of an `async with` block, which begins when signald has answered.

        `presence` is what other members see of this party, any JSON of up to 4 KiB. `state` asks for the records, and `history` for so many
        of the last publications. When the block is left, the party leaves the room as soon as all that it has published is confirmed.
        Without that, as after the end of the process, it stays a member until its session ends.

        Raises:
            RoomGone: the party may not be there, or the room is full.
            SessionGone: the session is over.
            ValueError: no room can have this name, the party is in it already, or an option is what signald would refuse.
        """
        return self._hall.join(name, presence, state, history)

    def ack(self, message: MessageReceived) -> None:
        """Say that `message`, and all before it, is finished with; asking for the next message says it too."""
        if self._conversation.finish(message.seq):
            self._touched()

    async def flush(self) -> None:
        """Wait until signald has stored everything that was sent.

        Raises:
            SessionGone: the session ended before that.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        while self._conversation.unacked:
            if self._conversation.ended is not None:
                raise self._gone()
            await self._lot.park()

    def __aiter__(self) -> AsyncIterator[MessageReceived]:
        return self

    async def __anext__(self) -> MessageReceived:
        """Return the next message, once and in order; the one before it is acknowledged now.

        Raises:
            SessionGone: the session was lost rather than ended.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        core = self._conversation
        if core.finish(self._handed_out):
            self._touched()
        await self._boundary()
        while (message := core.take()) is None:
            if core.ended is not None:
                failure = self._failure()
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            await self._lot.park()
            await self._boundary()
        self._handed_out = message.seq
        return message
