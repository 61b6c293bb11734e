"""The bounds of one session at a party, and the pace at which a client sends. No I/O."""

from typing import NamedTuple

from signald.bucket import TokenBucket
from signald.wire.messages import JSON_DEPTH

FRAME_BYTES_MAX = 20 * 1024 * 1024
"""The longest frame of signald is a message of 16 MiB (the highest limit of a node), a chat history, or the answer to a worker with a
hundred thousand sessions; and the head of each."""


class Bounds(NamedTuple):
    """How much one session may hold."""

    unacked_messages_max: int = 1000
    unacked_bytes_max: int = 4 * 1024 * 1024
    inbox_messages_max: int = 4096
    """Above it the driver stops reading the connection until the application catches up. signald's own bound on
    unacked messages (1,000) is far below, so only a service with another configuration ever meets it."""
    message_bytes_max: int = 65536
    """Until the service says its own; so is `json_depth_max`."""
    pause_s: float = 0.5
    """The pause after a refusal that names no `retry_after_ms`."""
    json_depth_max: int = JSON_DEPTH
    inbox_bytes_max: int = 16 * 1024 * 1024
    """As `inbox_messages_max`: far above what signald lets wait (1 MiB), and what one hostile service can make a session hold."""


DEFAULT_BOUNDS = Bounds()


WAIT_MIN_S = 1e-6
"""Below what a timer keeps to, and well above what a clock that has run for ten years can tell apart."""


class Pace:
    """Keeps a party within the message rate that the service named, so that no message is refused for it and sent twice.

    The rate is a little below the limit, because messages that leave evenly may arrive in bunches.
    """

    __slots__ = ("_bucket", "_burst", "_per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = max(per_s * 0.95, 0.001)
        self._burst = max(1.0, burst * 0.9)
        self._bucket: TokenBucket | None = None
        """None until the first message of a connection."""

    def reset(self) -> None:
        """Begin a new connection, with a whole burst."""
        self._bucket = None

    def take(self, now: float) -> float:
        """Take the place of one message and return 0; or return how long to wait for it, in seconds."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = TokenBucket(self._per_s, self._burst, now)
        elif now > bucket.at:
            bucket.refill(now)
        # The wait that rounding leaves may be too short to reach a later time: the driver would wake in the same moment for ever.
        return 0.0 if bucket.take() else max(bucket.wait_s, WAIT_MIN_S)
