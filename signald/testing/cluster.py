"""Whole nodes in one `trio.run`, on one store in memory, reached over memory streams.

The nodes are the production ones (`daemon.node_on`). Sockets and disks are missing, so a test may own the clock.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
import trio_websocket
from starlette.routing import BaseRoute

from signald.blobs.media import Media
from signald.blobs.memory import MemoryMedia
from signald.config import Config
from signald.http.client import Poster
from signald.ids import SeededEntropy
from signald.node import Node, api_routes, node_on
from signald.service.cluster.identity import Claimant
from signald.service.dialect import Dialect
from signald.service.hub import Hub
from signald.service.telemetry import Spans
from signald.store.base import Store
from signald.store.memory import MemoryWorld, open_memory
from signald.testing.wire import Json, Peer


def config_for(name: str, **sections: dict[str, object]) -> Config:
    """The default configuration of a node called `name`; `sections` override single keys."""
    config = attrs.evolve(Config(), node=attrs.evolve(Config().node, id=name, release="test"))
    for section, values in sections.items():
        config = attrs.evolve(config, **{section: attrs.evolve(getattr(config, section), **values)})
    return config


class SameHost:
    """What a host knows of the processes that held an id: in a simulation one ends before the next begins."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def dead(self, incarnation: str, secret: bytes) -> frozenset[str]:
        """See `signald.service.cluster.identity.Host`."""
        del secret
        dead = frozenset(self._names - {incarnation})
        self._names.add(incarnation)
        return dead

    def close(self) -> None:
        """Do nothing."""


class Cluster:
    """Nodes on one memory world."""

    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.world = MemoryWorld(started_ms=1_700_000_000_000)
        self.open_store: Callable[[str], AbstractAsyncContextManager[Store]] = lambda name: open_memory(
            "memory:", name, world=self.world
        )
        self.nodes: dict[str, Node] = {}
        self._nursery = nursery
        self._entropy = SeededEntropy(seed)
        self._scopes: dict[str, trio.CancelScope] = {}
        self.hosts: defaultdict[str, SameHost] = defaultdict(SameHost)
        """By node id."""
        self.exits: list[str] = []
        self.spans: Callable[[str], Spans | None] = lambda _name: None
        """Where a node tells its spans."""
        self.dialects: Sequence[Dialect] | None = None
        """The wires that a node speaks which is started from now on; None: those of its configuration."""
        self.media: Media | None = MemoryMedia()
        """Where all nodes that are started from now on keep the bytes of blobs; None: they keep none."""
        self.routes: Callable[[Hub], Sequence[BaseRoute]] = api_routes
        """The routes of the HTTP API of a node which is started from now on."""
        self.core: Poster | None = None
        """The core server that a node asks and tells which is started from now on."""

    async def start(self, name: str, **sections: dict[str, object]) -> Node:
        """Start a node and wait until it is ready."""
        node: Node = await self._nursery.start(self._run, name, sections)
        self.nodes[name] = node
        return node

    def _claimant(self, name: str) -> Claimant:
        return Claimant(self.hosts[name])

    async def _run(
        self, name: str, sections: dict[str, Any], task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.CancelScope() as scope:
            self._scopes[name] = scope
            async with (
                self.open_store(name) as store,
                node_on(
                    store,
                    config_for(name, **sections),
                    self._entropy,
                    self.spans(name),
                    self._claimant(name),
                    media=self.media,
                    dialects=self.dialects,
                    routes=self.routes,
                    core=self.core,
                ) as node,
            ):
                await node.lease.set_state("ready")
                task_status.started(node)
                await node.shutdown.run()
            self.exits.append(name)
        del self.nodes[name]

    async def dial(
        self,
        name: str,
        path: str,
        subprotocol: str | None = "signald.v1",
        *,
        streams: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair,
        remote: str = "memory",
    ) -> Peer:
        """Open a connection to a node from `remote`. Lockstep `streams` take nothing that is not read."""
        ours, theirs = streams()
        self.nodes[name].hub.spawn(self.nodes[name].server.serve_stream, theirs, remote)
        socket = await trio_websocket.wrap_client_stream(
            self._nursery,
            ours,
            "node",
            path,
            subprotocols=[subprotocol] if subprotocol else None,
        )
        return Peer(socket, ours)

    def plain(self, name: str, *, remote: str = "memory") -> trio.abc.Stream:
        """Open a connection to a node from `remote` on which nothing was said yet, for HTTP."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nodes[name].hub.spawn(self.nodes[name].server.serve_stream, theirs, remote)
        return ours

    async def client(self, name: str, **fields: object) -> tuple[Peer, Json]:
        """Open a client's connection and start a session."""
        peer = await self.dial(name, "/v1/client")
        return peer, await peer.ask({"type": "connect", **fields}, "session_started")

    async def worker(self, name: str, instance: str = "worker-a", **fields: object) -> tuple[Peer, Json]:
        """Open a worker's connection and register it."""
        peer = await self.dial(name, "/v1/worker")
        answer = await peer.ask(
            {"type": "app_ready", "instance_id": instance, "capacity": 10, **fields}, "app_accepted"
        )
        return peer, answer

    async def pair(self, name: str, worker_at: str = "") -> tuple[Peer, Json, Peer, Json, str]:
        """A client and a worker, on one node or on two, paired."""
        worker, accepted = await self.worker(worker_at or name)
        client, started = await self.client(name)
        assigned = await worker.expect("session_assigned")
        await worker.send({"type": "session_accept", "session": assigned["session"]})
        while (await client.expect("peer"))["state"] != "paired":
            pass
        return client, started, worker, accepted, str(started["session"])

    async def restore(self, name: str, token: str, **fields: object) -> tuple[Peer, Json]:
        """Open a client's connection and resume; returns the first frame, whatever it is."""
        peer = await self.dial(name, "/v1/client")
        await peer.send({"type": "restore_session", "recovery_token": token, **fields})
        return peer, await peer.receive()

    async def resume(self, name: str, token: str, *sessions: Json, **fields: object) -> tuple[Peer, Json]:
        """Open a worker's connection and resume; returns the first frame, whatever it is."""
        peer = await self.dial(name, "/v1/worker")
        ready = {"type": "app_ready", "instance_id": "worker-a", "capacity": 10, "reconnection": True, **fields}
        await peer.send({**ready, "recovery_token": token, "sessions": list(sessions)})
        return peer, await peer.receive()

    async def wait_exit(self, name: str) -> None:
        """Wait until a node has drained and returned."""
        while name not in self.exits:  # noqa: ASYNC110 - in virtual time a poll costs nothing
            await trio.sleep(0.01)

    def kill(self, name: str) -> None:
        """SIGKILL, as near as one process can: no goodbye, no store operation after it."""
        node = self.nodes[name]
        node.committer.down_since = trio.current_time()
        node.committer.store = _Dead()  # type: ignore[assignment]
        self._scopes[name].cancel(reason="killed")


class _Dead:
    """A store behind a process that is no more."""

    async def execute(self, ops: object) -> Any:
        del ops
        await trio.sleep_forever()


@asynccontextmanager
async def open_cluster(seed: int = 1) -> AsyncIterator[Cluster]:
    """Run a cluster around the body; everything that still runs then is cancelled."""
    async with trio.open_nursery() as nursery:
        yield Cluster(nursery, seed)
        nursery.cancel_scope.cancel(reason="the test is over")


def play(scene: Callable[[Cluster], Awaitable[None]], seed: int = 1, *, within_s: float = 600) -> None:
    """Run `scene` on a fresh cluster under a clock of its own, by which it ends `within_s`."""

    async def main() -> None:
        with trio.fail_after(within_s):
            async with open_cluster(seed) as cluster:
                await scene(cluster)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
