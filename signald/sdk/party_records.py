"""The records that a party's core and its driver share: how long to wait, the next connection, and the end. No I/O."""

from typing import NamedTuple

from attrs import frozen

DEADLINE_MAX_S = 86_400.0
"""A day: longer than any node takes to go."""


@frozen
class Timing:
    """How long the SDK waits for others, in seconds."""

    connect_s: float = 5.0
    """TCP, TLS and the WebSocket handshake together."""
    answer_s: float = 10.0
    """The answer to the opening message: above signald's own 5 s, so that its refusal is heard first."""
    pong_timeout_s: float = 10.0
    """Silence after an unanswered ping before the connection counts as dead."""
    write_s: float = 10.0
    close_s: float = 2.0
    retire_s: float = 10.0
    """How long a left connection may stay open for signald to close it."""


DEFAULT_TIMING = Timing()


class Attempt(NamedTuple):
    """A connection to be opened."""

    at: float
    url: str


class Over(NamedTuple):
    """Why the party's life ended."""

    code: int | None
    reason: str
    orderly: bool
    """It ended as sessions are meant to: by `bye`, or by a terminated or leaving worker."""
