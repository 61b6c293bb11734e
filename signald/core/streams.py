"""Streams: runs of messages of one party that belong together. What a message is of its stream, and the rule of one stream.

    not known ──piece──▸ open ──piece with `end`──▸ over
                          │ a higher attempt takes the place of everything before it
                          └ an attempt below the highest one is refused (`stream_superseded`)

What is over takes nothing more, of whatever attempt (`stream_over`). The store judges, in the step that would append the piece, so
of two workers that speak in one stream the higher attempt holds.
"""

from enum import Enum
from typing import Final

import msgspec
from msgspec import Raw, Struct

from signald.wire import records, surrogates
from signald.wire.fields import SEQ_MAX
from signald.wire.messages import STREAM_MAX, Message, StreamError

COMPLETE: Final = "complete"
INTERRUPTED: Final = "interrupted"
OUTCOMES = frozenset({COMPLETE, "failed", "cancelled", INTERRUPTED})
"""How a stream can end."""

TEXT: Final = "text"
"""The one kind of `fold`: each `data` is a piece of one text."""


class Mark(Struct, frozen=True, gc=False):
    """What a message is of its stream."""

    stream: str
    attempt: int = 1
    fold: bytes | None = None
    """The piece of text: the inside of its JSON string, with its escapes and without the quotes. None: no text."""
    end: str = ""
    """The outcome, with the last piece; "" while the stream goes on."""
    kind: str = ""
    job: int = 0
    """The number of the job when `stream` is the id of a job of this session; 0: it is none."""
    error: bytes = b""
    """The `error` of the last piece, as JSON; empty for none."""


class StreamFault(Exception):
    """Fields of a message that do not go together. The text is safe to show to its sender."""


def is_piece(message: Message) -> bool:
    """Tell whether `message` says anything of a stream; `mark_of` then tells what, or what is wrong."""
    return (
        message.stream is not None
        or message.end
        or message.fold is not None
        or message.attempt is not None
        or message.outcome is not None
        or message.error is not None
    )


_text = msgspec.json.Decoder(str).decode
_json = msgspec.json.Encoder().encode


def mark_of(message: Message, binary: bytes | None, job: int = 0) -> Mark:
    """Return what `message` is of its stream. `job` is as in `Mark`.

    Raises:
        StreamFault: fields of it do not go together.
    """
    stream, attempt = message.stream, message.attempt
    if stream is None:
        raise StreamFault("`attempt`, `fold`, `end`, `outcome` and `error` need a `stream`")
    if not 0 < len(stream) <= STREAM_MAX:
        raise StreamFault(f"the name of a stream has 1 to {STREAM_MAX} characters")
    if attempt is not None and not 1 <= attempt <= SEQ_MAX:
        raise StreamFault("an `attempt` is 1 or more")
    if not message.end and (message.outcome is not None or message.error is not None):
        raise StreamFault("`outcome` and `error` belong to the last piece, which has `end`")
    if message.outcome is not None and message.outcome not in OUTCOMES:
        raise StreamFault("an `outcome` is complete, failed, cancelled or interrupted")
    return Mark(
        stream,
        attempt or 1,
        None if message.fold is None else _piece(message, binary),
        (message.outcome or COMPLETE) if message.end else "",
        message.kind or "",
        job,
        b"" if message.error is None else _json(message.error),
    )


def _piece(message: Message, binary: bytes | None) -> bytes:
    """Return the inside of the JSON string that `message` has as its data. Raises StreamFault."""
    if message.fold != TEXT:
        raise StreamFault("a `fold` is text")
    if binary is not None:
        raise StreamFault("binary data is no piece of a text")
    data = bytes(message.data).strip()
    try:
        _text(data)
    except msgspec.ValidationError:
        raise StreamFault("with `fold`, `data` is a JSON string") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Joined with the piece behind it, half of a pair would be a character or an error: no piece may depend on that.
        raise StreamFault(surrogates.IN_TEXT) from None
    return data[1:-1]


class _Kept(Struct, gc=False):
    """What a kept body says of a stream."""

    seq: int
    stream: str
    attempt: int = 1
    fold: str | None = None
    end: bool = False
    outcome: str | None = None
    kind: str | None = None
    error: StreamError | None = None
    data: Raw = Raw()


_kept: msgspec.json.Decoder[_Kept] = msgspec.json.Decoder(_Kept)


def mark_of_body(body: bytes, job: int = 0) -> Mark | None:
    """Return what a kept message is of its stream; None when it is of none, or is not what a node has made."""
    if b'"stream":' not in body:
        return None
    text, binary = records.parts(body)
    halves = surrogates.mark(text)
    try:
        kept = _kept.decode(text) if halves is None else halves.decode(_kept)
        of = Message(
            kept.seq,
            kept.data,
            kind=kept.kind,
            stream=kept.stream,
            attempt=kept.attempt,
            fold=kept.fold,
            end=kept.end,
            outcome=kept.outcome,
            error=kept.error,
        )
        return mark_of(of, binary, job)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, StreamFault):
        return None


class StreamView(Struct, frozen=True, gc=False):
    """What the store shows of a stream."""

    way: str
    """`up` for a stream of the client, `down` for one of the worker."""
    stream: str
    attempt: int
    """The highest one that is stored."""
    outcome: str = ""
    """"": it is open."""
    kind: str = ""
    cancel: bool = False
    """Its sender was asked to end it."""
    reason: str = ""
    """Why, by the word of the first request."""
    last: int = 0
    """The seq of its last piece."""
    found: bool = False
    """The worker of the session found it open, and has not spoken in it."""
    by_signald: bool = False
    """signald has ended it: no message tells its end."""
    job: int = 0
    """The number of its job; 0: of none."""


# --- the rule of one stream ---------------------------------------------------------------------------------------


class Stage(Enum):
    """How far a stream is."""

    UNKNOWN = "not known"
    OPEN = "open"
    OVER = "over"


class Rank(Enum):
    """The attempt of a piece, beside the highest one that is stored."""

    LOWER = "lower"
    SAME = "the same"
    HIGHER = "higher"


class Verdict(Enum):
    """What becomes of a piece."""

    BEGINS = "it begins the stream"
    GOES_ON = "it belongs behind what is stored"
    BEGINS_ANEW = "it takes the place of what is stored of lower attempts"
    SUPERSEDED = "stream_superseded"
    OVER = "stream_over"


STREAM: dict[tuple[Stage, Rank], Verdict] = {
    (Stage.UNKNOWN, Rank.HIGHER): Verdict.BEGINS,
    (Stage.OPEN, Rank.LOWER): Verdict.SUPERSEDED,
    (Stage.OPEN, Rank.SAME): Verdict.GOES_ON,
    (Stage.OPEN, Rank.HIGHER): Verdict.BEGINS_ANEW,
    (Stage.OVER, Rank.LOWER): Verdict.OVER,
    (Stage.OVER, Rank.SAME): Verdict.OVER,
    (Stage.OVER, Rank.HIGHER): Verdict.OVER,
}
"""Of a stream that is not known every attempt is higher than none."""

REFUSALS = {Verdict.SUPERSEDED: "stream_superseded", Verdict.OVER: "stream_over"}
"""The codes of the error that answers a piece which is not stored."""


def judge(attempt: int, *, highest: int, outcome: str) -> Verdict:
    """Judge a piece of `attempt` for a stream with the `highest` attempt (0: not known) and `outcome` ("": open)."""
    stage = Stage.UNKNOWN if not highest else Stage.OVER if outcome else Stage.OPEN
    rank = Rank.HIGHER if attempt > highest else Rank.SAME if attempt == highest else Rank.LOWER
    return STREAM[stage, rank]
