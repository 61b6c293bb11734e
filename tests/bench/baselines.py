"""The two relays signald is measured beside: `python -m tests.bench.baselines tcp|trio-websocket PORT`.

Both pair the connection that came 2k-th with the next one and carry messages between the two. They promise nothing: no seq, no
ack, no store, no session, no limit. What signald needs beyond these is the price of its guarantees.
"""

import functools
import sys
from typing import Generic, TypeVar

import trio
import trio_websocket

PREFIX_BYTES = 4
RECV_BYTES = 65_536

Connection = TypeVar("Connection")


class Pairs(Generic[Connection]):
    """Gives each connection its partner, in order of arrival."""

    def __init__(self) -> None:
        self._first: tuple[Connection, trio.Event] | None = None
        self._partners: dict[Connection, Connection] = {}

    async def partner(self, connection: Connection) -> Connection:
        """Wait for the partner of `connection`."""
        if self._first is None:
            event = trio.Event()
            self._first = (connection, event)
            await event.wait()
        else:
            (first, event), self._first = self._first, None
            self._partners[first], self._partners[connection] = connection, first
            event.set()
        return self._partners.pop(connection)


async def relay_tcp(pairs: Pairs[trio.SocketStream], stream: trio.SocketStream) -> None:
    """Forward length-prefixed messages: all that one read completed go out in one write."""
    partner = await pairs.partner(stream)
    buffer = bytearray()
    try:
        while data := await stream.receive_some(RECV_BYTES):
            buffer += data
            stop = 0
            while len(buffer) - stop >= PREFIX_BYTES:
                end = stop + PREFIX_BYTES + int.from_bytes(buffer[stop : stop + PREFIX_BYTES], "big")
                if end > len(buffer):
                    break
                stop = end
            if stop:
                await partner.send_all(buffer[:stop])
                del buffer[:stop]
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(partner)


async def relay_websocket(
    pairs: Pairs[trio_websocket.WebSocketConnection], request: trio_websocket.WebSocketRequest
) -> None:
    """Forward messages one by one, as trio-websocket hands them out and takes them."""
    connection = await request.accept()
    partner = await pairs.partner(connection)
    try:
        while True:
            await partner.send_message(await connection.get_message())
    except trio_websocket.ConnectionClosed:
        pass


async def serve(kind: str, port: int) -> None:
    """Serve on a loopback port."""
    listener = (await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=4096))[0]
    # A probe that connects would be taken for half of the first pair.
    print("serving", flush=True)
    if kind == "tcp":
        streams: Pairs[trio.SocketStream] = Pairs()
        await trio.serve_listeners(functools.partial(relay_tcp, streams), [listener])
    else:
        sockets: Pairs[trio_websocket.WebSocketConnection] = Pairs()
        await trio_websocket.WebSocketServer(functools.partial(relay_websocket, sockets), [listener]).run()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
