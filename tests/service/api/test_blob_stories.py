"""Uploads that meet faults, drawn from a seed: whatever happens, what was answered 201 is there as a whole, and nothing else is."""

import random
from contextlib import suppress

import pytest
import trio

from signald.blobs.memory import MemoryMedia, MemoryWriting
from signald.errors import MediaAway
from signald.testing.cluster import Cluster, play
from tests.service.api.blob_asker import Blobs, kept, media_of

UPLOADS = 8
TRIES = 12
STORY_S = 120.0
QUIET_S = 160.0
"""Longer than a lease, the time for late writes, and a look at the agenda."""


class Story:
    """Programs that upload until each of their keys has been answered, while the store, the media and a node fail."""

    def __init__(self, cluster: Cluster, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.media_fail = 0.0
        self.made: dict[str, bytes] = {}
        """Blob → its bytes, for each that was answered with 201 and not removed since."""
        for kind, step in ((MemoryWriting, "send"), (MemoryWriting, "finish"), (MemoryMedia, "delete")):
            monkeypatch.setattr(kind, step, self._failing(getattr(kind, step)))

    def _failing(self, step: object) -> object:
        async def failing(*asked: object) -> None:
            fails, late = self.rng.random() < self.media_fail, self.rng.random() < 0.5
            if late or not fails:
                await step(*asked)  # type: ignore[operator]
            if fails:
                raise MediaAway("no answer")

        return failing

    def node(self) -> str:
        """Choose a node that lives."""
        return self.rng.choice(sorted(self.cluster.nodes))

    async def faults(self, killed: str) -> None:
        """Let the store and the media fail now and then, and kill a node."""
        rng, world = self.rng, self.cluster.world
        kill_at = trio.current_time() + rng.uniform(5, STORY_S / 2)
        until = trio.current_time() + STORY_S
        while trio.current_time() < until:
            await trio.sleep(rng.uniform(1, 6))
            if killed in self.cluster.nodes and trio.current_time() > kill_at:
                self.cluster.kill(killed)
                continue
            world.outage = rng.choice(("down", "answers lost", "answers lost"))
            self.media_fail = rng.choice((0.0, 0.5))
            await trio.sleep(rng.uniform(0.1, 12))
            world.outage, self.media_fail = "", 0.0

    async def upload(self, api: Blobs, n: int) -> None:
        """Upload bytes until they are kept, most of them under a key; now and then remove them."""
        rng = self.rng
        data = rng.randbytes(rng.choice((0, 3, 70_000, 200_000)))
        key = {"idempotency_key": f"k{n}"} if n % 4 else {}
        for _ in range(TRIES * 4):
            await trio.sleep(rng.uniform(0, 8))
            if rng.random() < 0.3:
                async with api.begun(self.node(), len(data) + 1, data, **key):
                    await trio.sleep(rng.uniform(0, 4))
                continue
            with suppress(EOFError, trio.BrokenResourceError), trio.move_on_after(60):
                told = await api.upload(self.node(), data, **key)
                assert told.status in (201, 409, 429, 503), told.body
                if told.status == 201:
                    break
        else:
            raise AssertionError("it was never kept")
        blob = told.json()["blob"]
        assert told.json()["bytes"] == len(data)
        self.made[blob] = data
        if rng.random() < 0.3:
            del self.made[blob]
            for _ in range(TRIES):
                if await api.remove(self.node(), blob) in (204, 404):
                    return
                await trio.sleep(2)
            raise AssertionError("it was never removed")


@pytest.mark.parametrize("seed", range(4))
def test_what_was_kept_is_there_and_nothing_else(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut uploads, a store and media that fail, a killed node: each key makes one blob, and nothing is left of any other attempt."""

    async def scene(cluster: Cluster) -> None:
        for node in ("n1", "n2", "n3"):
            await cluster.start(node)
        _, started = await cluster.client("n1", api=True)
        session, api = started["session"], Blobs(cluster, started["api_token"])
        story = Story(cluster, seed, monkeypatch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(story.faults, "n3")
            for n in range(UPLOADS):
                nursery.start_soon(story.upload, api, n)
        await trio.sleep(QUIET_S)
        assert media_of(cluster).objects == story.made
        assert kept(cluster, "", session) == (len(story.made), sum(map(len, story.made.values())))
        for blob, data in story.made.items():
            assert (await api.read("n2", blob)).body == data

    play(scene, seed)
