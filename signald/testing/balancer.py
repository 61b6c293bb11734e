"""The way of the SDK to a cluster in memory: a balancer before its nodes."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from urllib.parse import urlsplit

import trio
import trio.testing

from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier
from signald.sdk.trio_carrier import over_stream
from signald.testing.cluster import Cluster


class Balancer:
    """Sends new connections to the node it points to; established ones stay. Its `dial` is an argument of the SDK."""

    def __init__(self, cluster: Cluster, target: str) -> None:
        self._cluster = cluster
        self.target = target
        """The node that new connections to `ws://lb` reach."""
        self.dials: Counter[str] = Counter()
        """Node → how many connections were asked of it."""

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Carrier]:
        """Connect to the node that is the host of `url`, or to `target` when the host is `lb`.

        Raises:
            DialFailed: that node does not run.
        """
        host = urlsplit(url).hostname or ""
        name = self.target if host == "lb" else host
        self.dials[name] += 1
        if name not in self._cluster.nodes:
            raise DialFailed(None, "connection refused")
        node = self._cluster.nodes[name]
        ours, theirs = trio.testing.memory_stream_pair()
        node.hub.spawn(node.server.serve_stream, theirs)
        async with over_stream(ours, url) as carrier:
            yield carrier

    async def open_stream(self, url: str, _ssl_context: SSLContext | None = None) -> trio.abc.Stream:
        """Open a connection for HTTP, as `dial` does. Raises OSError."""
        host = urlsplit(url).hostname or ""
        name = self.target if host == "lb" else host
        await trio.lowlevel.checkpoint()
        if name not in self._cluster.nodes:
            raise ConnectionRefusedError
        return self._cluster.plain(name)
