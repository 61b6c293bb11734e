"""What lies outside of a node besides its store and its connections: the core server, and the media. A node dies at a step of either."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from signald.errors import StoreUnavailable
from signald.http.client import Answer
from tests.crash.steps import Kind, Steps
from tests.sim.core_server import Core, CoreServer
from tests.sim.nodes import SimNode
from tests.sim.uploading import Blobs, SimMedia, SimWriting, Uploading, UploadPlan

if TYPE_CHECKING:
    from tests.crash.scene import CrashScene


class Deed:
    """One thing that a process does outside of it: it may be the last one."""

    def __init__(self, steps: Steps, kind: Kind, owner: str) -> None:
        self._steps = steps
        self._mark = steps.of_deed(kind, owner)

    def before(self) -> None:
        """Die before it, if that is the step. Raises StoreUnavailable, as the loss of the node does for a caller."""
        if self._mark == 0:
            self._die()

    def after(self) -> None:
        """The same, when it has happened."""
        if self._mark == 1:
            self._die()

    def _die(self) -> None:
        self._steps.strike()
        raise StoreUnavailable("the process that does this is gone")


class CountedCore(CoreServer):
    """The core server, which knows whose task tells it."""

    _scene: "CrashScene"

    def __init__(self, scene: "CrashScene", core: Core) -> None:
        super().__init__(scene, core)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """See `CoreServer.post`."""
        steps = self._scene.steps
        node = steps.owner(trio.lowlevel.current_task())
        deed = Deed(steps, "post", node)
        deed.before()
        answer = await super().post(url, body, headers, timeout_s=timeout_s, bytes_max=bytes_max)
        deed.after()
        return answer


class CountedMedia(SimMedia):
    """The media as one node has them, which count what it does there."""

    _scene: "CrashScene"

    def deed(self) -> Deed:
        """Count one step."""
        return Deed(self._scene.steps, "media", self._node.name)

    @asynccontextmanager
    async def write(self, key: str, *, content_type: str = "") -> AsyncIterator["SimWriting"]:
        """See `SimMedia.write`."""
        deed = self.deed()
        deed.before()
        async with super().write(key, content_type=content_type) as writing:
            deed.after()
            yield CountedWriting(self, writing)

    async def delete(self, key: str) -> None:
        """See `SimMedia.delete`."""
        deed = self.deed()
        deed.before()
        await super().delete(key)
        deed.after()


class CountedWriting(SimWriting):
    """An object that a node writes, which counts the same."""

    def __init__(self, media: CountedMedia, writing: SimWriting) -> None:
        super().__init__(media, writing._key, writing._writing)
        self._counted = media

    async def send(self, data: bytes) -> None:
        """See `SimWriting.send`."""
        deed = self._counted.deed()
        deed.before()
        await super().send(data)
        deed.after()

    async def finish(self) -> None:
        """See `SimWriting.finish`."""
        deed = self._counted.deed()
        deed.before()
        await super().finish()
        deed.after()


class CountedUploading(Uploading):
    """The programs that upload, of which it is known when they are done."""

    _scene: "CrashScene"

    def __init__(self, scene: "CrashScene", blobs: Blobs) -> None:
        super().__init__(scene, blobs)
        self.done = 0

    def media(self, node: SimNode) -> SimMedia:
        """See `Uploading.media`."""
        return CountedMedia(self._scene, node, self.kept, self._blobs)

    async def run(self, number: int, plan: UploadPlan) -> None:
        """See `Uploading.run`."""
        await super().run(number, plan)
        self.done += 1

    async def judge(self) -> None:
        """Every upload was answered; what was answered and not removed is read at each node; no key has made a further blob."""
        scene, check = self._scene, self._scene.check.whole_blob
        if self.done < len(self.uploads):
            check.broken(f"{self.done} of {len(self.uploads)} programs have done their uploads")
        kept = check.kept()
        for blob, content in kept.items():
            for node in scene.listening():
                if await self.content(node, blob) != content:
                    check.broken(f"{blob} is shown at {node.name} with other bytes")
        whole = {
            item.blob.id for items in scene.world.rows._shelves.values() for item in items.values() if item.blob.whole
        }
        if whole != set(kept):
            check.broken(f"{sorted(kept)} were answered, and {sorted(whole)} are kept")
