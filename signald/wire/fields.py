"""What the messages of `signald.v1` have in common: the two bases, and the fields that many of them have, each with its bound."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

NO_DATA = Raw()
"""The `data` of a frame that has none. Compared by identity."""

SEQ_MAX = 2**53 - 1  # the largest integer every JSON reader keeps exact

KIND_MAX, REASON_MAX = 64, 512
"""Characters of a `kind` and of a `reason`."""
NAME_MAX = 128
HISTORY_MAX = 1000

Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Position = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
Reason = Annotated[str, Meta(max_length=REASON_MAX)]


class Inbound(Struct, frozen=True, tag_field="type", gc=False):
    """Base of what a party sends."""


class Outbound(Struct, frozen=True, tag_field="type", omit_defaults=True, gc=False):
    """Base of what signald sends, other than `message`, `realtime` and `room_message`, which are spliced (see records)."""
