"""A program that uploads and reads blobs at nodes in memory, over the bytes of a connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from signald.blobs.memory import MemoryMedia
from signald.ids import shelf_of_owner
from signald.testing.cluster import Cluster
from tests.http.publicly import Answer, HttpPeer
from tests.service.api.test_jobs import Api

AUDIO = "audio/ogg"


class Blobs(Api):
    """A program with one credential."""

    async def upload(self, node: str, data: bytes, query: str = "", **headers: str) -> Answer:
        """Upload bytes at a node."""
        headers.setdefault("content_type", AUDIO)
        return await self.ask(node, "POST", f"/v1/blobs{query}", data, bearer=None, **headers)

    async def read(self, node: str, blob: str, query: str = "", **headers: str) -> Answer:
        """Read a blob at a node."""
        return await self.ask(node, "GET", f"/v1/blobs/{blob}{query}", b"", bearer=None, **headers)

    async def remove(self, node: str, blob: str, query: str = "") -> int:
        """Remove a blob; return the status."""
        return (await self.ask(node, "DELETE", f"/v1/blobs/{blob}{query}")).status

    @asynccontextmanager
    async def begun(
        self, node: str, length: int, sent: bytes = b"", *, remote: str = "memory", **headers: str
    ) -> AsyncIterator[HttpPeer]:
        """Begin an upload of `length` bytes, and send the first ones. The sender goes at the end of the block."""
        lines = [
            "POST /v1/blobs HTTP/1.1",
            "host: a",
            f"content-length: {length}",
            f"authorization: Bearer {self.token}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"content_type": AUDIO, **headers}.items()]
        async with self.cluster.plain(node, remote=remote) as stream:
            peer = HttpPeer(stream)
            await peer.send("\r\n".join([*lines, "", ""]).encode() + sent)
            yield peer


def media_of(cluster: Cluster) -> MemoryMedia:
    """Return the media of all nodes."""
    assert isinstance(cluster.media, MemoryMedia)
    return cluster.media


def kept(cluster: Cluster, principal: str, session: str = "") -> tuple[int, int]:
    """Return how many blobs the store knows of an owner, and their bytes: those that are kept, uploading or doomed."""
    return cluster.world.rows.shelf_size(shelf_of_owner(principal, session))
