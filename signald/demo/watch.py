"""What the parties' connections say, noted beneath the SDK: dials, goaways, and answers to a resume.

Frames are timed where their bytes are read, because a busy process hands them on late and in any order. Even there a time is
only known within limits: what arrived while the event loop was busy is read in its next pass. So a moment is an interval, and of
two moments one is called the earlier only if it certainly was.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from signald.demo.carrier import lean_dial
from signald.demo.judge import Moment
from signald.sdk.party_records import DEFAULT_TIMING
from signald.sdk.trio import Carrier, Dial

_noteworthy = ('{"type":"goaway"', '{"type":"session_restored"', '{"type":"reconnection_ack"')

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


def watched_dial(passes: Passes, dialed: Callable[[], None], note: Note) -> Dial:
    """Return what opens connections for the SDK; every try is told to `dialed`, every noteworthy frame to `note`."""

    def heard(text: str) -> None:
        if text.startswith(_noteworthy):
            note(json.loads(text), passes.now())

    @asynccontextmanager
    async def dial(url: str) -> AsyncIterator[Carrier]:
        dialed()
        async with lean_dial(url, DEFAULT_TIMING, heard) as carrier:
            yield carrier

    return dial
