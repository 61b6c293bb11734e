"""What an operator sees of the DeepStream health of each node, asked again and again at the node itself."""

import json
from contextlib import suppress
from typing import Any

import trio
from attrs import define, field, frozen

from signald.demo.cluster import Node
from tests.systems.recorder import TEXT, Address, Reading, Seen
from tests.systems.service import Service, credential

POLL_S = 0.2
FIELDS = {"status", "timestamp", "connected_instances", "websocket", "system"}
OF_WEBSOCKET = {"total_connections", "authenticated_connections", "unauthenticated_connections", "is_shutting_down"}
REQUEST = b"GET /deepstream/health HTTP/1.1\r\nHost: node\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n"
HANDSHAKE = (
    b"GET /deepstream/ws HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n"
)
OF_SYSTEM = {"cpu_usage", "memory_usage", "uptime"}


@frozen
class Answer:
    """One answer of a node."""

    at: float
    status: int
    body: dict[str, Any]


@define(eq=False)
class Health:
    """All answers of one node."""

    node: Node
    answers: list[Answer] = field(factory=list)
    leaving_at: float | None = None
    """When it was first seen among the nodes that were asked to stop."""
    ended_at: float | None = None

    def first(self, status: int) -> Answer | None:
        """Return its first answer of one status."""
        return next((answer for answer in self.answers if answer.status == status), None)


class Prober:
    """Asks every node of the clients while it runs."""

    def __init__(self, service: Service) -> None:
        self.nodes: dict[str, Health] = {}
        self._service = service

    def leaving(self) -> list[Health]:
        """The nodes that were asked to stop, the present ones included."""
        return [health for health in self.nodes.values() if health.leaving_at is not None]

    async def run(self) -> None:
        """Ask until the story is over."""
        while True:
            leaving = list(self._service.leaving)
            for node in [self._service.node, *leaving]:
                health = self.nodes.setdefault(node.name, Health(node))
                if node in leaving and health.leaving_at is None:
                    health.leaving_at = trio.current_time()
                if (answer := await ask(node.websocket)) is not None:
                    health.answers.append(answer)
            for health in self.leaving():
                if health.ended_at is None and health.node.process.poll() is not None:
                    health.ended_at = trio.current_time()
            await trio.sleep(POLL_S)

    def judge(self) -> None:
        """Each answer has the fields of the guide; what shuts down says so with 503, and never takes it back."""
        for health in self.nodes.values():
            assert health.answers, health.node.name
            statuses = [answer.status for answer in health.answers]
            assert statuses == sorted(statuses), (health.node.name, statuses)
            assert set(statuses) <= {200, 503}, (health.node.name, statuses)
            for answer in health.answers:
                self._judge_body(answer)

    def _judge_body(self, answer: Answer) -> None:
        body, ends = answer.body, answer.status == 503
        assert body.keys() >= FIELDS, body
        assert body["status"] == ("shutting_down" if ends else "ok"), body
        assert isinstance(body["connected_instances"], list), body
        assert body["websocket"].keys() >= OF_WEBSOCKET, body
        assert body["websocket"]["is_shutting_down"] is ends, body
        counts = body["websocket"]
        assert counts["total_connections"] == (
            counts["authenticated_connections"] + counts["unauthenticated_connections"]
        ), body
        assert body["system"].keys() >= OF_SYSTEM, body
        assert all(body["system"][name] >= 0 for name in OF_SYSTEM), body


async def ask(address: Address) -> Answer | None:
    """Ask a node at the address of its apps, as a program that may see their names; None: it has ended, or does not listen."""
    at = trio.current_time()
    said = b""
    try:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(REQUEST % credential("worker", "prober").encode())
            while data := await stream.receive_some():
                said += data
    except (OSError, trio.BrokenResourceError):
        return None
    head, _, body = said.partition(b"\r\n\r\n")
    try:
        return Answer(at, int(head.split(b" ", 2)[1]), json.loads(body))
    except (ValueError, IndexError):
        return None  # it was killed in the middle of its answer


async def arrive(address: Address, shown: str) -> int | None:
    """Come as a new app with the credential `shown`; returns the code of the Close, or the status of a refused handshake."""
    codes: list[int] = []

    def note(kind: str, raw: bytes) -> None:
        seen = Seen(0.0, 0, "node", kind, raw)
        if seen.code or seen.status not in (0, 101):
            codes.append(seen.code or seen.status)

    reading = Reading(note)
    ready = json.dumps({"type": "app_ready", "instance_id": "newcomer", "reconnection": False}).encode()
    assert len(ready) < 126
    with suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(HANDSHAKE % shown.encode())
            # A mask of zeros leaves the payload as it is.
            await stream.send_all(bytes([0x80 | TEXT, 0x80 | len(ready), 0, 0, 0, 0]) + ready)
            while not codes and (data := await stream.receive_some()):
                reading.take(data)
    return codes[0] if codes else None
