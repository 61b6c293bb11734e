"""The blobs of a session: uploaded and read over HTTP, at the node that its party is connected to.

upload   counted and hashed first, then sent until there is an answer; a node that goes in between costs another try
open     a part of the bytes as they come; when a node goes, another one sends the rest
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.lowlevel
from attrs import field, frozen

from signald.sdk.api_core import Answer, NoAnswer, Tries, not_signald
from signald.sdk.blob_core import (
    OCTETS,
    READ_BYTES_MAX,
    Blob,
    Reading,
    Sending,
    check_content_type,
    check_key,
    elsewhere,
    target_of,
)
from signald.sdk.errors import ApiRefused, BlobFailed
from signald.sdk.front.api import Api
from signald.sdk.front.sources import SPOOL_BYTES_MAX, Source, counted
from signald.sdk.requests import Reply

TRANSFER_S: Final = 300.0
"""For a whole upload, and for a whole `read`: 10 MiB at 300 kbit/s, or a killed node (whose key is free after 20 s) and a deploy."""

PIECE_S: Final = 60.0
"""For the next bytes of a blob that is read as it comes, over all tries: a node that is killed has a successor by then."""

_REFUSAL_BYTES_MAX = 1024 * 1024


class Blobs:
    """The blobs of one session as its party reaches them."""

    def __init__(self, api: Api, session: str | None = None) -> None:
        """`session` is named by a worker, which has many."""
        self.api = api
        self.session = session

    async def upload(
        self,
        source: Source,
        content_type: str = OCTETS,
        key: str | None = None,
        timeout_s: float = TRANSFER_S,
        bytes_max: int = SPOOL_BYTES_MAX,
    ) -> Blob:
        """Upload a blob; see `Client.upload`."""
        self.check()
        check_content_type(content_type)
        key = self.api.core.entropy.token_bytes(16).hex() if key is None else check_key(key)
        async with counted(source, bytes_max) as found:
            said = Sending(found.body.length, found.sha256, content_type, key)
            target = target_of("", self.session)
            with anyio.move_on_after(timeout_s):
                try:
                    answer = await self.api.request("POST", target, said.headers(), found.body, is_transfer=True)
                except ApiRefused as error:
                    raise said.refused(error) from None
                return said.kept(answer)
        raise BlobFailed("late", f"the upload was not over within {timeout_s:g} s")

    def check(self) -> None:
        """Raise ValueError when the party has asked for no API tokens."""
        if not self.api.core.credentials.api:
            raise ValueError("blobs need an API token: open the client or worker with api=True")

    def named(self, blob: str) -> "RemoteBlob":
        """Return what reads a blob, by its id."""
        return RemoteBlob(blob, self)

    async def delete(self, blob: str) -> None:
        """Remove a blob; see `RemoteBlob.delete`."""
        self.check()
        tries = Tries(self.api.core)
        try:
            await self.api.request("DELETE", target_of(blob, self.session), tries=tries)
        except ApiRefused as error:
            # The answer to an earlier try may be what was lost.
            if error.status != 404 or not tries.count:
                raise


@frozen
class RemoteBlob:
    """A blob by its id; made by `Client.blob`, and found as `blob` of a message. Whether there is one is seen when it is read."""

    id: str
    _blobs: Blobs = field(eq=False, repr=False)

    async def read(self, *, bytes_max: int = READ_BYTES_MAX, timeout_s: float = TRANSFER_S) -> bytes:
        """Return all its bytes; a break on the way is followed by another request.

        Raises:
            ApiRefused: there is no such blob, or this party may not read it.
            BlobFailed: more than `bytes_max` bytes, not within `timeout_s` seconds, or not those of its digest.
            SessionGone: the session is over, and no node answers.
        """
        content = bytearray()
        with anyio.move_on_after(timeout_s):
            async with self.open(timeout_s=timeout_s) as stream:
                if stream.size > bytes_max:
                    raise BlobFailed("too_long", f"the blob has {stream.size} bytes, above {bytes_max}")
                async for piece in stream:
                    content += piece
            return bytes(content)
        raise BlobFailed("late", f"the blob was not read within {timeout_s:g} s")

    @asynccontextmanager
    async def open(
        self, start: int = 0, end: int | None = None, *, timeout_s: float = PIECE_S
    ) -> AsyncIterator["BlobStream"]:
        """Read its bytes from `start` to `end` (not included; None: all that follow) as they come, for the time of a block.

        `timeout_s` is for the head of the answer, and for each piece, over as many requests as it takes.

        Raises:
            ApiRefused: there is no such blob, or this party may not read it.
            BlobFailed: nothing in time; or, from the last piece of a whole blob, not the bytes of its digest.
            SessionGone: the session is over, and no node answers.
            ValueError: `start` or `end` are none; or the party was opened without `api`.
        """
        blobs = self._blobs
        blobs.check()
        async with AsyncExitStack() as stack:
            stream = BlobStream(blobs.api, target_of(self.id, blobs.session), Reading(start, end), stack, timeout_s)
            await stream.begin()
            yield stream

    async def delete(self) -> None:
        """Remove it, for all its readers. A worker may not.

        Raises:
            ApiRefused: there is no such blob, or this party may not remove it.
            SessionGone: the session is over, and no node answers.
        """
        await self._blobs.delete(self.id)


class BlobStream:
    """The bytes of a blob as they come; made by `RemoteBlob.open`. One reader."""

    def __init__(self, api: Api, target: str, reading: Reading, stack: AsyncExitStack, timeout_s: float) -> None:
        self._api = api
        self._target = target
        self._reading = reading
        self._stack = stack
        self._timeout_s = timeout_s
        self._tries = Tries(api.core)
        self._reply: Reply | None = None

    @property
    def size(self) -> int:
        """How many bytes the whole blob has."""
        return self._reading.size or 0

    @property
    def content_type(self) -> str:
        """As its sender gave it; `application/octet-stream` where there are no bytes."""
        return self._reading.content_type

    @property
    def position(self) -> int:
        """The place in the blob of the next byte."""
        return self._reading.position

    async def begin(self) -> None:
        """Wait for the head of the first answer."""
        with anyio.move_on_after(self._timeout_s):
            while self._reading.size is None:
                await self._ask()
            return
        raise self._late()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes.

        Raises:
            ApiRefused, BlobFailed, SessionGone: as `RemoteBlob.open`.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._reading.over:
            raise StopAsyncIteration
        with anyio.move_on_after(self._timeout_s):
            while True:
                if self._reply is None:
                    await self._ask()
                elif piece := await self._next(self._reply):
                    return piece
        raise self._late()

    def _late(self) -> BlobFailed:
        return BlobFailed("late", f"no byte of the blob within {self._timeout_s:g} s")

    async def _next(self, reply: Reply) -> bytes:
        """Return bytes of this answer; none when they are before those that are wanted, or when it breaks off."""
        try:
            data = await reply.piece()
        except NoAnswer:
            data = b""
        if not data:
            await self._drop()
            await anyio.sleep(self._tries.wait_s(None))
            return b""
        piece = self._reading.took(data)
        if piece:
            self._tries.advanced()
        return piece

    async def _drop(self) -> None:
        self._reply = None
        await self._stack.aclose()

    async def _ask(self) -> None:
        """Ask once; unless the answer brings the bytes, wait before the next try."""
        refusal: Answer | None = None
        with suppress(NoAnswer):
            refusal = await self._begin()
        if self._reply is None:
            await self._drop()
            await anyio.sleep(self._tries.wait_s(refusal))

    async def _begin(self) -> Answer | None:
        """Ask; keep the answer when it brings the bytes, and return it when it is a refusal of the node.

        Raises:
            NoAnswer: neither.
        """
        shown, reading = self._tries.begin(), self._reading
        reply = await self._asked(self._tries.url, self._target, shown)
        place = elsewhere(reply.status, reply.headers, self._tries.url)
        if place is not None:
            await self._drop()
            reply = await self._asked(*place, {})
        if reading.begin(reply.status, reply.headers):
            self._reply = reply
            return None
        answer = Answer(reply.status, reply.headers, await reply.read(_REFUSAL_BYTES_MAX))
        if answer.succeeded:
            raise not_signald(answer)
        if place is not None:
            raise NoAnswer("the signed URL is of no use any more")
        return answer

    async def _asked(self, url: str, target: str, shown: Mapping[str, str]) -> Reply:
        headers = {**shown, **self._reading.headers()}
        return await self._stack.enter_async_context(self._api.asked(url, "GET", target, headers))
