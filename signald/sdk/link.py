"""A connection as a party's core sees it. No I/O."""

from collections.abc import Callable
from typing import Literal

from signald.sdk.core import NEVER
from signald.sdk.writing import Frame
from signald.wire.messages import ErrorMessage, GoAway


class Link:
    """See the module."""

    __slots__ = (
        "changed",
        "control",
        "goaway",
        "heartbeat_s",
        "last_received_at",
        "listed",
        "moving",
        "opened_at",
        "pinged_at",
        "refusal",
        "retired_at",
        "rooms",
        "state",
        "token",
        "turned",
        "url",
    )

    def __init__(self, url: str, now: float, *, moving: bool, token: str | None) -> None:
        self.url = url
        self.state: Literal["opening", "current", "retiring", "closed"] = "opening"
        self.moving = moving
        """It was opened beside a living connection."""
        self.token = token
        """The recovery token shown on it."""
        self.control: list[Frame] = []
        """Frames that are written before any other; bounded by `CONTROL_MAX` (see `PartyCore.realtime`)."""
        self.changed: Callable[[], None] = lambda: None
        """A callback of the driver: `write` may have something."""
        self.turned: Callable[[], None] = lambda: None
        """A callback of the driver: `due` must be called again, because `state` changed."""
        self.opened_at = now
        self.last_received_at = now
        self.heartbeat_s = NEVER
        self.pinged_at: float | None = None
        self.retired_at = NEVER
        self.goaway: GoAway | None = None
        self.refusal: ErrorMessage | None = None
        """The last fatal error: it explains the close that follows."""
        self.listed: frozenset[str] = frozenset()
        """The sessions a worker's opening message named."""
        self.rooms: dict[str, frozenset[str]] = {}
        """The rooms that the opening message named, by session; "" is that of a client."""

    def __repr__(self) -> str:
        return f"Link({self.url}, {self.state})"
