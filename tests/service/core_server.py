"""A core server in memory: it answers as a test says, and remembers what it was asked."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from signald.core.webhooks import Secrets, verify
from signald.http.client import HttpClient
from signald.node import Node
from signald.service.hooks.authorising import CONNECTIONS_MAX

Asked = dict[str, Any]
Answer = Callable[[Asked], bytes | None] | Callable[[Asked], Awaitable[bytes | None]]
URL = "http://127.0.0.1:1/authorise"


def http(body: bytes, status: str = "200 OK", more: bytes = b"") -> bytes:
    """The bytes of an answer."""
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status.encode(), more, len(body), body)


def says(**fields: object) -> bytes:
    """The bytes of a right answer."""
    return http(json.dumps(fields).encode())


class CoreServer:
    """See the module. `hear` connects a node to it."""

    def __init__(self, nursery: trio.Nursery, secrets: Secrets | None = None) -> None:
        self._nursery = nursery
        self._secrets = secrets
        self.answer: bytes | None = says(allow=True)
        """What it says next; None: nothing, for ever."""
        self.answers: dict[str, bytes] = {}
        """By subject; before `answer`."""
        self.delay_s = 0.0
        self.down = False
        self.asked: list[Asked] = []
        self.ids: list[str] = []
        """The `webhook-id`s."""
        self.connections = 0
        self.open = 0
        """Requests that are being answered."""
        self.most = 0
        """The most that were at once."""

    def hear(self, node: Node) -> None:
        """Let `node` reach it."""
        node.hub.authoriser.poster = HttpClient(connections_max=CONNECTIONS_MAX, connect=self.dial)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        """Connect. Raises OSError while it is down."""
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectionRefusedError(111, "refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.connections += 1
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.StapledStream[Any, Any]) -> None:
        try:
            while (request := await self._read(stream)) is not None:
                self.open += 1
                self.most = max(self.most, self.open)
                try:
                    await self._reply(stream, request)
                finally:
                    self.open -= 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _reply(self, stream: trio.StapledStream[Any, Any], request: Asked) -> None:
        self.asked.append(request)
        said = self.answers.get(request["subject"], self.answer)
        await trio.sleep(self.delay_s)
        if said is None:
            await trio.sleep_forever()
        await stream.send_all(said)

    async def _read(self, stream: trio.StapledStream[Any, Any]) -> Asked | None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := await stream.receive_some()):
                return None
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers["content-length"]):
            body += await stream.receive_some()
        if self._secrets is not None:
            verify(headers, body, self._secrets, 1_700_000_000 + trio.current_time())
        self.ids.append(headers["webhook-id"])
        asked: Asked = json.loads(body)
        return asked
