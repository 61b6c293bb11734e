"""The whole service with parties that speak frame by frame, so that every byte of an end can be seen.

The nodes are the production ones. `over_tcp` gives each a listening socket and takes real time; `in_memory` owns the clock. All parties
are authenticated. On a node with bystanders a client and its worker are in conversation, whatever happens to others.
authenticated. On a node with bystanders a client and its worker are in conversation, whatever happens to others.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from signald.net.listener import open_listeners
from signald.node import Node
from signald.testing.cluster import Cluster, open_cluster
from signald.testing.websocket import Client, Speaker, close
from signald.testing.wire import Json
from tests.net.clients import open_files, until
from tests.service.test_opening import AUTH, token_for

DRAIN: dict[str, object] = {
    "unready_s": 0.3,
    "successor_timeout_s": 0.5,
    "worker_timeout_s": 0.5,
    "client_timeout_s": 0.5,
    "terminate_timeout_s": 3.0,
    "flush_timeout_s": 1.0,
    "close_timeout_s": 1.0,
    "timeout_s": 8.0,
}
"""Budgets that can be waited for in real time."""

SUBPROTOCOL = (b"Sec-WebSocket-Protocol", b"signald.v1")


class Bystanders:
    """A client and its worker that talk to each other all the time, and expect not to notice any other party."""

    def __init__(self, client: Speaker, worker: Speaker, session: str) -> None:
        """They are paired in `session`, and have said nothing yet."""
        self._client = client
        self._worker = worker
        self._session = session
        self._exchanges = 0

    async def goes_on(self) -> None:
        """Wait until they have exchanged another message and its answer."""
        before = self._exchanges
        await until(lambda: self._exchanges > before)

    async def run(self) -> None:
        """Ask and answer until cancelled; every message must arrive, next in order, once."""
        while True:
            await self._exchange(self._exchanges + 1)
            self._exchanges += 1
            await trio.sleep(0.2)

    async def _exchange(self, seq: int) -> None:
        await self._client.say({"type": "message", "seq": seq, "data": f"question {seq}"})
        asked = await self._worker.hear("message")
        assert (asked["seq"], asked["data"]) == (seq, f"question {seq}")
        await self._worker.say({"type": "ack", "session": self._session, "seq": seq})
        answer = {"type": "message", "session": self._session, "seq": seq, "data": f"answer {seq}"}
        await self._worker.say(answer)
        answered = await self._client.hear("message")
        assert (answered["seq"], answered["data"]) == (seq, f"answer {seq}")
        await self._client.say({"type": "ack", "seq": seq})

    async def leave(self) -> None:
        """Hang up, as their programs would at the end."""
        for party in (self._client, self._worker):
            await party.send(close(1000))
            await party.closed_with()
            await party.stream.aclose()


class Stage:
    """Nodes, and the means to get at them."""

    def __init__(self, cluster: Cluster, nursery: trio.Nursery, *, tcp: bool) -> None:
        """Nodes of `cluster`; with `tcp` they listen, in `nursery`."""
        self.cluster = cluster
        self._nursery = nursery
        self._tcp = tcp
        self._ports: dict[str, int] = {}
        self.parties: list[Client] = []

    async def start(self, name: str = "n1", **sections: dict[str, object]) -> Node:
        """Start a node; `sections` override single keys of its configuration."""
        settings = {"drain": DRAIN, "auth": AUTH, **sections}
        node = await self.cluster.start(name, **settings)
        if self._tcp:
            await self._nursery.start(self._listen, name, node)
        return node

    async def _listen(self, name: str, node: Node, task_status: trio.TaskStatus[None]) -> None:
        (listening,) = await open_listeners("127.0.0.1:0")
        self._ports[name] = listening.getsockname()[1]
        task_status.started()
        with listening:
            await node.server.accept_from(listening)

    async def dial(
        self, name: str = "n1", streams: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair
    ) -> Speaker:
        """Return a party that has said nothing yet. `streams` are for those in memory."""
        if self._tcp:
            party = Speaker(await trio.open_tcp_stream("127.0.0.1", self._ports[name]))
        else:
            near, far = streams()
            node = self.cluster.nodes[name]
            node.hub.spawn(node.server.serve_stream, near)
            party = Speaker(far)
        self.parties.append(party)
        return party

    async def connect(self, path: str = "/v1/client", name: str = "n1", **dialling: Any) -> Speaker:
        """Return a party that has opened a WebSocket and owes its opening message."""
        party = await self.dial(name, **dialling)
        await party.open(SUBPROTOCOL, path=path)
        return party

    async def client(self, name: str = "n1", subject: str = "ann", **dialling: Any) -> tuple[Speaker, Json]:
        """Return a client with a session, and the answer it got. Sessions of one subject go to workers of that subject."""
        party = await self.connect("/v1/client", name, **dialling)
        await party.say({"type": "connect", "auth": token_for(subject, "client"), "want": {"of": subject}})
        return party, await party.hear("session_started")

    async def worker(self, name: str = "n1", subject: str = "ann") -> tuple[Speaker, Json]:
        """Return a worker for the sessions of `subject`, and the answer it got."""
        party = await self.connect("/v1/worker", name)
        ready = {"type": "app_ready", "instance_id": subject, "capacity": 5, "labels": {"of": subject}}
        await party.say({**ready, "auth": token_for(subject, "worker")})
        return party, await party.hear("app_accepted")

    async def pair(self, name: str = "n1", subject: str = "ann", **dialling: Any) -> tuple[Speaker, Json, Speaker, str]:
        """Return a client, the answer it got, its worker, and the name of their session."""
        worker, _ = await self.worker(name, subject)
        client, started = await self.client(name, subject, **dialling)
        session = (await worker.hear("session_assigned"))["session"]
        await worker.say({"type": "session_accept", "session": session})
        while (await client.hear("peer"))["state"] != "paired":
            pass
        return client, started, worker, session

    async def restore(self, token: str, name: str = "n1", subject: str = "ann") -> Speaker:
        """Return a client that has shown a recovery token and was not answered yet."""
        party = await self.connect("/v1/client", name)
        await party.say({"type": "restore_session", "recovery_token": token, "auth": token_for(subject, "client")})
        return party

    @asynccontextmanager
    async def bystanders(self, name: str = "n1") -> AsyncIterator[Bystanders]:
        """A client and a worker that talk before and after what the body does, on the node called `name`."""
        client, _, worker, session = await self.pair(name, "bystander")
        bystanders = Bystanders(client, worker, session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystanders.run)
            await bystanders.goes_on()
            yield bystanders
            await bystanders.goes_on()
            nursery.cancel_scope.cancel(reason="seen enough")
        await bystanders.leave()

    async def nobody_left(self, name: str = "n1") -> None:
        """Wait until a node that goes on has no connection any more, and no place is taken."""
        node = self.cluster.nodes[name]
        await until(lambda: not node.hub.connections and not node.server.connections)
        assert (node.hub.links, node.hub.gate.in_progress) == (set(), 0)


Scene = Callable[[Stage], Awaitable[None]]


def in_memory(scene: Scene) -> None:
    """Play `scene` over memory streams, in virtual time."""
    _play(scene, tcp=False, clock=trio.testing.MockClock(autojump_threshold=0))


def over_tcp(scene: Scene) -> None:
    """Play `scene` over TCP, in real time; at the end no descriptor may be left."""
    before = open_files()
    _play(scene, tcp=True, clock=None)
    assert open_files() <= before


def _play(scene: Scene, *, tcp: bool, clock: trio.abc.Clock | None) -> None:
    async def main() -> None:
        with trio.fail_after(60 if tcp else 600):
            async with open_cluster() as cluster, trio.open_nursery() as listening:
                stage = Stage(cluster, listening, tcp=tcp)
                await scene(stage)
                for party in stage.parties:
                    await trio.aclose_forcefully(party.stream)
                listening.cancel_scope.cancel(reason="the scene is over")

    trio.run(main, clock=clock)
