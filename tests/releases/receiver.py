"""A core server on a real socket, for nodes that are processes: it keeps what it has taken, and can be put off."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from signald.core.webhooks import secrets_of, verify
from tests.real.harness import HOST, Settings, until

SECRET = "whsec_Y2FuYXJ5LXNlY3JldC1vZi1ldmVudHMtMDE="
TOLD_S = 30.0
"""An attempt that has failed is made again 5 s later at first, and 10 s later then."""


class Receiver:
    """See the module."""

    def __init__(self) -> None:
        self.url = ""
        self.away = False
        """It answers 503 and takes nothing."""
        self.events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        """Session, worker or `cluster` → its events, each once, as they came."""
        self.wrong: list[str] = []
        """What came out of order, or with a signature that does not fit."""

    @property
    def settings(self) -> Settings:
        """The sections of a node that tells it."""
        return {"core": {"events_url": self.url, "secret": SECRET}}

    def types(self, queue: str) -> list[str]:
        """The types of what was told of `queue`, in order."""
        return [said["type"] for said in self.events[queue]]

    async def hears(self, queue: str, *types: str) -> None:
        """Wait until just this was told of `queue`. Fails when it does not come in time."""
        await until(
            lambda: len(self.events[queue]) >= len(types), TOLD_S, f"{types} of {queue}, not {self.types(queue)}"
        )
        assert self.types(queue) == list(types)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection."""
        data = b""
        with suppress(trio.BrokenResourceError, OSError):
            async with stream:
                while True:
                    while b"\r\n\r\n" not in data:
                        more = await stream.receive_some()
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
                    headers = {name.lower(): value.strip() for name, _, value in lines}
                    size = int(headers["content-length"])
                    while len(data) < size:
                        data += await stream.receive_some()
                    body, data = data[:size], data[size:]
                    status = self._take(headers, body)
                    await stream.send_all(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)

    def _take(self, headers: dict[str, str], body: bytes) -> bytes:
        if self.away:
            return b"503 Service Unavailable"
        try:
            verify(headers, body, secrets_of(SECRET), int(headers["webhook-timestamp"]))
        except ValueError as error:
            self.wrong.append(f"{headers}: {error}")
        said = json.loads(body)
        data = said["data"]
        queue = data.get("session") or data.get("worker") or "cluster"
        last = self.events[queue][-1]["data"]["n"] if self.events[queue] else 0
        if data["n"] > last + 1:
            self.wrong.append(f"{queue}: {said['type']} {data['n']} came behind {last}")
        if data["n"] > last:
            self.events[queue].append(said)
        return b"200 OK"


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """A core server for the time of the block."""
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        receiver.url = f"http://{HOST}:{listeners[0].socket.getsockname()[1]}/events"
        nursery.start_soon(trio.serve_listeners, receiver.serve, listeners)
        yield receiver
        nursery.cancel_scope.cancel(reason="the test is over")
