"""The operations on the streams of a session, and their results. The pieces come with `Append`."""

from signald.core.callers import Access
from signald.core.streams import StreamView
from signald.store.base import Behind, Done, Fenced, Refused, Result, SessionOp, traits
from signald.store.session.ops import NoSession


class Streams(Result, frozen=True):
    """Streams in the order in which they began."""

    streams: tuple[StreamView, ...]


class NoStream(Result, frozen=True):
    """The session knows no such stream."""


@traits(damaged=NoSession())
class CancelStream(SessionOp[Done | NoStream | Refused | NoSession], frozen=True):
    """Ask the sender of a stream to end it. Wakes both nodes, the first time.

    The request is kept with the stream, with the `reason` of the first one. `Done` for a stream that is over as well: nothing has to
    happen. `Refused("access")` when `access` does not allow it.
    """

    way: str
    """`down` for a stream of the worker, `up` for one of the client."""
    stream: str
    reason: str
    access: Access
    node: str


@traits(reads=True, damaged=Streams(()))
class OpenStreams(SessionOp[Streams], frozen=True):
    """Read the streams that are open, and those that signald has ended; none when there is no session."""


@traits(damaged=Behind(0))
class CloseStreams(SessionOp[Streams | Fenced | Behind | NoSession], frozen=True):
    """End those of the worker's `streams` that it found open and has not spoken in, with `outcome`. Wakes the client's node.

    Answers as `OpenStreams`.
    """

    node: str
    epoch: int
    streams: tuple[str, ...]
    outcome: str
    now_ms: int
