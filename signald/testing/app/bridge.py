"""The way from the event loop of a test to the fleet of its cluster, which may live in another thread."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import ParamSpec, Protocol, TypeVar

import attrs
import trio

from signald.ids import Entropy
from signald.net.listener import Server
from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier, Dial, OpenStream, Stream
from signald.testing.app.fleet import Fleet
from signald.testing.messages import over_messages, serve_messages

P = ParamSpec("P")
T = TypeVar("T")

URL = "ws://signald.test"
"""The address of a cluster in memory: no name of a real host, and no party looks it up."""


@attrs.frozen
class Way:
    """How one party reaches the cluster: arguments of `open_client` and `open_worker`."""

    url: str
    dial: Dial | None = None
    """None: over the network of the system."""
    open_stream: OpenStream | None = None
    """As `dial`, for requests over HTTP."""


class Bridge(Protocol):
    """What a cluster needs of the event loop that the test runs on."""

    @property
    def fleet(self) -> Fleet:
        """The fleet. Only `run` may call what changes it."""

    async def run(self, call: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the fleet in its own Trio run."""

    async def way(self, party: str) -> Way:
        """Return the way of a party."""

    def entropy(self, party: str) -> Entropy:
        """Return what a process of a party draws its ids and waits from."""


class InMemory:
    """The bridge of a test in the same Trio run: connections are in memory, and carry whole messages."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def run(self, call: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Bridge`."""
        return await call(*args, **kwargs)

    def entropy(self, party: str) -> Entropy:
        """See `Bridge`."""
        return self.fleet.chance.entropy(party)

    async def way(self, party: str) -> Way:
        """See `Bridge`."""
        fleet = self.fleet

        @asynccontextmanager
        async def dial(url: str) -> AsyncIterator[Carrier]:
            await trio.lowlevel.checkpoint()
            name = fleet.route(party)
            if name is None:
                raise DialFailed(None, "connection refused")
            wire = fleet.connect(party, name, serve_messages)
            async with over_messages(wire.party_end, url) as carrier:
                yield carrier

        async def open_stream(_url: str, _context: SSLContext | None) -> Stream:
            await trio.lowlevel.checkpoint()
            return connect_plain(fleet, party)

        return Way(URL, dial, open_stream)


def connect_plain(fleet: Fleet, party: str) -> trio.abc.Stream:
    """Connect a party to a node, for bytes of any protocol that a node speaks. Raises ConnectionRefusedError."""
    name = fleet.route(party)
    if name is None:
        raise ConnectionRefusedError
    return fleet.connect(party, name, Server.serve_stream).party_end
