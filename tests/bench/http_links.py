"""The client half of HTTP/1.1 on the generator's sockets: one request at a time on a connection that is kept."""

from collections.abc import Callable

from tests.bench.errors import BenchError
from tests.bench.sockets import Address, Loop, Socket

Answered = Callable[[int, bytes], None]
"""Takes the status and the body of an answer."""


class HttpLink(Socket):
    """One kept connection. An answer has a `Content-Length`; all the servers that are measured send one."""

    def __init__(self, loop: Loop, address: Address) -> None:
        super().__init__(loop, address)
        self._tail = b""
        self._answered: Answered | None = None

    def post(self, path: str, headers: str, body: bytes, answered: Answered) -> None:
        """Send a request of JSON; `headers` is lines that each end with CR LF. `answered` is called once."""
        if self._answered is not None:
            raise BenchError("a request is under way on this connection")
        self._answered = answered
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{headers}\r\n"
        )
        self.send(head.encode() + body)

    def on_connected(self) -> None:
        """Send what was asked for before the connection was there."""
        unsent, self._unsent = self._unsent, b""
        self.send(unsent)

    def on_data(self, data: bytes) -> None:
        """Take what one read yielded: an answer ends with its body."""
        self._tail += data
        head, blank, rest = self._tail.partition(b"\r\n\r\n")
        if not blank:
            return
        status, length = int(head[9:12]), _length(head)
        if len(rest) < length:
            return
        answered, self._answered, self._tail = self._answered, None, rest[length:]
        if answered is None or self._tail:
            raise BenchError(f"an answer that was not asked for: {head[:200]!r}")
        answered(status, rest[:length])

    def on_gone(self) -> None:
        """Kept connections are the server's to keep."""
        raise BenchError("the server ended an HTTP connection")


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise BenchError(f"an answer without a length: {head[:300]!r}")
