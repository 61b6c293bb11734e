"""TCP connections that are half open: the peer is gone, or cannot be reached, and no packet says so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
import trio

from signald.sdk.events import Disconnected, Replaced, Resumed
from signald.sdk.trio import Timing
from tests.real.harness import HOST, Address, dial, exit_of, logged, open_nodes, open_talk, term, until, url_of
from tests.real.sqlite_files import Footprint

pytestmark = pytest.mark.real

PING_S = PONG_S = 2.0
SLACK_S = 4.0
"""The node's tick, the party's wait before it dials, and a busy machine."""

SETTINGS: dict[str, dict[str, object]] = {
    "timeouts": {"ping_interval_s": PING_S, "pong_timeout_s": PONG_S, "close_s": 1.0},
    "log": {"level": "debug"},
}
Way = Literal["both", "to the node", "to the party"]


class Vanishing:
    """A TCP proxy whose connections can fall silent: what is sent is swallowed, and neither end hears of the other's end."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.url = ""
        self.dead = False
        """While true, the kernel accepts each new connection, which then hears nothing."""
        self._to = to
        self._silent: dict[int, Way] = {}
        self._count = 0

    def vanish(self, way: Way = "both") -> None:
        """Silence every connection there is, in one direction or both; those to come are carried."""
        for number in range(self._count):
            self._silent.setdefault(number, way)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.url = f"ws://{HOST}:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)  # type: ignore[arg-type]

    async def _serve(self, near: trio.SocketStream) -> None:
        number, self._count = self._count, self._count + 1
        if self.dead:
            self._silent[number] = "both"
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with near, await trio.open_tcp_stream(*self._to) as far, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, number, near, far, "to the node", nursery.cancel_scope)
                await self._carry(number, far, near, "to the party", nursery.cancel_scope)

    async def _carry(
        self, number: int, source: trio.SocketStream, sink: trio.SocketStream, way: Way, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if self._silent.get(number) not in ("both", way):
                    await sink.send_all(data)
        if number in self._silent:
            # An end that the other side does not notice: it stays as it is.
            await trio.sleep_forever()
        scope.cancel(reason="one side has gone")


@asynccontextmanager
async def vanishing(to: tuple[str, int]) -> AsyncIterator[Vanishing]:
    """A proxy in front of a node's WebSocket address for the time of the block."""
    made = Vanishing(to)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("way", ["both", "to the node", "to the party"])
async def test_parties_fall_silent_and_come_back(tmp_path: Path, way: Way) -> None:
    """Client and worker find out by their pings, come back within the timeouts, keep each other, and lose nothing.

    The node's half of the old connections is gone as soon; it never hears of the parties' end of them.
    """
    timing = Timing(pong_timeout_s=PONG_S, connect_s=2.0, answer_s=3.0, close_s=1.0)
    address = Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        node = await nodes.start("node", address)
        async with vanishing(node.websocket) as proxy, open_talk() as talk:
            worker = await talk.worker("worker", proxy.url, timing=timing)
            for n in range(4):
                await talk.client(f"client {n}", proxy.url, timing=timing)
            talk.begin()
            await talk.goes_on(3)
            before = Footprint.of(node)
            proxy.vanish(way)
            await until(
                lambda: all(len(chatter.saw(Resumed)) == 1 for chatter in talk.chatters) and worker.connections == 2,
                PING_S + PONG_S + SLACK_S,
                "all are back:\n" + talk.account(),
            )
            await talk.goes_on(3)
            await until(lambda: Footprint.of(node) == before, PING_S + PONG_S + SLACK_S, "nothing is left of the old")
            await talk.settle()
            for chatter in talk.chatters:
                assert len(chatter.saw(Disconnected)) == 1, talk.account()
                assert not chatter.saw(Replaced)
            term(node)
            assert await exit_of(node) == 0


async def test_a_party_that_vanishes_for_good_is_found_by_the_node(tmp_path: Path) -> None:
    """Within ping interval and pong timeout its connection is closed with 4408 and its descriptor given back."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        node = await nodes.start("node")
        with trio.fail_after(90):
            async with vanishing(node.websocket) as proxy, dial(proxy.url, "/v1/client") as client:
                await client.ask({"type": "connect"}, "session_started")
                await trio.sleep(PING_S + PONG_S + 1)  # it answers the node's pings
                assert not logged(node, "connection_closed")
                attached = Footprint.of(node)
                proxy.vanish()
                await until(
                    # Its own, and with the last connection that of the poller.
                    lambda: Footprint.of(node).descriptors < attached.descriptors,
                    PING_S + PONG_S + SLACK_S,
                    "the node has let go of it",
                )
                await until(lambda: logged(node, "connection_closed"), 5, "it says why")
                (closed,) = logged(node, "connection_closed")
                assert (closed["code"], closed["by"]) == (4408, "local")
            async with dial(url_of(node), "/v1/client") as other:
                await other.ask({"type": "connect"}, "session_started")
            term(node)
            assert await exit_of(node) == 0


async def test_a_node_that_vanishes_is_left(tmp_path: Path) -> None:
    """Its host is gone without a word: parties go to the other node within the timeouts, and lose nothing."""
    timing = Timing(pong_timeout_s=PONG_S, connect_s=2.0, answer_s=3.0, close_s=1.0)
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        gone, other = await nodes.start("gone"), await nodes.start("other")
        async with vanishing(gone.websocket) as proxy, open_talk() as talk:
            worker = await talk.worker("worker", proxy.url, url_of(other), timing=timing)
            for n in range(4):
                await talk.client(f"client {n}", proxy.url, url_of(other), timing=timing)
            talk.begin()
            await talk.goes_on(3)
            proxy.vanish()
            proxy.dead = True
            await until(
                lambda: all(len(chatter.saw(Resumed)) == 1 for chatter in talk.chatters),
                PING_S + PONG_S + timing.connect_s + SLACK_S,
                "all are back:\n" + talk.account(),
            )
            await talk.goes_on(3)
            await talk.settle()
            assert worker.connections == 2
            for node in (gone, other):
                term(node)
            assert [await exit_of(node) for node in (gone, other)] == [0, 0]
