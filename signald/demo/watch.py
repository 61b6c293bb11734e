"""What the parties' connections say, noted beneath the SDK: dials, goaways, and answers to a resume.

Frames are timed where their bytes are read, because a busy process hands them on late and in any order. Even there a time is
only known within limits: what arrived while the event loop was busy is read in its next pass. So a moment is an interval, and of
two moments one is called the earlier only if it certainly was.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from signald.demo.judge import Moment
from signald.sdk.core import Frame
from signald.sdk.trio import Carrier, Dial, DialFailed, Timing, over_stream

TIMING = Timing()

_noteworthy = re.compile(rb'\{"type":"(goaway|session_restored|reconnection_ack)"')
_openings = ('{"type":"goaway"', '{"type":"session_restored"', '{"type":"reconnection_ack"')

Note = Callable[[dict[str, Any], Moment], None]


class Passes(trio.abc.Instrument):
    """Knows when the event loop's current pass, and the one before it, came back from waiting for sockets."""

    def __init__(self) -> None:
        self._began_at = self._began_before_at = trio.current_time()

    def after_io_wait(self, _timeout: float) -> None:
        """A pass begins: everything that had arrived by now will be read in it."""
        self._began_before_at, self._began_at = self._began_at, trio.current_time()

    def now(self) -> Moment:
        """Return the moment at which what is being read now has arrived.

        Not before the pass before this one began, or it would have been read there: a task that is told of data reads
        it within the pass, and a task that was reading anyway may read data it was not told of yet.
        """
        return Moment(self._began_before_at, trio.current_time())


class _WatchedStream(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream, passes: Passes) -> None:
        self._stream = stream
        self._passes = passes
        self.heard: dict[str, Moment] = {}
        """When the last frame of each noteworthy type was read."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        for found in _noteworthy.finditer(data):
            self.heard[found[1].decode()] = self._passes.now()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _WatchedCarrier:
    def __init__(self, carrier: Carrier, stream: _WatchedStream, passes: Passes, note: Note) -> None:
        self._carrier = carrier
        self._stream = stream
        self._passes = passes
        self._note = note

    async def receive(self) -> str | bytes:
        message = await self._carrier.receive()
        if type(message) is str and message.startswith(_openings):
            said = json.loads(message)
            # A frame cut in its first bytes by a read is not found in the stream; then it was heard only now.
            self._note(said, self._stream.heard.pop(said["type"], self._passes.now()))
        return message

    async def send(self, frames: Sequence[Frame]) -> None:
        await self._carrier.send(frames)

    async def aclose(self, code: int, reason: str) -> None:
        await self._carrier.aclose(code, reason)

    def abort(self) -> None:
        self._carrier.abort()


def watched_dial(passes: Passes, dialed: Callable[[], None], note: Note) -> Dial:
    """Return what opens connections for the SDK; every try is told to `dialed`, every noteworthy frame to `note`."""

    @asynccontextmanager
    async def dial(url: str) -> AsyncIterator[Carrier]:
        dialed()
        parts = urlsplit(url)
        try:
            with trio.fail_after(TIMING.connect_s):
                tcp = await trio.open_tcp_stream(str(parts.hostname), int(parts.port or 80))
        except (OSError, trio.TooSlowError) as error:
            raise DialFailed(None, f"not reachable: {error}") from None
        stream = _WatchedStream(tcp, passes)
        async with over_stream(stream, url, TIMING) as carrier:
            yield _WatchedCarrier(carrier, stream, passes, note)

    return dial
