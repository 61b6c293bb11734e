"""signald as a program meets it: one URL. Behind it an operator deploys, rolls back, and loses nodes."""

import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import jwt

from signald.demo.cluster import Cluster, Entrance, Node, open_cluster
from tests.real.harness import DEADLINE_S, DRAIN, PATIENCE, Settings
from tests.store.redis_servers import Server, servers

BETWEEN: Final = "between the moves"
UNPLANNED: Final = ("kill", "after a kill")
"""What the operator had not planned: only then may a request be cut. A line that tells of it may be read when it is over."""

SECRET: Final = secrets.token_urlsafe(32)
ORIGIN: Final = "https://app.example"
"""Where the pages come from."""
OPERATORS: Final[Settings] = {
    "drain": DRAIN,
    "admin": {"socket": "off"},
    "auth": {"jwt_secret": SECRET, "leeway_s": 0.0, "expiry_grace_s": 2.0},
    "listen": {"allowed_origins": [ORIGIN]},
}
CREDENTIAL_S: Final = 3600
"""Far longer than a story: what happens when a credential runs out is a matter of its own."""


def credential(role: str, subject: str, life_s: int = CREDENTIAL_S, **claims: object) -> str:
    """Return a JWT as the users' own service would issue it."""
    now = int(time.time())
    return jwt.encode({"sub": subject, "role": role, "iat": now, "exp": now + life_s, **claims}, SECRET, "HS256")


class Service:
    """The nodes behind one address, which is that of a load balancer. New connections go to the node that was started last."""

    def __init__(self, cluster: Cluster, entrance: Entrance, settings: Settings) -> None:
        self.settings = settings
        """What the operator has set."""
        self._cluster = cluster
        self._entrance = entrance
        self._node: Node | None = None
        self.doing = BETWEEN
        """What the operator is doing now."""

    @property
    def url(self) -> str:
        """Where programs connect, without a path."""
        return self._entrance.url

    @property
    def operators_url(self) -> str:
        """Where the node in service shows health and metrics."""
        host, port = self._in_service().http
        return f"http://{host}:{port}"

    def _in_service(self) -> Node:
        assert self._node is not None
        return self._node

    async def start(self) -> None:
        """Start a node, and send what comes from now on to it."""
        self._node = await self._cluster.start_node()
        await self._entrance.point_to(self._node.websocket)

    @asynccontextmanager
    async def deploying(self) -> AsyncIterator[None]:
        """Put a new node in the place of the old one. The block runs while the old one drains."""
        old = self._in_service()
        await self.start()
        self.doing = "deploy"
        old.send_signal(signal.SIGTERM)
        yield
        await self._ends(old)
        self.doing = BETWEEN

    @asynccontextmanager
    async def rolling_back(self) -> AsyncIterator[None]:
        """Deploy, and take it back at once: a second new node takes the place of the first while the old one still drains."""
        old = self._in_service()
        await self.start()
        self.doing = "rollback"
        old.send_signal(signal.SIGTERM)
        bad = self._in_service()
        await self.start()
        bad.send_signal(signal.SIGTERM)
        yield
        await self._ends(old)
        await self._ends(bad)
        self.doing = BETWEEN

    @asynccontextmanager
    async def killing(self) -> AsyncIterator[None]:
        """Lose the only node to SIGKILL. The block runs while there is none; then another one is started."""
        self.doing = UNPLANNED[0]
        old = self._in_service()
        old.send_signal(signal.SIGKILL)
        await old.wait(DEADLINE_S)
        await self._cluster.forget(old)
        yield
        await self.start()
        self.doing = UNPLANNED[1]

    async def _ends(self, node: Node) -> None:
        assert await node.wait(DEADLINE_S * PATIENCE) == 0, node.log_tail()
        await self._cluster.forget(node)


@asynccontextmanager
async def open_service(store: str, directory: Path, settings: Settings) -> AsyncIterator[Service]:
    """Run signald on `store`, which is `sqlite` or `redis`, for the time of the block."""
    async with _store_url(store, directory) as url, open_cluster(directory, url, {**OPERATORS, **settings}) as cluster:
        service = Service(cluster, await cluster.open_entrance("public"), settings)
        await service.start()
        yield service


@asynccontextmanager
async def _store_url(store: str, directory: Path) -> AsyncIterator[str]:
    if store == "sqlite":
        yield f"sqlite:{directory}/signald.db"
        return
    server = Server(directory)
    async with servers(server):
        yield server.url
