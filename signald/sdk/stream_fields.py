"""The fields of a message from `stream` on, and the check of them at the caller. No I/O."""

from typing import NamedTuple

from signald.sdk.values import check_text
from signald.wire.fields import SEQ_MAX
from signald.wire.messages import BLOB_MAX, STREAM_MAX, StreamError

OUTCOMES = ("complete", "failed", "cancelled", "interrupted")
"""How a stream can end."""


class Of(NamedTuple):
    """What a message is of a stream, and the blob that it names: the fields of `message` from `stream` on, in their order."""

    stream: str | None = None
    attempt: int | None = None
    fold: str | None = None
    content_type: str | None = None
    end: bool = False
    outcome: str | None = None
    error: StreamError | None = None
    blob: str | None = None

    def check(self, data: object) -> None:
        """Raise ValueError for what signald would refuse."""
        check_text("blob", self.blob, BLOB_MAX, 1)
        if self.stream is None:
            if self._replace(content_type=None, blob=None) != PLAIN:
                raise ValueError("`attempt`, `fold`, `end`, `outcome` and `error` need a `stream`")
            return
        check_text("stream", self.stream, STREAM_MAX, 1)
        if self.attempt is not None and not 1 <= self.attempt <= SEQ_MAX:
            raise ValueError("an `attempt` is 1 or more")
        if self.fold is not None and (self.fold != "text" or not isinstance(data, str)):
            raise ValueError("with `fold`, which is text, the data is a text")
        if isinstance(data, str) and self.fold is not None:
            check_text("data", data, len(data))
        if self.outcome is not None and (not self.end or self.outcome not in OUTCOMES):
            raise ValueError(f"an `outcome` goes with `end`, and is one of {', '.join(OUTCOMES)}")
        if self.error is not None and not self.end:
            raise ValueError("an `error` goes with `end`")


PLAIN = Of()
