"""Parts of a connection in memory: two pipes, their ends, and the gate of the node's process."""

import random
from collections import deque
from collections.abc import Callable

import trio

WINDOW_BYTES = 65536
"""Bytes a sender may have in flight; above that its send waits, as it does for a full socket buffer."""

_WHOLE = 1 << 40
"""More bytes than any piece has: a pipe then returns each piece as it was put in."""

SUBPROTOCOL_LINE = b"Sec-WebSocket-Protocol: "


class Gate:
    """Holds back all input and output of a node's process while that process stands still (a collection, a stopped machine).

    One `trio.run` has one clock and one scheduler, so the node's own tasks and deadlines go on during the pause: a deadline
    in it fires at its time, not at the end of the pause. No other process sees that, because nothing leaves the node before
    the pause is over.
    """

    def __init__(self) -> None:
        self.since = self.until = -float("inf")
        """When the last pause began, and when it ended or will end."""
        self.stood_s = 0.0
        """Seconds of all pauses, the rest of the present one included."""
        self._goes_on = trio.Event()

    def pause(self, seconds: float) -> None:
        """Stand still for `seconds` from now."""
        now = trio.current_time()
        if now >= self.until:
            self.since = now
        until = max(self.until, now + seconds)
        self.stood_s += until - max(now, self.until)
        self.until = until

    def resume(self) -> None:
        """Go on now."""
        self.stood_s -= max(0.0, self.until - trio.current_time())
        self.until = -float("inf")
        self._goes_on.set()
        self._goes_on = trio.Event()

    async def wait(self) -> None:
        """Wait until it goes on."""
        while trio.current_time() < self.until:
            with trio.move_on_at(self.until):
                await self._goes_on.wait()


class Pipe:
    """One direction of a connection."""

    def __init__(self, chance: random.Random, reset: Callable[[str], None]) -> None:
        """`reset` is called with the reason when the pipe is cut at `cut_at`; it breaks the whole connection."""
        self._chance = chance
        self._reset = reset
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._under_way = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._last_at = 0.0
        self.ended = False
        """The sender has finished."""
        self.broken = False
        self.refuses = False
        """A send waits for the receiver to read."""
        self.stalled_from = float("inf")
        self.stalled_until = float("inf")
        self.delay_s = 0.0
        self.split_share = 0.0
        self.cut_at = -1
        self.window_bytes = WINDOW_BYTES
        self.bytes_per_s = 0.0
        """How fast what was put in arrives; 0: at once."""
        self.tap: Callable[[bytes], None] | None = None
        """Is shown each whole piece that is put in."""
        self._sent = 0

    def go_on(self) -> None:
        """Stall no longer."""
        self.stalled_from = float("inf")
        self.change()

    def change(self) -> None:
        """Let both ends look again."""
        self._changed.unpark_all()

    async def changed(self) -> None:
        """Wait for the next `change`."""
        await self._changed.park()

    @property
    def is_full(self) -> bool:
        """A sender would have to wait."""
        return self._under_way >= self.window_bytes and not self.broken

    async def send(self, data: bytes) -> None:
        """Carry `data`, possibly in pieces. Raises BrokenResourceError."""
        while self.is_full:
            self.refuses = True
            await self._changed.park()  # a cancelled sender leaves it set: its data was never sent
        self.refuses = False
        if self.broken:
            raise trio.BrokenResourceError
        if 0 <= self.cut_at < self._sent + len(data):
            self._put(data[: self.cut_at - self._sent])
            self._reset("cut")
            raise trio.BrokenResourceError
        self._sent += len(data)
        if len(data) > 1 and self.split_share and self._chance.random() < self.split_share:
            for _ in range(self._chance.randint(1, 3)):
                if len(data) > 1:
                    at = self._chance.randint(1, len(data) - 1)
                    self._put(data[:at])
                    data = data[at:]
        self._put(data)

    def send_whole(self, data: bytes) -> None:
        """Carry `data` in one piece, whatever the window; a cut loses all of it. Raises BrokenResourceError."""
        if self.broken:
            raise trio.BrokenResourceError
        if 0 <= self.cut_at < self._sent + len(data):
            self._reset("cut")
            raise trio.BrokenResourceError
        self._sent += len(data)
        if self.tap is not None:
            self.tap(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        at = trio.current_time()
        if self.delay_s:
            at += self._chance.uniform(0.0, self.delay_s)
        self._last_at = max(self._last_at, at)
        if self.bytes_per_s:
            self._last_at += len(data) / self.bytes_per_s
        self._chunks.append((self._last_at, data))
        self._under_way += len(data)
        self.change()

    async def receive(self, most: int) -> bytes:
        """Return what has arrived; b"" at the end. Raises BrokenResourceError."""
        while True:
            now = trio.current_time()
            stalled = self.stalled_from <= now < self.stalled_until
            if self.broken and not (self._chunks and self._chunks[0][0] <= now):
                raise trio.BrokenResourceError
            if stalled:
                until = self.stalled_until
            elif self._chunks:
                at, data = self._chunks[0]
                if at <= now:
                    return self._take(at, data, most)
                until = min(at, self.stalled_from) if self.stalled_from > now else at
            elif self.ended:
                return b""
            else:
                until = float("inf")
            with trio.move_on_at(until):
                await self._changed.park()

    async def receive_whole(self) -> list[bytes]:
        """Return all pieces that have arrived, at least one; none at the end. Raises BrokenResourceError."""
        first = await self.receive(_WHOLE)
        if not first:
            return []
        pieces = [first]
        now = trio.current_time()
        stalled = self.stalled_from <= now < self.stalled_until
        while not stalled and self._chunks and self._chunks[0][0] <= now:
            at, piece = self._chunks[0]
            pieces.append(self._take(at, piece, _WHOLE))
        return pieces

    def _take(self, at: float, data: bytes, most: int) -> bytes:
        self._chunks.popleft()
        if len(data) > most:
            self._chunks.appendleft((at, data[most:]))
            data = data[:most]
        self._under_way -= len(data)
        self.change()
        return data

    def break_(self) -> None:
        """Reset: what is in flight is lost."""
        if not self.broken:
            self.broken = True
            self._chunks.clear()
            self.change()


class End(trio.abc.Stream):
    """One end of a `Wire`."""

    def __init__(
        self, outgoing: Pipe, incoming: Pipe, gate: Gate | None = None, tap: Callable[[bytes], None] | None = None
    ) -> None:
        self.out = outgoing
        self.incoming = incoming
        self._gate = gate
        self.tap = tap
        self.closed = False
        self.dead = False
        """Its process is gone without a close: what it still writes is lost."""
        self.cut_at = float("inf")
        """When it was closed while a send waited for the other end to read."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        await self.goes_on()
        await self._still_there()
        data = bytes(data)
        if self.tap is not None:
            self.tap(data)
        await self._still_there()
        await self.out.send(data)
        if self.closed:
            raise trio.ClosedResourceError

    @property
    def stands_still(self) -> bool:
        """Its process is paused."""
        return self._gate is not None and trio.current_time() < self._gate.until

    async def goes_on(self) -> None:
        """Wait until its process is not paused."""
        if self._gate is not None:
            await self._gate.wait()

    async def _still_there(self) -> None:
        if self.dead:
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        data = await self.incoming.receive(max_bytes or WINDOW_BYTES)
        await self.goes_on()
        if self.closed:
            raise trio.ClosedResourceError
        return data

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            if self.out.refuses:
                self.cut_at = trio.current_time()
            if not self.dead:
                self.out.ended = True
                self.incoming.break_()  # a writer to a closed socket gets a reset
            self.out.change()
            self.incoming.change()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """Close without a checkpoint; a send that waits is not noted in `cut_at`."""
        if not self.closed:
            self.closed = True
            if not self.dead:
                self.out.ended = True
                self.incoming.break_()
            self.out.change()
            self.incoming.change()


class OldProgram(trio.abc.Stream):
    """The stream of a program that offers no subprotocol: the line that offers it is removed from the request.

    The SDK offers one and insists on it, so the line it expects is added to the answer.
    """

    def __init__(self, stream: End) -> None:
        self._stream = stream
        self._asked = self._answered = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self._asked:
            self._asked = True
            lines = bytes(data).split(b"\r\n")
            data = b"\r\n".join(line for line in lines if not line.startswith(SUBPROTOCOL_LINE))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        if not self._answered and data:
            self._answered = True
            while b"\r\n" not in data and (more := await self._stream.receive_some(max_bytes)):
                data += more  # the network has cut the first line
            first, end, rest = data.partition(b"\r\n")
            if b" 101 " in first and end:
                data = first + end + SUBPROTOCOL_LINE + b"signald.v1\r\n" + rest
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
