"""signald as a program meets it: a URL. Behind it an operator deploys, rolls back, and loses nodes."""

import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2
import jwt
from attrs import define

from signald.demo.cluster import Cluster, Entrance, Node, open_cluster
from tests.real.harness import DEADLINE_S, DRAIN, PATIENCE, Settings
from tests.store.redis_servers import Server, servers

BETWEEN: Final = "between the moves"
UNPLANNED: Final = ("kill", "after a kill")
"""What the operator had not planned: only then may a request be cut. A line that tells of it may be read when it is over."""

SECRET: Final = secrets.token_urlsafe(32)
ADMIN_TOKEN: Final = secrets.token_urlsafe(32)
ORIGIN: Final = "https://app.example"
"""Where the pages come from."""
OPERATORS: Final[Settings] = {
    "drain": DRAIN,
    "admin": {"socket": "off", "token": ADMIN_TOKEN},
    "auth": {
        "jwt_secret": SECRET,
        "leeway_s": 0.0,
        "expiry_grace_s": 2.0,
        "cookie_name": "session",
        "api_token_ttl_s": 20.0,
    },
    "listen": {"allowed_origins": [ORIGIN]},
}
CREDENTIAL_S: Final = 3600
"""Far longer than a story: what happens when a credential runs out is a matter of its own."""


def credential(role: str, subject: str, life_s: int = CREDENTIAL_S, **claims: object) -> str:
    """Return a JWT as the users' own service would issue it."""
    now = int(time.time())
    return jwt.encode({"sub": subject, "role": role, "iat": now, "exp": now + life_s, **claims}, SECRET, "HS256")


class Stage:
    """A node in service, and the load balancer before it: new connections go to the node that was started last."""

    def __init__(self, cluster: Cluster, entrance: Entrance) -> None:
        self._cluster = cluster
        self._entrance = entrance
        self._node: Node | None = None

    @property
    def url(self) -> str:
        """Where programs connect, without a path."""
        return self._entrance.url

    @property
    def node(self) -> Node:
        """The node to which new connections go."""
        assert self._node is not None
        return self._node

    async def start(self) -> None:
        """Start a node, and send what comes from now on to it."""
        self._node = await self._cluster.start_node()
        await self._entrance.point_to(self._node.websocket)

    async def replace(self) -> Node:
        """Start a node in the place of the present one, ask that to stop, and return it."""
        old = self.node
        await self.start()
        old.send_signal(signal.SIGTERM)
        return old

    async def ends(self, node: Node) -> None:
        """Wait until `node` has stopped, as it was asked to."""
        assert await node.wait(DEADLINE_S * PATIENCE) == 0, node.log_tail()
        await self._cluster.forget(node)

    async def kill(self) -> None:
        """End the node as a power cut would."""
        old = self.node
        old.send_signal(signal.SIGKILL)
        await old.wait(DEADLINE_S)
        await self._cluster.forget(old)


@define
class Place:
    """Where all is stored."""

    url: str
    server: Server | None = None
    """The Redis, which keeps nothing over its own end."""
    directory: Path | None = None
    """Of the file, for SQLite."""

    def remove(self) -> None:
        """Remove the file; no node runs."""
        assert self.directory is not None
        for path in self.directory.glob("signald.db*"):
            path.unlink()


class Service:
    """One node for all parties, or one for the clients and one for the workers, so that each message crosses nodes; or more."""

    def __init__(self, stages: Sequence[Stage], settings: Settings, media: Path, place: Place) -> None:
        """Clients enter at the first of `stages`, workers at the second one if there is one; the others are for plays that ask for them."""
        self.settings = settings
        """What the operator has set."""
        self.media = media
        """The directory of the bytes of blobs, which all nodes share."""
        self.doing = BETWEEN
        """What the operator is doing now."""
        self.leaving: list[Node] = []
        """The clients' nodes that were asked to stop and have not ended yet."""
        self._stages = stages
        self._clients = stages[0]
        self._workers = stages[:2][-1]
        self._place = place

    @property
    def urls(self) -> list[str]:
        """Where each node is entered, that of the clients first."""
        return [stage.url for stage in self._stages]

    @property
    def url(self) -> str:
        """Where clients and backends connect, without a path."""
        return self._clients.url

    @property
    def workers_url(self) -> str:
        """Where workers connect."""
        return self._workers.url

    @property
    def node(self) -> Node:
        """The node to which new connections of clients go."""
        return self._clients.node

    @property
    def operators_url(self) -> str:
        """Where the clients' node shows health and metrics."""
        host, port = self._clients.node.http
        return f"http://{host}:{port}"

    async def recall(self, subject: str) -> None:
        """Void what was issued to `subject` so far."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with httpx2.AsyncClient(base_url=self.operators_url, headers=headers, timeout=30) as operator:
            (await operator.post("/v1/admin/revoke", json={"subject": subject})).raise_for_status()

    async def start(self) -> None:
        """Start the first nodes."""
        for stage in self._stages:
            await stage.start()

    @asynccontextmanager
    async def deploying(self) -> AsyncIterator[None]:
        """Put new nodes in the place of the old ones, the clients' last. The block runs while the clients' node drains."""
        self.doing = "deploy"
        for stage in self._stages[1:]:
            await stage.ends(await stage.replace())
        self.leaving.append(await self._clients.replace())
        yield
        await self._end_leaving()

    @asynccontextmanager
    async def rolling_back(self) -> AsyncIterator[None]:
        """Deploy a clients' node and take it back at once: the next one takes its place while the old one still drains."""
        self.doing = "rollback"
        self.leaving.append(await self._clients.replace())
        self.leaving.append(await self._clients.replace())
        yield
        await self._end_leaving()

    async def _end_leaving(self) -> None:
        while self.leaving:
            await self._clients.ends(self.leaving[0])
            del self.leaving[0]
        self.doing = BETWEEN

    @asynccontextmanager
    async def killing(self) -> AsyncIterator[None]:
        """Lose the clients' node to SIGKILL. The block runs while there is none; then another one is started."""
        async with self._losing(self._clients):
            yield

    @asynccontextmanager
    async def killing_workers_node(self) -> AsyncIterator[None]:
        """Lose the workers' node likewise; it is the same where there is one for all."""
        async with self._losing(self._workers):
            yield

    @asynccontextmanager
    async def _losing(self, stage: Stage) -> AsyncIterator[None]:
        self.doing = UNPLANNED[0]
        await stage.kill()
        yield
        await stage.start()
        self.doing = UNPLANNED[1]

    @asynccontextmanager
    async def emptying(self) -> AsyncIterator[None]:
        """Lose all that is stored. The block runs while the store is away, and with SQLite the nodes too."""
        self.doing = UNPLANNED[0]
        server = self._place.server
        if server is None:
            for stage in self._stages:
                await stage.kill()
            self._place.remove()
        else:
            await server.kill()
        yield
        if server is not None:
            await server.start()
        else:
            await self.start()
        self.doing = UNPLANNED[1]

    @asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """Lose all that is stored while the store and the nodes go on, as far as the store can; the block runs after it."""
        if self._place.server is None:
            async with self.emptying():
                yield
            return
        self.doing = UNPLANNED[0]
        self._place.server.ask("FLUSHALL")
        yield
        self.doing = UNPLANNED[1]


@asynccontextmanager
async def open_service(store: str, nodes: int, directory: Path, settings: Settings) -> AsyncIterator[Service]:
    """Run so many nodes on `store`, which is `sqlite` or `redis`, for the time of the block."""
    media = directory / "media"
    shared: Settings = {"blobs": {**settings.get("blobs", {}), "url": f"file:{media}"}}
    operators: Settings = {**OPERATORS, **settings, **shared}
    async with _open_place(store, directory) as place, open_cluster(directory, place.url, operators) as cluster:
        names = ["public", "workers'", *(f"{number}." for number in range(3, nodes + 1))][:nodes]
        stages = [Stage(cluster, await cluster.open_entrance(name)) for name in names]
        service = Service(stages, settings, media, place)
        await service.start()
        yield service


@asynccontextmanager
async def _open_place(store: str, directory: Path) -> AsyncIterator[Place]:
    if store == "sqlite":
        yield Place(f"sqlite:{directory}/signald.db", directory=directory)
        return
    server = Server(directory)
    async with servers(server):
        yield Place(server.url, server)
