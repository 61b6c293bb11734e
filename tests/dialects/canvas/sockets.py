"""Sockets of a canvas, as a program written from its guide opens them: it knows four types, two close codes, and nothing of signald."""

import json
from typing import Any

from signald.testing.cluster import Cluster
from signald.testing.wire import Json, Peer

ON: dict[str, dict[str, object]] = {"profiles": {"canvas": True}}
"""The sections of a node that speaks the wire."""


class Socket:
    """One socket of a canvas."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    @classmethod
    async def open(cls, cluster: Cluster, node: str, canvas: str = "board-1", **options: Any) -> "Socket":
        """Connect to a canvas at a node."""
        return cls(await cluster.dial(node, f"/ws/{canvas}", None, **options))

    async def say(self, kind: str, **fields: object) -> None:
        """Send one object."""
        await self.peer.send({"type": kind, **fields})

    async def restore(self, canvas: str = "board-1") -> Json:
        """Ask for what the session has."""
        return await self.peer.ask({"type": "restore_session", "session_id": canvas}, "session_restored")

    async def hear(self, kind: str) -> Json:
        """Return the next object of this type."""
        return await self.peer.expect(kind)


OPENING = (
    b"GET /ws/board-1 HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
"""The request of a socket whose frames a test writes itself."""


def text(message: dict[str, object]) -> bytes:
    """Return a whole text frame of a client, below 126 bytes and with a mask of zeros."""
    payload = json.dumps(message).encode()
    return bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload
