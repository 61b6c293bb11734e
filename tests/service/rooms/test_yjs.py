"""Two editors with the real Yjs in a room, through a deploy, a killed node and a store that came back empty."""

import json
import random
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket

from signald.config import StoreConfig
from signald.service.rooms.folding import FOLDED_MAX
from signald.store.open import open_store
from signald.testing.cluster import Cluster, open_cluster
from signald.testing.cluster import play as play_in_memory
from signald.testing.wire import Json, Peer
from tests.service.rooms.test_updates import update
from tests.store.conftest import redis_url

__all__ = ["redis_url"]

pytestmark = pytest.mark.real

PROGRAM = Path(__file__).parents[2] / "systems" / "yjs_editor.mjs"
ROUNDS = 4
CHANGES = 90
"""In each round, of each editor: so there are some snapshots."""


class Document:
    """A document in a process of Node. A call blocks, which takes no time by the clock of a test."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["node", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command: object) -> Any:
        """Run one command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def documents() -> Iterator[list[Document]]:
    """Three of them: of two editors, and of one that comes last."""
    made = [Document() for _ in range(3)]
    yield made
    for one in made:
        one.end()


@attrs.define
class Editor:
    """A member of the room, as the page on the wire tells one to be."""

    cluster: Cluster
    document: Document
    peer: Peer | None = None
    token: str = ""
    epoch: str = ""
    received: int = 0
    seq: int = 0
    unsaid: dict[int, bytes] = attrs.field(factory=dict)
    """What is not `published`, by seq."""
    applied: list[bytes] = attrs.field(factory=list)
    """What others have published, as it came."""
    epochs: list[str] = attrs.field(factory=list)

    async def begin(self, node: str) -> None:
        """Start a session, and join."""
        self.peer, started = await self.cluster.client(node, pair=False)
        self.token = str(started["recovery_token"])
        await self.peer.send({"type": "join", "room": "r:1"})
        self.take(await self.peer.expect("joined"))
        await self.resend()

    async def go(self, node: str) -> None:
        """Resume at `node`, as often as that takes."""
        while True:
            room = {"room": "r:1", "received": self.received, "epoch": self.epoch}
            try:
                self.peer, answer = await self.cluster.restore(node, self.token, rooms=[room])
                if answer["type"] == "session_restored":
                    break
            except trio_websocket.ConnectionClosed:
                pass
            await trio.sleep(0.1)
        self.token = str(answer.get("recovery_token", self.token))
        self.take(await self.peer.expect("joined"))
        await self.resend()

    async def resend(self) -> None:
        """Say again what is not stored."""
        assert self.peer is not None
        for seq, said in self.unsaid.items():
            await update(self.peer, seq, said, "yjs")

    async def change(self, **command: object) -> None:
        """Change the document, and publish what that has written."""
        for said in self.document.ask(**command)["updates"]:
            self.seq += 1
            self.unsaid[self.seq] = b64decode(said)
            assert self.peer is not None
            await update(self.peer, self.seq, self.unsaid[self.seq], "yjs")

    def take(self, frame: Json) -> None:
        """Take what the room tells."""
        match frame["type"]:
            case "joined":
                if frame["epoch"] != self.epoch:
                    self.document.ask(new=1)
                    self.unsaid, self.epoch = {}, frame["epoch"]
                    self.epochs.append(self.epoch)
                    self.seq = frame["next_seq"] - 1
                if not frame["recovered"]:
                    self.received = frame["position"]
                self.unsaid = {seq: said for seq, said in self.unsaid.items() if seq >= frame["next_seq"]}
            case "room_message" | "snapshot":
                self.document.ask(apply=[b64encode(frame["binary"]).decode()])
                self.received = max(self.received, frame["position"])
                self.applied.append(frame["binary"])
            case "published":
                self.received = max(self.received, frame["position"])
                self.unsaid = {seq: said for seq, said in self.unsaid.items() if seq > frame["seq"]}
            case "room_error":
                raise AssertionError(frame)

    async def listen(self, seconds: float = 1.0) -> None:
        """Take all that comes, until nothing does."""
        assert self.peer is not None
        for frame in await self.peer.quiet(seconds):
            self.take(frame)


async def write(editors: list[Editor], rng: random.Random) -> None:
    """Have both editors write, and hear of each other now and then."""
    for number in range(CHANGES):
        for editor in editors:
            match rng.randrange(6):
                case 0:
                    await editor.change(erase=[rng.randrange(40), rng.randrange(1, 5)])
                case 1:
                    await editor.change(set=[f"k{rng.randrange(5)}", rng.randrange(1000)])
                case _:
                    await editor.change(insert=[rng.randrange(200), f"{rng.randrange(100)} "])
        if number % 30 == 29:
            await trio.sleep(0.05)


async def agree(editors: list[Editor]) -> Json:
    """Wait until nothing is under way; both have one document, which is returned."""
    for _ in range(3):
        for editor in editors:
            await editor.listen(0.5)
    shown = [editor.document.ask(show=1) for editor in editors]
    assert all(not editor.unsaid for editor in editors)
    assert shown[0] == shown[1]
    assert shown[0]["waits"] is False
    document: Json = shown[0]
    return document


async def scene(cluster: Cluster, documents: list[Document], **store: Any) -> None:
    """Write, deploy, write, kill, write; then a new member comes."""
    sections: Json = {
        "limits": {"messages_burst": 10_000}, "drain": {"unready_s": 0.0}, "rooms": {"history_messages_max": 150}, **store
    }  # fmt: skip
    rng = random.Random(11)
    for name in ("a", "b"):
        await cluster.start(name, **sections)
    editors = [Editor(cluster, documents[0]), Editor(cluster, documents[1])]
    await editors[0].begin("a")
    await editors[1].begin("b")
    await write(editors, rng)
    await agree(editors)
    # A deploy: the node of one ends, while both write.
    await cluster.start("c", **sections)
    await write(editors, rng)
    cluster.nodes["a"].shutdown.signal()
    assert editors[0].peer is not None
    await editors[0].peer.expect("goaway")
    left = editors[0].peer
    for frame in left.aside:
        editors[0].take(frame)
    await editors[0].go("c")
    await write(editors, rng)
    before = await agree(editors)
    # A kill: what was not published is said again.
    await write(editors, rng)
    cluster.kill("b")
    await editors[1].go("c")
    await write(editors, rng)
    after = await agree(editors)
    assert after["text"] != before["text"]
    last = Editor(cluster, documents[2])
    await last.begin("c")
    await last.listen()
    shown = last.document.ask(show=1)
    assert {name: shown[name] for name in ("text", "map", "waits")} == {
        name: after[name] for name in ("text", "map", "waits")
    }
    assert len(last.applied) <= FOLDED_MAX, "the rest is one snapshot"
    assert all(len(editor.epochs) == 1 for editor in editors), "the room was never lost"
    for editor in editors:
        assert len(editor.applied) == len(set(editor.applied)), "nothing came twice"


def test_two_editors_in_memory(documents: list[Document]) -> None:
    """Equal documents at the end, and nothing doubled."""

    async def in_memory(cluster: Cluster) -> None:
        await scene(cluster, documents)

    play_in_memory(in_memory)


async def test_two_editors_on_redis(documents: list[Document], redis_url: str) -> None:
    """The same in real time."""
    with trio.fail_after(120):
        async with open_cluster(1) as cluster:
            cluster.open_store = lambda node: open_store(redis_url, node, StoreConfig(url=redis_url))
            await scene(cluster, documents, store={"url": redis_url})


def test_a_store_that_came_back_empty_resurrects_nothing(documents: list[Document]) -> None:
    """The room has another epoch: both editors begin with an empty document, and what they had is not written again."""

    async def emptied(cluster: Cluster) -> None:
        await cluster.start("a", limits={"messages_burst": 10_000})
        editors = [Editor(cluster, documents[0]), Editor(cluster, documents[1])]
        for editor in editors:
            await editor.begin("a")
        await editors[0].change(insert=[0, "old words"])
        assert (await agree(editors))["text"] == "old words"
        cluster.world.rows.drop_room("r:1")
        await editors[0].change(insert=[0, "said into the void"])
        assert (await agree(editors))["text"] == ""
        assert {len(editor.epochs) for editor in editors} == {2}
        await editors[1].change(insert=[0, "new"])
        assert (await agree(editors))["text"] == "new"
        last = Editor(cluster, documents[2])
        await last.begin("a")
        await last.listen()
        assert last.document.ask(show=1)["text"] == "new"

    play_in_memory(emptied)
