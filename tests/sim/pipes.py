"""What a simulated connection is made of: two pipes, their ends, and what stands at an end."""

import random
from collections import deque
from collections.abc import Callable

import trio

WINDOW_BYTES = 65536
"""What a sender may have under way; then its send waits, as a full socket buffer makes it wait."""

SUBPROTOCOL_LINE = b"Sec-WebSocket-Protocol: "


class Gate:
    """What stands still while its node's process does (a collection, a stopped machine): the way in and out of it.

    One `trio.run` has one clock and one scheduler, so the node's own tasks and deadlines go on meanwhile: a deadline that
    passes during the pause fires at its time instead of at the end of it. What the node does then reaches nobody before
    the pause is over, which is all that others could see of it.
    """

    def __init__(self) -> None:
        self.since = self.until = -float("inf")
        """When it last began to stand still, and went on or will."""
        self.stood_s = 0.0
        """How long it has stood, and will."""
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
        """Something is to be sent that does not go out before somebody reads."""
        self.stalled_from = float("inf")
        self.stalled_until = float("inf")
        self.delay_s = 0.0
        self.split_share = 0.0
        self.cut_at = -1
        self.window_bytes = WINDOW_BYTES
        self._sent = 0

    def go_on(self) -> None:
        """Stall no longer."""
        self.stalled_from = float("inf")
        self.change()

    def change(self) -> None:
        """Let both ends look again."""
        self._changed.unpark_all()

    async def send(self, data: bytes) -> None:
        """Take `data` on its way. Raises BrokenResourceError."""
        while self._under_way >= self.window_bytes and not self.broken:
            self.refuses = True
            await self._changed.park()  # whoever is cut off here leaves it so: that was never sent
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

    def _put(self, data: bytes) -> None:
        at = trio.current_time()
        if self.delay_s:
            at += self._chance.uniform(0.0, self.delay_s)
        self._last_at = max(self._last_at, at)
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

    def _take(self, at: float, data: bytes, most: int) -> bytes:
        self._chunks.popleft()
        if len(data) > most:
            self._chunks.appendleft((at, data[most:]))
            data = data[:most]
        self._under_way -= len(data)
        self.change()
        return data

    def break_(self) -> None:
        """The connection was reset: what is under way is lost."""
        if not self.broken:
            self.broken = True
            self._chunks.clear()
            self.change()


class End(trio.abc.Stream):
    """One end of a `Wire`."""

    def __init__(
        self, outgoing: Pipe, incoming: Pipe, gate: Gate | None = None, tap: Callable[[bytes], None] | None = None
    ) -> None:
        self._out = outgoing
        self._in = incoming
        self._gate = gate
        self._tap = tap
        self._closed = False
        self.dead = False
        """Its process is gone without a word: what it still says is not heard."""
        self.cut_at = float("inf")
        """When it was closed with something yet to be sent, behind more than the other end had read."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        await self.goes_on()
        await self._still_there()
        data = bytes(data)
        if self._tap is not None:
            self._tap(data)
        await self._still_there()
        await self._out.send(data)
        if self._closed:
            raise trio.ClosedResourceError

    @property
    def stands_still(self) -> bool:
        """Its process does nothing now."""
        return self._gate is not None and trio.current_time() < self._gate.until

    async def goes_on(self) -> None:
        """Wait until its process does something."""
        if self._gate is not None:
            await self._gate.wait()

    async def _still_there(self) -> None:
        if self.dead:
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        data = await self._in.receive(max_bytes or WINDOW_BYTES)
        await self.goes_on()
        if self._closed:
            raise trio.ClosedResourceError
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._out.refuses:
                self.cut_at = trio.current_time()
            if not self.dead:
                self._out.ended = True
                self._in.break_()  # who writes to a closed socket is told so
            self._out.change()
            self._in.change()
        await trio.lowlevel.checkpoint()


class OldProgram(trio.abc.Stream):
    """The stream of a program that offers no subprotocol: the line that offers it does not leave, and none comes back.

    The SDK, which does offer one and insists on it, is shown what it expects.
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
            first, end, rest = data.partition(b"\r\n")
            if b" 101 " in first and end:
                data = first + end + SUBPROTOCOL_LINE + b"signald.v1\r\n" + rest
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
