"""The HTTP server of `listen.http` and of the admin socket: accepts connections and gives each a place.

Peers that dawdle over a request or a body hold connections for long. When all places are taken, they give way, so that they
cannot keep a probe out. `signald.http.connection` serves each connection.
"""

from functools import partial
from typing import Any

import trio
from hypercorn.trio.worker_context import WorkerContext
from starlette.types import ASGIApp

from signald.http.connection import HttpConnection, hypercorn_config
from signald.places import Places

# Probes, scrapes and operators: far fewer than parties, and a flood here must not take the parties' descriptors. Beyond it the
# oldest connection without a request gives way, or the one that makes least progress: a probe always finds a place.
CONNECTIONS_MAX = 512


async def serve_http(
    app: ASGIApp,
    listeners: list[trio.SocketListener],
    *,
    shutdown: trio.Event,
    grace_s: float = 2.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listeners` until `shutdown` is set, and close them.

    After `shutdown` nothing is accepted, idle connections close at once, and answers under way have `grace_s` seconds.
    Cancelling is safe too and ends all connections at once.
    """
    context = WorkerContext(max_requests=None)
    config = hypercorn_config()
    places = Places(always=True)

    async def handle(stream: trio.SocketStream) -> None:
        connection = HttpConnection(app, config, context, stream)
        place = places.take(
            connection.holder,
            trio.current_time(),
            CONNECTIONS_MAX,
            partial(connection.cut, "http: gave way to another"),
        )
        assert place is not None, "a newcomer is never refused"
        connection.on_request = partial(places.heard, place, 0)
        try:
            await connection.run()
        finally:
            places.leave(place)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            await accepting.start(_serve_listeners, handle, listeners, connections)
            task_status.started()
            await shutdown.wait()
            accepting.cancel_scope.cancel(reason="http: shutdown")
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + grace_s


async def _serve_listeners(
    handle: Any,
    listeners: list[trio.SocketListener],
    connections: trio.Nursery,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    await trio.serve_listeners(handle, listeners, handler_nursery=connections, task_status=task_status)
