"""One client for the benchmark of the SDK, in a process of its own: `python -m tests.bench.sdk_party KIND URL SLICES TRIPS RECONNECTS`.

    trio, asyncio    the SDK on this event loop
    websockets       a client that knows the frames and promises nothing: no ledger, no deadline, no backoff, no events
    worker           answers every message with itself; it serves until it is killed

It prints the CPU seconds of this process for each round trip and each reconnect, of each slice.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import trio
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from signald.sdk import asyncio_carrier, trio_carrier
from signald.sdk.backoff import Backoff
from signald.sdk.events import Resumed
from signald.sdk.front.client import Client, open_client
from signald.sdk.front.serving import run_worker
from signald.sdk.front.worker_session import WorkerSession
from signald.sdk.network import Carrier
from signald.sdk.party_records import DEFAULT_TIMING
from signald.wire.messages import SUBPROTOCOL

DATA = "x" * 128
QUICK = Backoff(base_s=0.001, cap_s=0.001)
"""A reconnect waits for nothing that is not of it; the wait itself would take no CPU."""
WARM_UP = 50
SESSIONS_MAX = 1000
"""Of the worker: a party leaves its session behind, as one whose process has ended, and each turn of the run begins another one."""


class Slices(NamedTuple):
    """How much is measured."""

    slices: int
    trips: int
    reconnects: int


async def measured(
    how: Slices, trip: Callable[[], Awaitable[object]], reconnect: Callable[[], Awaitable[object]]
) -> None:
    """Print the CPU seconds of each slice, behind a first one that only warms up."""
    took: dict[str, list[float]] = {"trip": [], "reconnect": []}
    for _ in range(WARM_UP):
        await trip()
    await reconnect()
    for _ in range(how.slices):
        for name, act, count in (("trip", trip, how.trips), ("reconnect", reconnect, how.reconnects)):
            before = time.process_time()
            for _ in range(count):
                await act()
            took[name].append((time.process_time() - before) / count)
    print(json.dumps(took))


async def sdk(carriers: Any, url: str, how: Slices) -> None:
    """A client on the SDK, whose connection is cut below it."""
    standing: list[Carrier] = []

    @asynccontextmanager
    async def dial(to: str) -> AsyncIterator[Carrier]:
        async with carriers.dial(to, None, DEFAULT_TIMING) as carrier:
            standing[:] = [carrier]
            yield carrier

    async with open_client(url, dial=dial, backoff=QUICK) as client:
        await measured(how, partial(_trip, client), partial(_reconnect, client, standing))


async def _trip(client: Client) -> None:
    await client.send(DATA, history=False)
    await anext(client)


async def _reconnect(client: Client, standing: list[Carrier]) -> None:
    standing[0].abort()
    while not isinstance(await client.events.receive(), Resumed):
        pass


class Bare:
    """The frames of a client by hand, on `websockets` alone."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/client"
        self._connection: ClientConnection | None = None
        self._token = ""
        self._seq = self._received = 0

    async def open(self) -> None:
        """Begin a session."""
        answer = await self._opened({"type": "connect"})
        self._seq = answer["next_seq"] - 1

    async def _opened(self, opening: dict[str, object]) -> dict[str, Any]:
        self._connection = await connect(
            self._url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, ping_interval=None, proxy=None
        )
        await self._connection.send(json.dumps(opening))
        answer: dict[str, Any] = json.loads(await self._connection.recv())
        self._token = answer["recovery_token"]
        return answer

    async def trip(self) -> None:
        """Send a message, wait for the one that answers it, and ack that."""
        assert self._connection is not None
        self._seq += 1
        await self._connection.send(json.dumps({"type": "message", "seq": self._seq, "data": DATA, "history": False}))
        while (frame := json.loads(await self._connection.recv()))["type"] != "message":
            pass
        self._received = frame["seq"]
        await self._connection.send(json.dumps({"type": "ack", "seq": self._received}))

    async def reconnect(self) -> None:
        """Cut the connection, and resume by the token."""
        assert self._connection is not None
        self._connection.transport.abort()
        await self._connection.wait_closed()
        await self._opened({"type": "restore_session", "recovery_token": self._token, "received": self._received})


async def bare(url: str, how: Slices) -> None:
    """A client without the SDK."""
    client = Bare(url)
    await client.open()
    await measured(how, client.trip, client.reconnect)


async def echo(session: WorkerSession) -> None:
    """Answer every message with itself."""
    async for message in session:
        await session.send(message.data, history=False)


def main(kind: str, url: str, *counts: str) -> None:
    """Run one party."""
    if kind == "worker":
        print("serving", flush=True)
        asyncio.run(run_worker(url, echo, instance_id="echo", capacity=SESSIONS_MAX))
        return
    how = Slices(*map(int, counts))
    match kind:
        case "trio":
            trio.run(sdk, trio_carrier, url, how)
        case "asyncio":
            asyncio.run(sdk(asyncio_carrier, url, how))
        case "websockets":
            asyncio.run(bare(url, how))


if __name__ == "__main__":
    main(*sys.argv[1:])
