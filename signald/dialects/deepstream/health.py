"""`GET /deepstream/health`: whether apps may come to this node, which are here, and how it is.

    200 {"status":"ok", …}               apps may come
    503 {"status":"shutting_down", …}    this node sends apps away, as each arrival is told by close 1013

A 503 with a problem document says that the node has no place for the request: an app takes both for the same.

The names of the instances are for those that may see them. Without a key for credentials that is any program that reaches the port.
With one it takes a good credential of role `worker` or `service`, and shows the instances of its own tenant. Others find the list
empty, and all else as it is: a probe needs no credential.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.core.wants import tenant_of
from signald.dialects.deepstream.link import AppLink
from signald.dialects.deepstream.paths import HEALTH, WEBSOCKET
from signald.dialects.deepstream.usage import Usage
from signald.http.api.describe import Answer, Operation, described, json_answer
from signald.http.api.times import rfc3339
from signald.net.connection import Connection
from signald.service.auth import Forbidden, Principal, Unauthenticated
from signald.service.hub import Hub
from signald.service.key_sets import KeysAway

TIMES_AS_OFTEN = 10
"""Of the rate of other requests. A fleet of 200 apps behind one address asks for health at once when a node has gone, and an app counts a
refusal as a failed try, of which it has ten. An answer costs less than a millisecond: a fifth of a core for one address at the most."""

INSTANCES_MAX = 1000
"""Names of one answer: five times the fleet of the largest site that is known, and 130 KB at most."""


class FleetSockets(Struct, frozen=True):
    """The connections of apps at this node."""

    total_connections: int
    authenticated_connections: Annotated[
        int, Meta(description="Those of apps that have said `app_ready` and were let in.")
    ]
    unauthenticated_connections: int
    is_shutting_down: bool


class ProcessUsage(Struct, frozen=True):
    """What the process of this node uses."""

    cpu_usage: Annotated[float, Meta(description="Percent of one core, since the answer before.")]
    memory_usage: Annotated[float, Meta(description="Percent of the memory limit, or of the machine.")]
    uptime: Annotated[float, Meta(description="Seconds since the process was started.")]


class FleetHealth(Struct, frozen=True):
    """Whether apps of a fleet may come to this node."""

    status: Literal["ok", "shutting_down"]
    timestamp: str
    connected_instances: Annotated[
        list[str], Meta(description=f"The apps that the caller may see, {INSTANCES_MAX:,} at most.")
    ]
    websocket: FleetSockets
    system: ProcessUsage


OK = Answer(200, "Apps may come.", FleetHealth)
SHUTTING_DOWN = Answer(503, "This node sends apps away; or, with a problem, has no place.", FleetHealth)

READ = Operation(
    name="readFleetHealth", method="GET", path=HEALTH, tag="deepstream", summary="Ask whether apps may come to this node",
    answers=(OK, SHUTTING_DOWN), times_as_often=TIMES_AS_OFTEN,
    about="Where the node verifies credentials, `Authorization: Bearer` with a JWT of role `worker` or `service` shows the instances "
    "of its tenant, and to a service without a tenant all. Any other caller finds the list empty, and all else as it is. "
    f"Each address may ask {TIMES_AS_OFTEN} times as often as for other requests.",
)  # fmt: skip


def health_routes(hub: Hub) -> list[BaseRoute]:
    """Return the route. Nothing in it waits."""
    usage = Usage()

    async def health(request: Request) -> Response:
        shutting_down = "worker" in hub.refusing
        body = _health(hub, usage, request, shutting_down=shutting_down)
        return json_answer(SHUTTING_DOWN if shutting_down else OK, body)

    return described((READ, health))


def _health(hub: Hub, usage: Usage, request: Request, *, shutting_down: bool) -> FleetHealth:
    links = [link for link in hub.worker_links.values() if isinstance(link, AppLink)]
    links = [link for link in links if not link.conn.closing]
    open_ones = sum(_is_open(conn) for conn in hub.connections.values())
    used = usage.read()
    return FleetHealth(
        "shutting_down" if shutting_down else "ok",
        rfc3339(hub.context.now_ms()),
        _instances(hub, links, request),
        FleetSockets(open_ones, len(links), max(0, open_ones - len(links)), shutting_down),
        ProcessUsage(used.cpu, used.memory, used.uptime_s),
    )


def _is_open(conn: Connection) -> bool:
    return conn.route == WEBSOCKET and not conn.closing


def _instances(hub: Hub, links: list[AppLink], request: Request) -> list[str]:
    """Return the names that the caller may see, at most `INSTANCES_MAX`."""
    if hub.auth.keys is None:
        return sorted({link.instance for link in links})[:INSTANCES_MAX]
    caller = _caller(hub, request)
    if caller is None:
        return []
    of_all = caller.role == "service" and caller.tenant is None
    tenant = tenant_of(caller.name)
    seen = {link.instance for link in links if of_all or tenant_of(link.principal) == tenant}
    return sorted(seen)[:INSTANCES_MAX]


def _caller(hub: Hub, request: Request) -> Principal | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return hub.auth.verify(text.strip(), ("worker", "service"), hub.context.now_ms() / 1000).principal
    except (Unauthenticated, Forbidden, KeysAway):
        return None
