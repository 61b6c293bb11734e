"""HTTP through a planned stop: nothing that has arrived is cut, and no connection stays with a node that goes."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from signald.http.api.bodies import read_body
from signald.service.hub import Hub
from signald.testing.cluster import Cluster, play
from tests.http.publicly import HttpPeer

GET = b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n"


class Routes:
    """Routes whose answers a test lets go."""

    def __init__(self) -> None:
        self.leave = trio.Event()
        self.entered = trio.Event()

    def of(self, hub: Hub) -> Sequence[BaseRoute]:
        """The routes."""
        return [
            Route("/hello", self._hello),
            Route("/wait", self._wait),
            Route("/poll", self._poll),
            Route("/size", self._size, methods=["POST"]),
        ]

    async def _hello(self, request: Request) -> Response:
        return JSONResponse({"draining": request.app.state.draining.is_set()})

    async def _wait(self, _: Request) -> Response:
        self.entered.set()
        await self.leave.wait()
        return Response("waited")

    async def _poll(self, request: Request) -> Response:
        self.entered.set()
        await request.app.state.draining.wait()
        return Response("as it is")

    async def _size(self, request: Request) -> Response:
        self.entered.set()
        return JSONResponse({"size": len(await read_body(request))})


async def start(cluster: Cluster, name: str = "n1", **drain: object) -> Routes:
    """Start a node with such routes."""
    routes = Routes()
    cluster.routes = routes.of
    await cluster.start(name, drain=drain)
    return routes


def dial(cluster: Cluster, name: str = "n1") -> HttpPeer:
    """Open a connection that speaks HTTP."""
    return HttpPeer(cluster.plain(name))


async def kept_busy(cluster: Cluster) -> Any:
    """Leave a client at the node that heeds no goaway, so that its drain takes its time."""
    client, _ = await cluster.client("n1")
    return client


def test_answers_are_the_last_ones_of_their_connections() -> None:
    """From the signal on each answer has `Connection: close`, on connections old and new, as long as the drain takes."""

    async def scene(cluster: Cluster) -> None:
        await start(cluster)
        await cluster.start("n2")
        await kept_busy(cluster)
        old = dial(cluster)
        before = await old.ask(GET)
        assert (before.json(), "connection" in before.headers) == ({"draining": False}, False)
        cluster.nodes["n1"].shutdown.signal()
        for peer in (old, dial(cluster)):
            answer = await peer.ask(GET)
            assert (answer.json(), answer.headers["connection"]) == ({"draining": True}, "close")
            assert await peer.ended() == b""
        await trio.sleep(5)
        assert "n1" in cluster.nodes
        assert (await dial(cluster).ask(GET)).status == 200
        await cluster.wait_exit("n1")

    play(scene)


def test_idle_connections_end_a_moment_later() -> None:
    """A request that is sent before its sender can see the end is answered; then the connection is closed, whatever the drain does."""

    async def scene(cluster: Cluster) -> None:
        await start(cluster)
        await cluster.start("n2")
        await kept_busy(cluster)
        idle, crossing = dial(cluster), dial(cluster)
        for peer in (idle, crossing):
            assert (await peer.ask(GET)).status == 200
        began = trio.current_time()
        cluster.nodes["n1"].shutdown.signal()
        await trio.sleep(0.9)
        assert (await crossing.ask(GET)).headers["connection"] == "close"
        assert await idle.ended() == b""
        assert trio.current_time() - began == pytest.approx(1.0)
        assert "n1" in cluster.nodes

    play(scene)


def test_a_request_under_way_outlasts_the_drain() -> None:
    """The node waits for the answer when its parties have long moved, and ends as soon as it is out."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster)
        peer = dial(cluster)
        await peer.send(GET.replace(b"/hello", b"/wait"))
        await routes.entered.wait()
        cluster.nodes["n1"].shutdown.signal()
        await trio.sleep(30)
        assert "n1" in cluster.nodes
        routes.leave.set()
        assert (await peer.answer()).body == b"waited"
        began = trio.current_time()
        await cluster.wait_exit("n1")
        assert trio.current_time() - began < 1.0

    play(scene)


def test_an_upload_under_way_is_finished() -> None:
    """A body goes on coming through the drain, and is answered."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster)
        peer = dial(cluster)
        await peer.send(b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n")
        await routes.entered.wait()
        cluster.nodes["n1"].shutdown.signal()
        for _ in range(20):
            await trio.sleep(1)
            await peer.send(b"x")
        assert (await peer.answer()).json() == {"size": 20}
        await cluster.wait_exit("n1")

    play(scene)


def test_what_waits_sees_the_drain() -> None:
    """A route that waits is told at the signal, and answers with the state as it is."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster)
        peer = dial(cluster)
        await peer.send(GET.replace(b"/hello", b"/poll"))
        await routes.entered.wait()
        began = trio.current_time()
        cluster.nodes["n1"].shutdown.signal()
        answer = await peer.answer()
        assert (answer.body, answer.headers["connection"]) == (b"as it is", "close")
        assert trio.current_time() == began
        await cluster.wait_exit("n1")

    play(scene)


def test_a_request_without_end_is_cut_at_the_deadline() -> None:
    """`drain.timeout_s` holds for HTTP as well: the node always ends by itself."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster, timeout_s=20.0)
        peer = dial(cluster)
        await peer.send(GET.replace(b"/hello", b"/wait"))
        await routes.entered.wait()
        began = trio.current_time()
        cluster.nodes["n1"].shutdown.signal()
        assert await peer.ended() == b""
        assert trio.current_time() - began == pytest.approx(20.0, abs=0.2)
        await cluster.wait_exit("n1")

    play(scene)


def test_a_second_signal_leaves_a_second() -> None:
    """A drain that is hurried waits for HTTP no longer than a moment."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster)
        peer = dial(cluster)
        await peer.send(GET.replace(b"/hello", b"/wait"))
        await routes.entered.wait()
        began = trio.current_time()
        for _ in range(2):
            cluster.nodes["n1"].shutdown.signal()
        assert await peer.ended() == b""
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.2)
        await cluster.wait_exit("n1")

    play(scene)


def test_a_signal_behind_the_drain_cuts() -> None:
    """When nothing but HTTP is waited for, a further signal ends that at once."""

    async def scene(cluster: Cluster) -> None:
        routes = await start(cluster)
        node = cluster.nodes["n1"]
        peer = dial(cluster)
        await peer.send(GET.replace(b"/hello", b"/wait"))
        await routes.entered.wait()
        node.shutdown.signal()
        await trio.sleep(10)
        node.public.hurry()
        began = trio.current_time()
        assert await peer.ended() == b""
        await cluster.wait_exit("n1")
        assert trio.current_time() - began < 1.5

    play(scene)


def test_the_drain_of_an_operator_changes_nothing() -> None:
    """The process stays, and with it its HTTP connections."""

    async def scene(cluster: Cluster) -> None:
        await start(cluster)
        peer = dial(cluster)
        assert (await peer.ask(GET)).status == 200
        cluster.nodes["n1"].shutdown.begin("a look")
        await trio.sleep(5)
        answer = await peer.ask(GET)
        assert (answer.json(), "connection" in answer.headers) == ({"draining": False}, False)
        cluster.nodes["n1"].shutdown.signal()
        assert (await peer.ask(GET)).headers["connection"] == "close"
        await cluster.wait_exit("n1")

    play(scene)


def test_a_head_under_way_at_the_end_is_waited_for() -> None:
    """A connection that was accepted brings its first request within a round trip or two; a silent one holds up no end."""

    async def scene(cluster: Cluster) -> None:
        await start(cluster)
        peer, silent = dial(cluster), dial(cluster)
        await peer.send(GET[:20])
        began = trio.current_time()
        cluster.nodes["n1"].shutdown.signal()
        await trio.sleep(0.3)
        answer = await peer.ask(GET[20:])
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await cluster.wait_exit("n1")
        assert trio.current_time() - began < 2.5
        assert await silent.ended() == b""

    play(scene)
