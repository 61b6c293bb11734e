"""A stream that a worker says: pieces are rolled up, and its reader can ask for its end."""

from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import anyio.lowlevel

from signald.sdk.core import NEVER
from signald.sdk.errors import SessionGone, StreamOver
from signald.sdk.streams_core import RollUp

ERROR_CHARS = 200
"""Of what an exception says in the `error` of a stream that failed."""


class Says(Protocol):
    """What a stream needs of the session in which it is said."""

    @property
    def out_streams(self) -> dict[str, "OutStream"]:
        """The streams that are being said, by name."""

    @property
    def ended(self) -> str | None:
        """Why the session is over, or None."""

    @property
    def moving(self) -> bool:
        """True while the worker is on its way to another node."""

    @property
    def send(self) -> Callable[..., Awaitable[int]]:
        """Sends a message."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` for as long as the worker runs."""

    async def piece_said(self, out: "OutStream") -> None:
        """A piece of a stream has been said: the time to hand the session over, if the next worker can go on in it."""


class OutStream:
    """A text that grows; made by `WorkerSession.stream`. Leaving the block ends it: `complete`, or `failed` by an exception.

    When the handler is cancelled, because the session or the process goes, the stream stays open for the next worker.
    """

    def __init__(
        self,
        session: Says,
        stream: str,
        attempt: int,
        kind: str | None,
        window_s: float,
        said: str = "",
        *,
        goes_on: bool = False,
    ) -> None:
        self._session = session
        self.stream = stream
        """Its name in the session."""
        self.attempt = attempt
        self.said = said
        """What an earlier worker has said of it under this attempt: go on behind it."""
        self.goes_on = goes_on
        """The next worker can go on in it."""
        self._kind = kind
        self._roll_up = RollUp(window_s)
        self._news = anyio.Event()
        self._sending = anyio.Lock()
        self._over = False
        self.refused: str | None = None
        """The code by which signald has refused a piece; None while it has not."""
        self.cancelled = anyio.Event()
        """Set when the client has asked for the end of the stream."""
        self.reason = ""
        """Why it has."""

    async def write(self, text: str) -> None:
        """Say a piece. The first leaves at once; later ones with what gathers in a moment.

        Raises:
            SessionGone: the session has ended.
            StreamOver: the stream takes no more: it was ended, or another worker has begun a higher attempt.
            ValueError: as `send`.
        """
        self._check()
        self._roll_up.add(text)
        if self._roll_up.due <= anyio.current_time() or self._session.moving:
            await self.flush()
        else:
            await anyio.lowlevel.checkpoint()
            self._news.set()
        await self._session.piece_said(self)

    async def end(self, outcome: str = "complete", error: dict[str, str] | None = None) -> None:
        """Say what has gathered, and the end; `error` is {`code`, `message`}. A second end does nothing.

        Raises:
            SessionGone: the session has ended.
        """
        if self._over:
            return
        self._over = True
        self._news.set()
        async with self._sending:
            if self.refused is None:
                text = self._roll_up.take(anyio.current_time())
                await self._send(text, end=True, outcome=outcome, error=error)

    async def __aenter__(self) -> Self:
        self._session.out_streams[self.stream] = self
        self._session.spawn(self._run)
        await anyio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del traceback
        try:
            if kind is None:
                await self.end("cancelled" if self.cancelled.is_set() else "complete")
            elif isinstance(error, Exception) and not isinstance(error, SessionGone | StreamOver):
                await self.end("failed", {"code": "error", "message": type(error).__name__[:ERROR_CHARS]})
        finally:
            self._over = True
            self._news.set()
            self._session.out_streams.pop(self.stream, None)

    async def _run(self) -> None:
        """Send what gathers, until the end."""
        while not self._over and self.refused is None and self._session.ended is None:
            due = self._roll_up.due
            if due == NEVER:
                await self._news.wait()
                self._news = anyio.Event()
                continue
            await anyio.sleep_until(max(due, anyio.current_time()))
            try:
                await self.flush()
            except (SessionGone, StreamOver):
                return

    def gathered(self) -> str:
        """Return and forget what has gathered and was not sent."""
        return "" if self._over else self._roll_up.take(anyio.current_time())

    async def flush(self) -> None:
        """Send what has gathered.

        Raises:
            SessionGone: the session has ended.
        """
        async with self._sending:
            if self._over:  # since the wait for the lock; `end` says what has gathered
                return
            if text := self._roll_up.take(anyio.current_time()):
                await self._send(text)

    async def _send(self, text: str, **fields: Any) -> None:
        await self._session.send(text, **self.fields, **fields)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of each of its pieces."""
        return {"kind": self._kind, "stream": self.stream, "attempt": self.attempt, "fold": "text"}

    def _check(self) -> None:
        if self.refused is not None:
            raise StreamOver(self.refused)
        if self._over:
            raise StreamOver("stream_over")
