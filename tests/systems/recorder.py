"""A relay between one app and the service that notes each HTTP head and each WebSocket frame, with its bytes.

It knows RFC 6455 and HTTP/1.1 by itself: neither the app's library nor the node's is asked what was sent.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import trio
from attrs import frozen

HOST = "127.0.0.1"
TEXT, CLOSE = 0x1, 0x8
KINDS = {TEXT: "text", 0x2: "binary", CLOSE: "close", 0x9: "ping", 0xA: "pong"}

Sender = Literal["app", "node"]
Address = tuple[str, int]


@frozen
class Seen:
    """One head or frame, or the end of a connection."""

    at: float
    link: int
    """The number of the connection, from 1."""
    sender: Sender
    kind: str
    """`request`, `answer`, one of `KINDS`, or `gone`: the TCP connection is over."""
    raw: bytes
    """The head, or the payload without its mask."""
    during: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The object that a text frame carries."""
        said = json.loads(self.raw) if self.kind == "text" else {}
        return said if isinstance(said, dict) else {}

    @property
    def type(self) -> str:
        """The type of its message; empty where there is none."""
        return str(self.fields.get("type", ""))

    @property
    def code(self) -> int:
        """The code of a Close as its two bytes say it."""
        return int.from_bytes(self.raw[:2], "big") if self.kind == "close" else 0

    @property
    def path(self) -> str:
        """What a request asks for."""
        return self.raw.split(b" ", 2)[1].decode() if self.kind == "request" else ""

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.raw.split(b" ", 2)[1]) if self.kind == "answer" else 0

    def __repr__(self) -> str:
        """Leave out all headers: one of them is the credential."""
        raw = self.raw.split(b"\r\n", 1)[0] if self.kind in ("request", "answer") else self.raw[:200]
        return f"{self.at:.3f} {self.link} {self.sender} {self.kind} {raw!r} [{self.during}]"


class Reading:
    """One direction of a connection, cut into heads and frames."""

    def __init__(self, note: Callable[[str, bytes], None]) -> None:
        self._note = note
        self._rest = bytearray()
        self._frames = False

    def take(self, data: bytes) -> None:
        """Note what is whole by now."""
        self._rest += data
        while (self._frame if self._frames else self._head)():
            pass

    def end(self) -> None:
        """Note that nothing more will come."""
        self._note("gone", b"")

    def _head(self) -> bool:
        head, end, _ = bytes(self._rest).partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        whole = len(head) + 4 + length
        if not end or len(self._rest) < whole:
            return False
        self._note("answer" if head.startswith(b"HTTP/") else "request", bytes(self._rest[:whole]))
        del self._rest[:whole]
        self._frames = b"\nupgrade: websocket" in head.lower() and not head.startswith(b"HTTP/1.1 4")
        return bool(self._rest)

    def _frame(self) -> bool:
        rest = self._rest
        if len(rest) < 2:
            return False
        length, at = rest[1] & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(rest[2:at], "big")
        masked = rest[1] & 0x80
        mask = bytes(rest[at : at + 4]) if masked else b""
        at += len(mask)
        if len(rest) < at + length or (masked and len(mask) < 4):
            return False
        payload = bytes(rest[at : at + length])
        if masked:
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        assert rest[0] & 0x80, "no app of these sends fragments"
        self._note(KINDS[rest[0] & 0x0F], payload)
        del rest[: at + length]
        return True


class Recorder:
    """The relay of one app."""

    def __init__(self, target: Callable[[str], Address], doing: Callable[[], str] = str) -> None:
        """`target` tells where a new connection goes, by the path of its first request."""
        self.seen: list[Seen] = []
        self.target = target
        self.url = ""
        """Where the app connects."""
        self.swallows: Callable[[Seen], bool] = lambda _: False
        """Names what is not handed on: the connection is lost in its place, without a Close."""
        self._doing = doing
        self._counts: Counter[str] = Counter()
        self._links = 0

    def count(self, kind: str) -> int:
        """Return how many messages of one type were seen."""
        return self._counts[kind]

    async def serve(self, nursery: trio.Nursery) -> None:
        """Begin to listen; `url` is known when this returns."""
        listeners = await nursery.start(partial(trio.serve_tcp, self._relay, 0, host=HOST))
        self.url = f"ws://{HOST}:{listeners[0].socket.getsockname()[1]}"

    async def _relay(self, app: trio.SocketStream) -> None:
        self._links += 1
        number = self._links
        asked, answered = (Reading(partial(self._note, number, sender)) for sender in ("app", "node"))
        first = b""
        with suppress(trio.BrokenResourceError):
            first = bytes(await app.receive_some())
        if not first:
            return
        path = first.split(b" ", 2)[1].decode()
        try:
            node = await trio.open_tcp_stream(*self.target(path))
        except OSError:
            # What was asked is noted although no node is there to read it.
            asked.take(first)
            answered.end()
            return
        ends = (app, node)
        asked.take(first)
        try:
            with suppress(trio.BrokenResourceError):
                await node.send_all(first)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, app, node, asked)
                nursery.start_soon(self._carry, node, app, answered)
        finally:
            for end in ends:
                end.socket.close()  # without a checkpoint: a cancelled task would leave the second one open

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream, reading: Reading) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                seen = len(self.seen)
                reading.take(data)
                if any(map(self.swallows, self.seen[seen:])):
                    source.socket.close()
                    sink.socket.close()
                    break
                await sink.send_all(data)
        reading.end()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.send_eof()

    def _note(self, number: int, sender: Sender, kind: str, raw: bytes) -> None:
        seen = Seen(trio.current_time(), number, sender, kind, raw, self._doing())
        self.seen.append(seen)
        self._counts[seen.type] += 1
