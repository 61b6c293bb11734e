"""Streams as a party holds them: the pieces that a worker rolls up, and the texts that a client sees grow. No I/O.

Of each (stream, attempt) a client shows at any time a prefix of what the worker has said, and all of it after the end: pieces come
once and in order, also over resumes, and a higher attempt begins anew.
"""

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from signald.sdk.core import NEVER
from signald.wire.messages import Message, StreamState

ROLL_UP_S = 0.04
"""How long pieces gather: 25 messages a second for each stream, which no reader sees as steps."""

ROLL_UP_CHARS = 4096
"""Pieces of so many characters leave at once: a fast sender needs no timer."""

STREAMS_MAX = 256
"""Texts of streams that are kept; the oldest that is over is forgotten, as signald does."""


@frozen
class StreamRefused:
    """A piece was refused: the stream takes no more (`stream_over`), or another attempt has begun (`stream_superseded`)."""

    stream: str
    code: str


@frozen
class CancelRequested:
    """The client asks for the end of a stream."""

    stream: str
    reason: str = ""


@frozen
class FoundStream:
    """A stream of an earlier worker that is open: go on in it with `attempt` + 1, saying all anew, or end it."""

    stream: str
    attempt: int
    kind: str | None = None
    text: str | None = None
    """What is kept of it; None for a stream without a text."""
    truncated: bool = False
    """Something is missing in front of `text`."""
    cancelled: bool = False
    """The client has asked for its end."""
    reason: str = ""


class RollUp:
    """Gathers pieces of one text: the first leaves at once, and then what has gathered in a window."""

    __slots__ = ("_chars", "_gathered", "_quiet_until", "_window_s")

    def __init__(self, window_s: float = ROLL_UP_S) -> None:
        self._window_s = window_s
        self._gathered: list[str] = []
        self._chars = 0
        self._quiet_until = -NEVER

    def add(self, text: str) -> None:
        """Take a piece; an empty one is nothing."""
        if text:
            self._gathered.append(text)
            self._chars += len(text)

    @property
    def due(self) -> float:
        """When what has gathered is to leave; NEVER when there is nothing."""
        if not self._gathered:
            return NEVER
        return -NEVER if self._chars >= ROLL_UP_CHARS else self._quiet_until

    def take(self, now: float) -> str:
        """Return what has gathered, which leaves now."""
        text = "".join(self._gathered)
        self._gathered.clear()
        self._chars = 0
        self._quiet_until = now + self._window_s
        return text


@frozen
class StreamText:
    """A stream of the worker as its client sees it at one moment."""

    stream: str
    attempt: int
    text: str = ""
    outcome: str | None = None
    """`complete`, `failed`, `cancelled` or `interrupted`; None while it goes on."""
    kind: str | None = None
    truncated: bool = False
    """Something is missing in front of `text`."""
    seq: int = 0
    """The last piece that is in it."""

    @property
    def open(self) -> bool:
        """True while it goes on."""
        return self.outcome is None


class StreamTexts:
    """The streams of a client's worker, by name."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[str, StreamText] = {}

    def all(self) -> dict[str, StreamText]:
        """Return all of them, in the order in which they began."""
        return dict(self._texts)

    def message(self, message: Message, text: str | None) -> StreamText | None:
        """Take a message in its turn; `text` is its data if that is one. Returns what has changed, or None."""
        if message.stream is None:
            return None
        known, attempt = self._texts.get(message.stream), message.attempt or 1
        if known is not None and (message.seq <= known.seq or attempt < known.attempt):
            return None
        if known is None or attempt > known.attempt:
            known = StreamText(message.stream, attempt, kind=message.kind or (known.kind if known else None))
        if message.fold is not None and text is not None:
            known = evolve(known, text=known.text + text)
        outcome = (message.outcome or "complete") if message.end else None
        return self._keep(evolve(known, seq=message.seq, outcome=outcome, kind=message.kind or known.kind))

    def entry(self, entry: Mapping[str, Any]) -> StreamText | None:
        """Take an entry of the chat history, which may be ahead of the messages."""
        stream, text = entry.get("stream"), entry.get("data")
        if entry.get("from") != "worker" or not isinstance(stream, str) or not isinstance(text, str):
            return None
        seq, attempt, truncated = int(entry["seq"]), int(entry.get("attempt", 1)), bool(entry.get("truncated"))
        known = self._texts.get(stream)
        if known is not None and (seq <= known.seq and not (entry.get("outcome") and known.open)):
            return None
        if known is not None and truncated and attempt == known.attempt:
            return None  # the messages to come bring the rest, and nothing is lost in front
        return self._keep(StreamText(stream, attempt, text, entry.get("outcome"), entry.get("kind"), truncated, seq))

    def state(self, state: StreamState) -> StreamText | None:
        """Take the end that signald has made of a stream."""
        known = self._texts.get(state.stream) or StreamText(state.stream, state.attempt)
        return self._keep(evolve(known, outcome=state.outcome)) if known.open else None

    def end(self) -> list[StreamText]:
        """The session is over: what is open is interrupted."""
        return [self._keep(evolve(each, outcome="interrupted")) for each in self.all().values() if each.open]

    def _keep(self, text: StreamText) -> StreamText:
        if text.stream not in self._texts and len(self._texts) >= STREAMS_MAX:
            over = next((name for name, each in self._texts.items() if not each.open), next(iter(self._texts)))
            del self._texts[over]
        self._texts[text.stream] = text
        return text
