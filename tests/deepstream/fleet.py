"""Apps of the fleet in memory: they know their guide and nothing of signald."""

from typing import Any

import attrs

from signald.config import AuthConfig
from signald.node import Node
from signald.service.auth import Role, mint
from signald.store.registry.ops import ListWorkers, WorkerInfo
from signald.testing.cluster import Cluster
from signald.testing.websocket import Speaker
from signald.testing.wire import Json, Peer
from tests.http.publicly import Answer, HttpPeer

SECRET = "a-shared-secret-of-thirty-two-bytes"
NOW = 1_700_000_000
ON: dict[str, dict[str, object]] = {"profiles": {"deepstream": True}}


def on(**deepstream: object) -> dict[str, dict[str, object]]:
    """The configuration of a node that lets apps in; `deepstream` are keys of its section."""
    return {**ON, "deepstream": deepstream}


def with_auth(**deepstream: object) -> dict[str, dict[str, object]]:
    """As `on`, with credentials."""
    return {**on(**deepstream), "auth": {"jwt_secret": SECRET}}


def credential(subject: str, role: Role = "worker", tenant: str | None = None) -> str:
    """A token of the operator's issuer."""
    return mint(AuthConfig(jwt_secret=SECRET), subject=subject, role=role, ttl_s=3600, now=NOW, tenant=tenant)


async def connect(cluster: Cluster, node: str) -> Peer:
    """Open an app's connection, as a program that offers no subprotocol."""
    return await cluster.dial(node, "/deepstream/ws", None)


async def ready(cluster: Cluster, node: str, instance: str = "cam-1", **fields: object) -> Peer:
    """Open an app's connection and say that it is ready; with `config.ack`, so that it is known to be let in."""
    app = await connect(cluster, node)
    await app.ask({"type": "app_ready", "instance_id": instance, "config": {"ack": True}, **fields}, "app_accepted")
    return app


async def back(
    cluster: Cluster, node: str, instance: str = "cam-1", *, after: int = 1001, **fields: object
) -> tuple[Peer, Json]:
    """Come again as the guide has it; returns the connection and its answer."""
    app = await connect(cluster, node)
    said = {"type": "app_ready", "instance_id": instance, "reconnection": True, "last_close_code": after, **fields}
    return app, await app.ask(said, "reconnection_ack")


async def speaking(cluster: Cluster, node: str, instance: str = "cam-1") -> Speaker:
    """An app whose frames a test writes itself: nothing answers a Ping unless it listens."""
    app = Speaker(cluster.plain(node))
    await app.open(path="/deepstream/ws")
    await app.say({"type": "app_ready", "instance_id": instance, "config": {"ack": True}})
    await app.hear("app_accepted")
    return app


async def terminated(app: Peer, *, status: str = "OK") -> Json:
    """Wait for `terminate_app`, clean up and answer it; returns the question."""
    asked = await app.expect("terminate_app")
    done = {"type": "app_terminated", "request_id": asked["request_id"], "status": status, "message": "cleaned up"}
    await app.send(done)
    return asked


async def health(cluster: Cluster, node: str, bearer: str = "", method: str = "GET") -> Answer:
    """Ask for the health of a node."""
    more = f"authorization: Bearer {bearer}\r\n" if bearer else ""
    peer = HttpPeer(cluster.plain(node))
    await peer.send(f"{method} /deepstream/health HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode())
    return await peer.answer(head=method == "HEAD")


@attrs.frozen
class Found:
    """What health says, briefly."""

    http: int
    status: str
    instances: list[str]
    sockets: tuple[int, int, int]
    """Total, authenticated, unauthenticated."""


async def found(cluster: Cluster, node: str, bearer: str = "") -> Found:
    """Ask for the health of a node, and read it."""
    answer = await health(cluster, node, bearer)
    said: Any = answer.json()
    sockets = said["websocket"]
    counts = tuple(sockets[f"{name}_connections"] for name in ("total", "authenticated", "unauthenticated"))
    assert len(counts) == 3
    assert sockets["is_shutting_down"] is (answer.status == 503)
    return Found(answer.status, said["status"], said["connected_instances"], counts)


async def registered(node: Node) -> dict[str, WorkerInfo]:
    """The workers of the registry, by instance."""
    listed = await node.committer.call(ListWorkers())
    return {info.instance: info for info in listed.workers}


async def paired(client: Peer) -> None:
    """Wait until a client has its app."""
    while (await client.expect("peer"))["state"] != "paired":
        pass
