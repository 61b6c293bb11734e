"""What no message tells of the streams of a session: requests to end one, ends that signald makes, streams that a worker finds open.

The store keeps all of it, and the head of the session grows with each change. A node that sees it grow reads the streams (`look`)
and tells the parties that are attached here, each stream once on each connection. Telling something twice does no harm, so a resume
tells it again.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from math import inf

from signald.core.callers import Access
from signald.core.streams import INTERRUPTED, REFUSALS, StreamView
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.service.events import StreamCancelled, StreamsInterrupted
from signald.service.relay import Relay
from signald.service.seats import Seat
from signald.store.base import Result
from signald.store.session.ops import NoSession
from signald.store.session.streams.ops import CancelStream, CloseStreams, OpenStreams, Streams

CANCELS_MAX = 64
"""Requests of one client that wait for the store: one for each stream that may be open. A further one is passed over, and may be
repeated."""


class StreamCare:
    """See the module."""

    def __init__(self, context: Context, relay: Relay, sessions: Mapping[str, LiveSession]) -> None:
        """`sessions` are those with a party attached here."""
        self._context = context
        self._relay = relay
        self._sessions = sessions
        self._cancelling: dict[str, dict[str, str]] = {}
        """Session → the requests of its client that wait for the store: stream → reason. The first one is under way."""
        self._behind: dict[str, LiveSession] = {}
        """Sessions whose client has not been sent all messages of a stream that signald has ended."""
        self.interrupted = 0
        """Streams that this node has ended, because the worker that found them open did not speak in them."""
        self.cancels = 0
        """Requests of clients here to end a stream."""

    @property
    def refused(self) -> Counter[str]:
        """Pieces refused here, by the code of the error."""
        return self._relay.refused

    @property
    def open(self) -> int:
        """Streams of workers here that are open, as far as this node knows."""
        return sum([len(session.worker.streams) for session in self._sessions.values() if session.worker.is_here])

    # --- requests ---------------------------------------------------------------------------------------------------

    def cancel(self, session: LiveSession, stream: str, reason: str) -> None:
        """The client here asks the worker to end `stream`."""
        waiting = self._cancelling.setdefault(session.id, {})
        if stream in waiting or len(waiting) >= CANCELS_MAX:
            return
        waiting[stream] = reason
        self.cancels += 1
        if len(waiting) == 1:
            self._cancel_next(session, waiting)

    def _cancel_next(self, session: LiveSession, waiting: dict[str, str]) -> None:
        stream, reason = next(iter(waiting.items()))
        op = CancelStream(session.id, "down", stream, reason, Access(owner=session.principal), self._context.node)
        self._context.committer.submit(op, partial(self._cancelled, session, stream))

    def _cancelled(self, session: LiveSession, stream: str, result: Result) -> None:
        waiting = self._cancelling[session.id]
        del waiting[stream]
        if isinstance(result, NoSession):
            self._context.inboxes.doubts.session_missing(session)
        self._context.events.emit(StreamCancelled(session.id, stream))
        self.look(session)
        if waiting:
            self._cancel_next(session, waiting)
        else:
            del self._cancelling[session.id]

    async def cancel_for(self, session: str, stream: str, reason: str, access: Access) -> Result:
        """Ask the worker of `session` to end `stream`, for a caller with `access`; returns what `CancelStream` answers.

        Raises StoreUnavailable.
        """
        result = await self._context.committer.call(
            CancelStream(session, "down", stream, reason, access, self._context.node)
        )
        self._context.events.emit(StreamCancelled(session, stream))
        here = self._sessions.get(session)
        if here is not None:
            self.look(here)
        return result

    # --- news -------------------------------------------------------------------------------------------------------

    def look(self, session: LiveSession) -> None:
        """Read the streams of `session` again, and tell its parties here."""
        if session.local and session.stream_looks.begin():
            self._context.committer.submit(OpenStreams(session.id), partial(self._looked, session))

    def _looked(self, session: LiveSession, result: Result) -> None:
        again = session.stream_looks.end()
        if isinstance(result, Streams):
            self.tell(session, result.streams)
        if again:
            self.look(session)

    def tell(self, session: LiveSession, views: tuple[StreamView, ...]) -> None:
        """Tell the parties here what is new of `views`: the client behind all messages of the stream."""
        client, worker = session.client, session.worker
        for view in views:
            if view.way != "down":
                continue
            if client.link is not None and view.by_signald and view.stream not in client.told:
                if client.sent < view.last:
                    self._behind[session.id] = session
                    continue
                client.told.add(view.stream)
                client.link.stream_state(view.stream, view.attempt, view.outcome)
            if not view.cancel or view.outcome or worker.link is None or view.stream in worker.told:
                continue
            if worker.link.delivering(session):
                worker.told.add(view.stream)
                worker.link.stream_cancel(session.id, view.stream, view.reason)

    # --- streams that a worker finds open ---------------------------------------------------------------------------

    def found(self, seat: Seat, views: tuple[StreamView, ...]) -> None:
        """The worker of `seat` finds these streams; it has not spoken in some of them."""
        seat.session.worker.streams = {view.stream for view in views if view.way == "down" and not view.outcome}
        seat.found = tuple([view.stream for view in views if view.found and not view.outcome])

    def begin(self, seat: Seat, now: float) -> None:
        """From `now` on (trio time) the worker may speak in the streams that it has found: it has the session."""
        if seat.found:
            seat.adopts_until = now + self._context.config.worker.adopt_streams_s

    def tick(self, seats: list[Seat], now: float) -> None:
        """End the streams in which no worker has spoken in time, and tell clients that were behind."""
        for seat in seats:
            if seat.adopts_until <= now:
                seat.adopts_until = inf
                self._close(seat.session, seat.found)
        behind, self._behind = self._behind, {}
        for session in behind.values():
            self.look(session)

    def _close(self, session: LiveSession, streams: tuple[str, ...]) -> None:
        context = self._context
        op = CloseStreams(session.id, context.node, session.worker.epoch, streams, INTERRUPTED, context.now_ms())
        context.committer.submit(op, partial(self._closed, session, streams))

    def _closed(self, session: LiveSession, streams: tuple[str, ...], result: Result) -> None:
        if not isinstance(result, Streams):
            self._relay.look(session)  # it tells whether the store has lost the claim, or another node has it
            return
        closed = tuple([view.stream for view in result.streams if view.by_signald and view.stream in streams])
        session.worker.streams.difference_update(closed)
        if closed:
            self.interrupted += len(closed)
            self._context.events.emit(StreamsInterrupted(session.id, closed))
        self._relay.look(session)
        self.tell(session, result.streams)


CODES = tuple(REFUSALS.values())
"""The codes by which refused pieces are counted."""
