"""A WebSocket after its handshake: batches in, batches out, and one way to end.

A connection has one reader, the caller of `receive`, and at most one writer. Sending is synchronous: `send_text` queues,
`flush` writes everything queued with one system call. Only when the socket does not take it all does a writer task
appear, and it goes when the rest is out. So an idle connection costs one task, the reader's, and a busy one costs no
task switch, lock, event, timer or log line per message.

How it ends. Everything ends in `_over`, once: `closed` is set, the TCP is closed, waiters wake.

    close(code)      our Close goes out behind what is queued; over when the peer answers, at the latest after `close_s`
    peer's Close     ours goes out behind what is queued; over when it is written, at the latest after `close_s`
    _fail(code)      the peer broke a rule: our Close, then FIN; over when the peer has hung up, at the latest after
                     `linger_s`. Its further bytes are read and discarded, because closing a socket with unread
                     bytes resets it, and the peer may then lose our Close.
    abort, lost      over at once; nothing can be said any more

A deadline is kept by a task of its own (`_see_it_closed`), which exists only while an end is in progress, because the
reader may be busy elsewhere. A write that is cut, by cancellation or deadline, may have left half a frame on the wire:
the TCP is then reset, never reused.

Each Ping is answered, those of one read with one write, and none after our Close. RFC 6455 5.5.3 would allow to answer
only the latest; there are peers that count.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NoReturn, cast

import structlog
import trio

from signald.net import frames
from signald.net.compression import Deflater, Inflater
from signald.net.ending import LOST, NO_CODE, CloseInfo, ConnectionClosed
from signald.net.frames import Close, FrameDecoder, Message, ProtocolError
from signald.net.handshake import Handshake
from signald.net.liveness import Liveness, Verdict
from signald.net.poller import Spawn
from signald.net.pump import Pump
from signald.net.queues import SendQueues
from signald.net.settings import NetSettings
from signald.net.transport import GONE, SocketTransport, Transport
from signald.pauses import Pauses
from signald.tally import Traffic
from signald.wire.close_codes import CloseCode

log = structlog.get_logger("signald.net")


class Connection:
    """See the module.

    Invariants: nothing is queued behind a Close; `queued_bytes` is what is queued and not yet taken by the transport;
    only the writer task writes while `_writing`; `closed` is set once and the transport is closed with it.
    """

    __slots__ = (
        "__weakref__",
        "_chunk",
        "_chunk_messages",
        "_closed_event",
        "_controls",
        "_deadline",
        "_decoder",
        "_deflater",
        "_early",
        "_ending",
        "_failing",
        "_last_word",
        "_liveness",
        "_pauses",
        "_peer_closed",
        "_pump",
        "_queue",
        "_queues",
        "_reading",
        "_said",
        "_settings",
        "_spawn",
        "_traffic",
        "_transport",
        "_was_full",
        "_writing",
        "bearer",
        "closed",
        "deflates_for_many",
        "id",
        "last_received_at",
        "on_heard",
        "on_proof",
        "on_room",
        "on_unsaid",
        "opened_at",
        "path",
        "queued_bytes",
        "queued_messages",
        "remote",
        "route",
        "shared",
        "subprotocol",
        "takes_late",
    )

    bearer: str | None
    """The credential shown at the handshake; set to None when it was checked."""
    queued_messages: int
    """Messages of which something is still queued; those written as one chunk leave the count together."""
    on_heard: Callable[[int, list[Message]], None] | None
    """Called with each read: the bytes of a message that is not complete, and the messages that are."""
    on_proof: Callable[[bytes | None], None] | None
    """Called when the peer has read what was sent before: with the payload of a Pong, or None when it has answered our Close."""
    takes_late: bool
    """Messages that arrive behind our own Close are handed out all the same: the peer has no ack to tell it that they are lost."""
    on_room: Callable[[], None] | None
    """Called when a queue that was full has fallen to half. Only the writer task calls it, never a `send_...` or
    `flush`, so it may send; what it raises ends the connection with 1011."""
    on_unsaid: Callable[[], None] | None
    """Called when the connection was lost before anything of what was queued has left: the peer has heard nothing of it.
    It may be called before or after a reader learns of the end."""

    def __init__(
        self,
        transport: Transport,
        handshake: Handshake,
        *,
        id: int,  # noqa: A002
        remote: str,
        settings: NetSettings,
        spawn: Spawn,
        traffic: Traffic | None = None,
        shared: bool = False,
        pauses: Pauses | None = None,
        queues: SendQueues | None = None,
        inflater: Inflater | None = None,
        deflater: Deflater | None = None,
        deflates_for_many: Deflater | None = None,
    ) -> None:
        """Take over `transport` behind `handshake`; `id` is unique on this node. Bytes are counted in `traffic`.

        A `shared` remote address is that of a trusted proxy, behind which there are many parties. The peer is not charged for
        `pauses` of this process. While a write waits, its queue counts in `queues`. With an `inflater` and a `deflater` messages
        may be deflated; `deflates_for_many` is shared by connections that have agreed on the same.
        """
        now = trio.current_time()
        self.id = id
        self.path = handshake.path
        self.route = handshake.route
        """The route of its endpoint: the path, or the pattern that it fits."""
        self.subprotocol = handshake.subprotocol
        self.bearer = handshake.bearer
        self.remote = remote
        self.shared = shared
        self.opened_at = self.last_received_at = now
        self.queued_bytes = 0
        self.queued_messages = 0
        self.on_heard = self.on_proof = self.on_room = self.on_unsaid = None
        self.takes_late = False
        self.closed: CloseInfo | None = None
        self._pauses = pauses if pauses is not None else Pauses()
        self._liveness = Liveness(settings, self._pauses, now)
        self._settings = settings
        self._spawn = spawn
        self._transport = transport
        self._traffic = traffic if traffic is not None else Traffic()
        self._decoder = FrameDecoder(
            message_bytes_max=settings.endpoints[handshake.route].message_bytes_max or settings.message_bytes_max,
            fragments_max=settings.fragments_max,
            inflater=inflater,
        )
        self._deflater = deflater
        self.deflates_for_many = deflates_for_many
        """Makes the frames for `send_frames`; None: they are plain."""
        self._early = handshake.remainder
        self._queues = queues if queues is not None else SendQueues(2 * settings.send_queue_bytes_max)
        self._queue: list[bytes] = []
        self._chunk = memoryview(b"")  # what the writer task is writing; may begin inside a frame
        self._chunk_messages = 0
        self._reading = self._writing = self._was_full = self._said = False
        self._controls = 0
        self._ending: CloseInfo | None = None
        self._failing = False
        self._last_word: Close | ProtocolError | None = None  # came behind messages that are being handled
        self._peer_closed = False
        self._deadline = 0.0
        self._closed_event: trio.Event | None = None
        self._pump: Pump | None = None

    def __repr__(self) -> str:
        """Name the connection and its state; nothing that the peer has sent."""
        info = self.closed or self._ending
        state = "open" if info is None else f"{'closed' if self.closed else 'closing'} {info.code}"
        return f"<Connection {self.id} {self.route} {state} queued={self.queued_bytes}B>"

    @property
    def closing(self) -> bool:
        """True once an end has begun: what is sent from here on is thrown away."""
        return self._ending is not None

    @property
    def room(self) -> bool:
        """True while the send queue is below both of its bounds."""
        return (
            self.queued_bytes < self._settings.send_queue_bytes_max
            and self.queued_messages < self._settings.send_queue_messages_max
        )

    # ---- receiving

    async def receive(self) -> list[Message]:
        """Return every data message that one read yielded, at least one, and write what is queued before waiting.

        Control frames are handled inside. Messages that arrive after an end has begun on our side are thrown away, unless
        `takes_late`: they were not acked, so their sender still has them. Raises ConnectionClosed once the connection is over.
        Only one task may receive.
        """
        if self._queue:
            self.flush()
        if self._last_word is not None:
            self._heed_last_word()
        while self.closed is None:
            if self._early:
                data, self._early = self._early, b""
            else:
                self._reading = True
                try:
                    data = await self._transport.receive()
                except GONE:
                    data = b""
                finally:
                    self._reading = False
            if not data:
                self._lost("connection lost")
                break
            messages = self._hear(data)
            # Not kept while the next read waits: of a message that is not complete it would be a second copy.
            data = b""
            if messages:
                return messages
        assert self.closed is not None
        raise ConnectionClosed(self.closed)

    async def pump(self, handle: Callable[[list[Message]], None]) -> NoReturn:
        """Call `handle` with what each `receive` would return, until the connection is over. Only one task may receive.

        Where the transport can be watched, `handle` is called in a turn of the poller, and this task sleeps. Raises ConnectionClosed at
        the end, and what `handle` raises.
        """
        # What came behind the opening may hold messages, and words to heed behind them.
        while self._early or self._last_word is not None:
            handle(await self.receive())
        if self._queue:
            self.flush()
        transport = self._transport
        if isinstance(transport, SocketTransport) and transport.can_be_watched and self.closed is None:
            self._pump = Pump(transport, partial(self._hand_on, handle))
            self._reading = True
            try:
                await self._pump.run()
            finally:
                self._pump = None
                self._reading = False
        while True:
            handle(await self.receive())

    def _hand_on(self, handle: Callable[[list[Message]], None], data: bytes) -> None:
        if not data:
            self._lost("connection lost")
            return
        messages = self._hear(data)
        if messages:
            handle(messages)
        if self._queue:
            self.flush()
        if self._last_word is not None:
            self._heed_last_word()

    def _hear(self, data: bytes) -> list[Message]:
        """Take what one read has brought; return the messages that are whole."""
        self.last_received_at = trio.current_time()
        self._traffic.received_bytes += len(data)
        messages = self._take(data)
        if self.on_heard is not None:
            self.on_heard(self._decoder.held, messages)
        return messages

    def _take(self, data: bytes) -> list[Message]:
        if self._failing:
            return []
        unwanted = self._ending is not None
        decoder = self._decoder
        events = decoder.feed(data)
        if decoder.controls != self._controls:
            self._controls = decoder.controls
            if self.on_proof is not None:
                self._tell_proofs(events)
            events, pongs, close = frames.sort(events)
            if pongs and close is None and self._ending is None:
                self._queue_control(pongs)
                self.flush()
            self._last_word = close or self._last_word
        if decoder.failed is not None:
            self._last_word = decoder.failed
        if unwanted and not self.takes_late:
            events = []
        if self._last_word is not None and not events:
            self._heed_last_word()
        return cast("list[Message]", events)

    def _heed_last_word(self) -> None:
        """Act on the peer's Close or protocol error, once the messages before it were handed out and answered."""
        word, self._last_word = self._last_word, None
        if isinstance(word, ProtocolError):
            self.fail(word.code, word.reason)
        elif word is not None:
            self._peer_closed = True
            if self._ending is None:
                code = NO_CODE if word.code is None else word.code
                self._begin_end(CloseInfo(code, word.reason, "remote"), word.code, self._settings.close_s)
            else:
                if self.on_proof is not None and self._ending.initiator == "local":
                    self.on_proof(None)
                if not self.queued_bytes:
                    self._over()

    def _tell_proofs(self, events: Iterable[frames.Event]) -> None:
        for event in events:
            if type(event) is frames.Pong and self.on_proof is not None:
                self.on_proof(event.payload)

    # ---- sending

    def send_text(self, payload: bytes) -> None:
        """Queue a text message; `payload` is UTF-8. Thrown away once an end has begun.

        Beyond twice the bounds of the queue the peer is a slow consumer: the queue is dropped and closed with 4508.
        """
        if self._ending is None:
            if self._deflater is None:
                self._put(frames.text_header(len(payload)), payload)
            else:
                self._put(*self._deflater.parts(payload, text=True))

    def send_binary(self, payload: bytes) -> None:
        """Queue a binary message, as `send_text` does."""
        if self._ending is None:
            if self._deflater is None:
                self._put(frames.binary_header(len(payload)), payload)
            else:
                self._put(*self._deflater.parts(payload, text=False))

    def send_part(self, payload: bytes, *, first: bool, last: bool) -> None:
        """Queue a part of a text message that stands in several frames (RFC 6455 5.4). No other message may be queued between its parts.

        They are never deflated: the message is made piece by piece to hold up no other, and deflating it would.
        """
        if self._ending is None:
            self._put(frames.part_header(len(payload), first=first, last=last), payload)

    def send_ping(self, payload: bytes) -> None:
        """Queue a Ping of at most 125 bytes behind the messages that are queued; its Pong is told to `on_proof`."""
        if self._ending is None:
            self._queue_control(frames.encode_ping(payload))

    def send_frames(self, whole: bytes, messages: int) -> bool:
        """Queue messages that were made into frames once for many connections. Thrown away once an end has begun.

        False, and nothing is queued: the queue would be full with them. Each is then to be sent for itself, as far as there is room.
        """
        size = len(whole)
        queued_bytes = self.queued_bytes + size
        queued_messages = self.queued_messages + messages
        settings = self._settings
        if queued_bytes >= settings.send_queue_bytes_max or queued_messages >= settings.send_queue_messages_max:
            return False
        if self._ending is None:
            if self._deflater is not self.deflates_for_many and self._deflater is not None:
                self._deflater.forget()  # it has not seen them, and would count its distances wrongly
            self._queue.append(whole)
            self.queued_bytes = queued_bytes
            self.queued_messages = queued_messages
            if self._writing:
                self._queues.grow(size)
        return True

    def _put(self, header: bytes, payload: bytes) -> None:
        self._queue.append(header)
        self._queue.append(payload)
        size = len(header) + len(payload)
        self.queued_bytes = queued_bytes = self.queued_bytes + size
        self.queued_messages = queued_messages = self.queued_messages + 1
        settings = self._settings
        if self._writing:
            self._queues.grow(size)
        # Invariant: a full queue has a writer task, because flushing has been tried and did not empty it.
        if queued_bytes >= settings.send_queue_bytes_max or queued_messages >= settings.send_queue_messages_max:
            self.flush()  # a queue that was never flushed says nothing about the peer
            if not self.room:
                self._was_full = True
            if (
                self.queued_bytes > 2 * settings.send_queue_bytes_max
                or self.queued_messages > 2 * settings.send_queue_messages_max
            ):
                self.fail_slow_consumer("send queue overflow")

    def _queue_control(self, whole_frames: bytes) -> None:
        self._queue.append(whole_frames)
        self.queued_bytes += len(whole_frames)
        if self.queued_bytes > 2 * self._settings.send_queue_bytes_max:
            self.fail_slow_consumer("send queue overflow")

    def flush(self) -> None:
        """Write everything queued with one system call; what the socket does not take, a writer task writes."""
        queue = self._queue
        if self._writing or not queue:
            return
        # One part is what a publication in a room is for each of its members: their frames are the same bytes.
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        queue.clear()
        try:
            sent = self._transport.send_nowait(data)
        except GONE:
            self._lost("connection lost")
            self._tell_unsaid()
            return
        self._traffic.sent_bytes += sent
        self._said = self._said or sent > 0
        if sent == len(data):
            self.queued_bytes = self.queued_messages = 0
            if self._ending is not None:
                self._goodbye_written()
            return
        self.queued_bytes -= sent
        self._chunk = memoryview(data)[sent:]
        self._chunk_messages = self.queued_messages
        self._writing = True
        self._liveness.blocked_since = trio.current_time()
        self._queues.block(self)
        self._spawn(self._write_rest)

    async def _write_rest(self) -> None:
        """Write the chunk and all that is queued meanwhile. The only task that writes while it lives."""
        try:
            await self._write_queue()
            self._tell_unsaid()
        except Exception:
            # Whatever `on_room` or `on_unsaid` raised ends this connection, not the nursery with all the others.
            log.exception("writer_failed", connection=self.id)
            self._writing = False
            self.fail(CloseCode.INTERNAL, "internal error")
        finally:
            self._queues.unblock(self)
            if self._writing and self.closed is None:
                self.abort("write cut")

    async def _write_queue(self) -> None:
        try:
            while self._chunk or self._queue:
                if not self._chunk:
                    self._chunk = memoryview(b"".join(self._queue))
                    self._chunk_messages = self.queued_messages
                    self._queue.clear()
                sent = await self._transport.send(self._chunk)
                self._said = True
                self._traffic.sent_bytes += sent
                if self.closed is not None:
                    return
                self._liveness.blocked_since = trio.current_time()
                self._chunk = self._chunk[sent:]
                self.queued_bytes -= sent
                if not self._chunk:
                    self.queued_messages -= self._chunk_messages
                self._tell_room()
            self._writing = False
            self._goodbye_written()
        except GONE:
            self._lost("connection lost")

    def _tell_unsaid(self) -> None:
        # Not where a write was cancelled: that may have gone out.
        if not self._said and self.on_unsaid is not None:
            self.on_unsaid()

    def _tell_room(self) -> None:
        if (
            self._was_full
            and 2 * self.queued_bytes <= self._settings.send_queue_bytes_max
            and 2 * self.queued_messages <= self._settings.send_queue_messages_max
        ):
            self._was_full = False
            if self.on_room is not None and self._ending is None:
                self.on_room()

    def _goodbye_written(self) -> None:
        """Go on with an end that has begun, once nothing is left to write."""
        if self._ending is not None and not self.queued_bytes and self.closed is None:
            if self._peer_closed:
                self._over()
            elif self._failing:
                self._transport.finish_writing()

    # ---- ending

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake behind what is queued; the first end that began counts.

        The TCP is closed when the peer answers, or after `close_s`.
        """
        if self._ending is None:
            self._begin_end(CloseInfo(code, reason, "local"), code, self._settings.close_s)

    def abort(self, reason: str) -> None:
        """Reset the TCP now; nothing queued is written."""
        if self.closed is None:
            if self._ending is None:
                self._ending = CloseInfo(LOST, reason, "abort")
            self._transport.abort()
            self._over()

    def release(self) -> None:
        """Close the TCP now, without waiting for the peer, but without taking back what was written."""
        if self.closed is None:
            if self._ending is None or self.queued_bytes:
                self.abort("cut")
            else:
                self._over()

    async def wait_closed(self) -> CloseInfo:
        """Wait until the connection is over; return how it ended."""
        if self.closed is None:
            if self._closed_event is None:
                self._closed_event = trio.Event()
            await self._closed_event.wait()
            assert self.closed is not None
        return self.closed

    async def wait_finished(self) -> None:
        """Read on behalf of a reader that has left, so that the peer's answer to our Close is seen."""
        with suppress(ConnectionClosed):
            while True:
                await self.receive()

    def tick(self, now: float) -> None:
        """Do what is due: ask a silent peer for a sign of life, give up on one that gives none or takes nothing.

        To be called about once a second. See `net.liveness`.
        """
        if self._ending is not None:
            return
        verdict = self._liveness.judge(
            now, self.last_received_at, self._controls, reading=self._reading, writing=self._writing
        )
        if verdict is Verdict.FLOODS:
            self.fail(CloseCode.POLICY, "too many pings")
        elif verdict is Verdict.STUCK:
            self.fail_slow_consumer("write timeout")
        elif verdict is Verdict.SILENT:
            self.fail(CloseCode.TIMEOUT, "no pong")
        elif verdict is Verdict.QUIET:
            self._queue_control(frames.encode_ping())
            self.flush()

    def shed(self, code: CloseCode, reason: str) -> None:
        """End a connection to have its memory back: what has been received of a message is dropped at once."""
        self._decoder.forget()
        self._early = b""
        self.fail(code, reason)

    def fail_slow_consumer(self, reason: str) -> None:
        """Drop what is queued and close with 4508."""
        # The queue behind the chunk being written is dropped: the peer would not read it, and the log has its messages.
        self._queue.clear()
        self.queued_bytes = len(self._chunk)
        self.queued_messages = self._chunk_messages if self._chunk else 0
        self.fail(CloseCode.SLOW_CONSUMER, reason)

    def fail(self, code: CloseCode, reason: str) -> None:
        """End the connection, because the peer broke a rule: it gets `linger_s` to read why, whether it answers our Close or not."""
        self._failing = True
        if self._ending is None:
            self._begin_end(CloseInfo(code.value, reason, "local"), code, self._settings.linger_s)
        elif not self.queued_bytes:
            self._over()  # our Close is out already; a peer that answers it with nonsense gets no more time

    def _begin_end(self, ending: CloseInfo, code: int | None, within_s: float) -> None:
        self._ending = ending
        frame = frames.encode_close(code, ending.reason)
        self._queue.append(frame)
        self.queued_bytes += len(frame)
        self.flush()
        if self.closed is None:
            self._deadline = trio.current_time() + within_s
            self._spawn(self._see_it_closed)

    async def _see_it_closed(self) -> None:
        """Keep the deadline of an end that has begun."""
        try:
            with self._pauses.within(max(0.0, self._deadline - trio.current_time())):
                await self.wait_closed()
        finally:
            self.release()

    def _lost(self, reason: str) -> None:
        if self._ending is None:
            self._ending = CloseInfo(LOST, reason, "abort")
        self._over()

    def _over(self) -> None:
        if self.closed is None:
            self.closed = self._ending
            self._queue.clear()
            self._chunk = memoryview(b"")
            self.queued_bytes = self.queued_messages = 0
            if self._pump is not None:
                self._pump.end()
            self._transport.close()
            if self._closed_event is not None:
                self._closed_event.set()
