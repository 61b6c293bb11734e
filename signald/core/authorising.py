"""What the core server is asked of a new party, and what it answers: bounded, and without trust in either side.

A question is JSON that holds all that the answer may depend on, so its bytes are the key by which an answer is remembered. Only a
later question about the same session names the session, which no answer can depend on.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.wire.codec import too_deep
from signald.wire.fields import REASON_MAX, SEQ_MAX
from signald.wire.messages import LABELS_MAX, SETTINGS_BYTES_MAX, Labels

ANSWER_BYTES_MAX = 131_072
"""Longest body of an answer: settings and rooms of 32 KiB each, 32 labels twice, and the JSON around them."""

ROOMS_BYTES_MAX = 32_768
"""Of `rooms` in an answer: a few hundred patterns."""

CACHE_BYTES_MAX = 16_777_216
"""Of all answers that are remembered: ten thousand with settings of 1.5 KiB."""

TTL_MAX_MS = 30 * 86_400_000
"""Longest time that an answer counts for; a longer `ttl_ms` means this. A month outlives every session in practice."""

FOREVER = SEQ_MAX
"""`asked_until_ms` of a session whose answer had no `ttl_ms`: it counts for the whole session."""

_ENTRY_BYTES = 512
"""What an answer in the cache takes beside its JSON."""


class BadAnswer(ValueError):
    """The body is no answer. The text says why, in words that hold nothing of it."""


class Question(Struct, frozen=True, omit_defaults=True):
    """What is asked of one party."""

    role: str
    subject: str
    claims: Raw
    remote: str
    want: dict[str, str]
    meta: Raw | None = None
    labels: dict[str, str] | UnsetType = UNSET
    """Of a worker."""
    session: str | UnsetType = UNSET
    """Of a party that is let in already."""

    def body(self) -> bytes:
        """Return the body of the request."""
        return msgspec.json.encode(self)

    def key(self) -> bytes:
        """Return what an answer is remembered by: a digest of all that it may depend on."""
        return hashlib.sha256(msgspec.structs.replace(self, session=UNSET).body()).digest()


def claims_json(claims: Mapping[str, Any]) -> Raw:
    """Return the claims of a token as JSON. A claim that JSON cannot say (NaN, or nested beyond all bounds) is left out."""
    said = {}
    for name, value in claims.items():
        try:
            said[name] = Raw(json.dumps(value, allow_nan=False, separators=(",", ":")).encode())
        except (ValueError, TypeError, RecursionError):
            continue
    names = [json.dumps(name).encode() + b":" + bytes(value) for name, value in said.items()]
    return Raw(b"{" + b",".join(names) + b"}")


class _Answer(Struct, frozen=True):
    allow: bool
    reason: str | None = None
    settings: Raw = Raw()
    want: Labels | None = None
    labels: Labels | None = None
    rooms: dict[str, list[str]] | None = None
    ttl_ms: Annotated[int, Meta(ge=0)] | None = None


class Grant(Struct, frozen=True):
    """An answer: whether the party is let in, and what goes with it."""

    allow: bool
    reason: str = ""
    """Why not; shown to the party."""
    settings: bytes = b""
    """JSON for the client and its worker; empty for none."""
    want: dict[str, str] = {}
    """Merged over what a client wants of its worker."""
    labels: dict[str, str] = {}
    """Merged over the labels of a worker."""
    rooms: bytes = b""
    """JSON: pattern → rights; empty for none."""
    ttl_ms: int | None = None
    """How long the answer counts; None: for the whole session, and for no other party."""

    def until_ms(self, now_ms: int) -> int:
        """Return until when the answer counts, of one that came at `now_ms`."""
        return FOREVER if self.ttl_ms is None else now_ms + self.ttl_ms

    @property
    def size(self) -> int:
        """How many bytes the answer takes in memory, about."""
        texts = [text for labels in (self.want, self.labels) for pair in labels.items() for text in pair]
        return _ENTRY_BYTES + len(self.settings) + len(self.rooms) + len(self.reason) + sum(map(len, texts))


_decoder = msgspec.json.Decoder(_Answer)
_value_decoder = msgspec.json.Decoder()


def read_answer(body: bytes, question: Question, depth_max: int) -> Grant:
    """Return the answer to `question` that `body` holds. Unknown fields are passed over. Raises BadAnswer.

    `depth_max` is what a message may be nested: the message to a worker has the settings one level deeper than the answer.
    """
    if too_deep(body, depth_max - 1):
        raise BadAnswer(f"the answer is nested deeper than {depth_max - 1}")
    try:
        answer = _decoder.decode(body)
        settings = bytes(answer.settings)
        settings = b"" if settings == b"null" else settings
        _value_decoder.decode(settings or b"null")  # what no reader of the other side can read reaches no party
    except msgspec.ValidationError as error:
        # msgspec names the field and the expected type, never the value.
        raise BadAnswer(f"the answer is another object: {error}"[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadAnswer("the answer is not JSON") from None
    rooms = b"" if answer.rooms is None else msgspec.json.encode(answer.rooms)
    want, labels = answer.want or {}, answer.labels or {}
    if len(settings) > SETTINGS_BYTES_MAX:
        raise BadAnswer(f"its settings have more than {SETTINGS_BYTES_MAX} bytes")
    if len(rooms) > ROOMS_BYTES_MAX:
        raise BadAnswer(f"its rooms have more than {ROOMS_BYTES_MAX} bytes")
    offered = question.labels if question.labels is not UNSET else {}
    if len({**question.want, **want}) > LABELS_MAX or len({**offered, **labels}) > LABELS_MAX:
        raise BadAnswer(f"with its labels there are more than {LABELS_MAX}")
    ttl_ms = None if answer.ttl_ms is None else min(answer.ttl_ms, TTL_MAX_MS)
    reason = (answer.reason or "")[:REASON_MAX]
    return Grant(answer.allow, reason, settings, want, labels, rooms, ttl_ms)


class Answers:
    """Answers that still count, by the key of their question. Bounded in number and bytes; the least recently used goes first."""

    def __init__(self, answers_max: int) -> None:
        """Remember at most `answers_max`."""
        self._answers_max = answers_max
        self._kept: OrderedDict[bytes, tuple[Grant, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, now: float) -> Grant | None:
        """Return the answer that counts at `now`, in seconds of a clock that never goes back."""
        found = self._kept.get(key)
        if found is None:
            return None
        grant, until = found
        if now >= until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return grant

    def keep(self, key: bytes, grant: Grant, now: float) -> None:
        """Remember an answer for its `ttl_ms`; an answer without it is not kept."""
        self._drop(key)
        if not grant.ttl_ms:
            return
        self._kept[key] = grant, now + grant.ttl_ms / 1000
        self.bytes += grant.size
        while len(self._kept) > self._answers_max or self.bytes > CACHE_BYTES_MAX:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self.bytes -= found[0].size
