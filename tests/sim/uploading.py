"""Programs that upload blobs at the nodes, as the HTTP API does, and again when they do not know what came of it.

The media are one for all nodes, with troubles of their own: they are away, they are slow, and an object may appear after its writer has
given it up. `whole-blob` judges what can be read.
"""

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

import attrs
import trio

from signald.blobs.media import MediaCounts
from signald.blobs.memory import MemoryMedia, MemoryWriting
from signald.core.callers import ALL
from signald.errors import MediaAway, StoreUnavailable
from signald.http.api.blob_views import BlobRefused, Payer, Upload
from signald.ids import SessionId
from signald.service.api.blobs import HttpBlobs

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene

ANSWER_S = 20.0
"""How long a program waits for an answer; a node that was killed gives none."""
AGAIN_S = 0.5
TRIES = 60
LATE_S = 15.0
"""How late an object appears at most that was given up: less than `core.blobs.LATE_MS`, which the media promise."""


@attrs.frozen
class UploadPlan:
    """One blob."""

    at: float
    client: int
    pieces: int
    every_s: float
    """Between two pieces of its body."""
    keyed: bool
    cut_at: int = -1
    """Before which piece the program leaves, the first time; -1: before none."""
    again: bool = False
    """It is uploaded once more when it is kept, with the same key."""
    removed: bool = False


@attrs.frozen
class MediaSpell:
    """A time in which the media are away, or slow."""

    at: float
    seconds: float
    how: str


@attrs.frozen
class Blobs:
    """What a plan has of blobs."""

    uploads: tuple[UploadPlan, ...]
    spells: tuple[MediaSpell, ...] = ()
    late_share: float = 0.0
    """How often an object whose writer is gone appears all the same."""


def draw_blobs(r: random.Random, clients: int, lasts_s: float) -> Blobs | None:
    """Return the blobs of a plan, or None: most plans have none."""
    if r.random() >= 0.2:
        return None
    uploads = tuple(_draw_upload(r, clients, lasts_s) for _ in range(r.randint(1, 6)))
    spells = tuple(
        MediaSpell(round(r.uniform(0.0, lasts_s - 1), 3), r.choice((0.5, 3.0)), r.choice(("away", "slow")))
        for _ in range(r.choice((0, 1, 3)))
    )
    return Blobs(uploads, spells, r.choice((0.0, 0.0, 0.5)))


def _draw_upload(r: random.Random, clients: int, lasts_s: float) -> UploadPlan:
    pieces = r.choice((0, 1, 4, 10))
    keyed = r.random() < 0.8
    return UploadPlan(
        round(r.uniform(1.0, lasts_s - 2), 3),
        r.randrange(clients),
        pieces,
        r.choice((0.0, 0.1, 1.0)),
        keyed,
        r.randint(0, pieces) if r.random() < 0.3 else -1,
        keyed and r.random() < 0.3,
        r.random() < 0.3,
    )


class Left(Exception):
    """The program has left in the middle of its body."""


class SimMedia:
    """The media, as one node has them. Objects lie in `kept`, which all nodes share."""

    def __init__(self, scene: "Scene", node: "SimNode", kept: MemoryMedia, blobs: Blobs) -> None:
        self.counts = MediaCounts()
        self._scene = scene
        self._node = node
        self._kept = kept
        self._blobs = blobs
        self._random = scene.chance.random(f"media {node.name}")

    async def _trouble(self) -> None:
        """Wait as the media are; a node that was killed goes no further. Raises MediaAway."""
        scene = self._scene
        await trio.lowlevel.checkpoint()
        if self._node.killed:
            await trio.sleep_forever()
        now = trio.current_time() - scene.began_at
        for spell in self._blobs.spells if scene.chaos else ():
            if spell.at <= now < spell.at + spell.seconds:
                scene.reached(f"media {spell.how}")
                if spell.how == "away":
                    raise MediaAway("the media are away")
                await trio.sleep(self._random.uniform(0.0, 2.0))

    @asynccontextmanager
    async def write(self, key: str, *, content_type: str = "") -> AsyncIterator["SimWriting"]:
        """As `Media.write`."""
        await self._trouble()
        async with self._kept.write(key, content_type=content_type) as writing:
            yield SimWriting(self, key, writing)

    async def read(self, key: str, start: int, end: int, *, size: int = 0) -> AsyncGenerator[bytes, None]:
        """As `Media.read`."""
        await self._trouble()
        async with aclosing(self._kept.read(key, start, end, size=size)) as pieces:
            async for piece in pieces:
                yield piece

    async def delete(self, key: str) -> None:
        """As `Media.delete`."""
        await self._trouble()
        await self._kept.delete(key)

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:
        """As `Media.signed_url`."""
        return await self._kept.signed_url(key, ttl_s=ttl_s)

    async def sweep(self) -> int:
        """As `Media.sweep`."""
        return await self._kept.sweep()

    def appear_late(self, key: str, content: bytes) -> None:
        """An object that its writer has given up comes through all the same."""
        if self._random.random() < self._blobs.late_share:
            self._scene.reached("object after it was given up")
            self._scene.late(self._random.uniform(0.0, LATE_S), lambda: self._kept.objects.update({key: content}))


class SimWriting:
    """An object that a node writes."""

    def __init__(self, media: SimMedia, key: str, writing: MemoryWriting) -> None:
        self._media = media
        self._key = key
        self._writing = writing
        self._content = b""

    async def send(self, data: bytes) -> None:
        """As `Writing.send`."""
        await self._media._trouble()
        self._content += data
        await self._writing.send(data)

    async def finish(self) -> None:
        """As `Writing.finish`."""
        try:
            await self._media._trouble()
            await self._writing.finish()
        except (MediaAway, trio.Cancelled):
            self._media.appear_late(self._key, self._content)
            raise


class Uploading:
    """All programs of a scene that upload."""

    def __init__(self, scene: "Scene", blobs: Blobs) -> None:
        self._scene = scene
        self._blobs = blobs
        self._random = scene.chance.random("uploading")
        self._apis: dict[str, HttpBlobs] = {}
        self.uploads = blobs.uploads
        self.kept = MemoryMedia()
        """All objects, of all nodes."""

    def media(self, node: "SimNode") -> SimMedia:
        """Return the media as `node` has them."""
        return SimMedia(self._scene, node, self.kept, self._blobs)

    def _node(self) -> "SimNode | None":
        nodes = [
            one for one in self._scene.nodes if one.ready.is_set() and not one.gone.is_set() and one.node is not None
        ]
        return self._random.choice(nodes) if nodes else None

    def api(self, node: "SimNode") -> HttpBlobs:
        """Return what answers requests about blobs at `node`."""
        assert node.node is not None
        return self._apis.setdefault(node.name, HttpBlobs(node.node.hub.parts))

    async def run(self, number: int, plan: UploadPlan) -> None:
        """Upload one blob, and see to it."""
        scene, check = self._scene, self._scene.check.whole_blob
        await trio.sleep(plan.at)
        client = scene.clients[plan.client]
        while not client.session and client.gone is None:  # noqa: ASYNC110
            await trio.sleep(AGAIN_S)
        content = [json.dumps({"blob": number, "piece": piece}).encode() * 7 for piece in range(plan.pieces)]
        blob = await self._upload(client.session, number, plan, content)
        if not blob:
            return
        if plan.again:
            await trio.sleep(self._random.uniform(0.0, 2.0))
            await self._upload(client.session, number, attrs.evolve(plan, cut_at=-1), content)
        await self._read(blob)
        if plan.removed:
            check.removing(blob)
            await self._remove(client.session, blob)

    async def _body(self, plan: UploadPlan, content: list[bytes], cut_at: int) -> AsyncGenerator[bytes]:
        for number, piece in enumerate(content):
            if number == cut_at:
                raise Left
            yield piece
            await trio.sleep(plan.every_s)
        if cut_at >= len(content):
            raise Left

    async def _upload(self, session: str, number: int, plan: UploadPlan, content: list[bytes]) -> str:
        """Return the blob; empty when there is none to be had."""
        scene, check, cut_at = self._scene, self._scene.check.whole_blob, plan.cut_at
        key = sha256(f"blob {number}".encode()).digest() if plan.keyed else b""
        digest = sha256(b"".join(content)).digest()
        for _ in range(TRIES):
            node = self._node()
            if node is not None:
                api = self.api(node)
                with trio.move_on_after(ANSWER_S):
                    try:
                        owner = await api.owner(SessionId(session), ALL)
                        asked = Upload(owner, Payer(session, ""), key, "audio/ogg", digest, None)
                        async with aclosing(self._body(plan, content, cut_at)) as body:
                            uploaded = await api.upload(asked, body)
                    except Left:
                        scene.reached("upload cut")
                    except StoreUnavailable:
                        scene.reached("upload without an answer")
                    except BlobRefused as refused:
                        scene.trace("blob", f"{number} at {node.name}: {refused.because}")
                        scene.reached(f"upload refused {refused.because}")
                        if refused.because in ("no_session", "key_taken", "wrong_digest", "none", "no_blob"):
                            check.refused(session, number, refused.because)
                            return ""
                    else:
                        scene.trace("blob", f"{number} at {node.name}: {uploaded.shown.blob} {uploaded.replayed}")
                        if uploaded.replayed:
                            scene.reached("upload replayed")
                        check.uploaded(session, number if plan.keyed else None, uploaded.shown.blob, b"".join(content))
                        return uploaded.shown.blob
            cut_at = -1
            await trio.sleep(AGAIN_S)
        return ""

    async def _read(self, blob: str) -> None:
        """Read a blob at another node, as far as there is one."""
        check = self._scene.check.whole_blob
        node = self._node()
        if node is None:
            return
        with trio.move_on_after(ANSWER_S):
            try:
                content = await self.content(node, blob)
            except (StoreUnavailable, BlobRefused) as error:
                if isinstance(error, StoreUnavailable) or error.because == "away":
                    return
                check.unreadable(blob, node.name, error.because)
            else:
                check.shown(blob, content)

    async def content(self, node: "SimNode", blob: str) -> bytes:
        """Return the bytes of a blob, as `node` shows them. Raises BlobRefused, StoreUnavailable."""
        api = self.api(node)
        found = await api.find(blob, None, ALL)
        async with aclosing(api.read(found, 0, found.size, Payer("judge", ""))) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _remove(self, session: str, blob: str) -> None:
        for _ in range(TRIES):
            node = self._node()
            if node is not None:
                with trio.move_on_after(ANSWER_S):
                    try:
                        await self.api(node).remove(blob, SessionId(session), ALL)
                    except StoreUnavailable:
                        pass
                    except BlobRefused:
                        return
                    else:
                        self._scene.reached("blob removed")
                        return
            await trio.sleep(AGAIN_S)
