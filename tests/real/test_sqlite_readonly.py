"""A file or directory that may not be written, from the start or from some moment on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from signald.sdk.events import Disconnected
from tests.real.harness import Address, Nodes, Settings, exit_of, open_talk, probe, term
from tests.real.sqlite_files import HASTE, check_copy, promises

pytestmark = pytest.mark.real

EX_CONFIG = 78

DROP = """
import ctypes, os, sys
# Root may write whatever the permissions say. A node is not root, and these tests say the same whoever runs them.
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class OrdinaryNodes(Nodes):
    """Nodes that are bound by permissions."""

    async def spawn(self, arguments: Sequence[str], output: Path) -> trio.Process:
        """As `Nodes.spawn`."""
        return await super().spawn(["-c", DROP, *arguments], output)


@asynccontextmanager
async def ordinary_nodes(directory: Path, path: Path) -> AsyncIterator[Nodes]:
    """Nodes on the file at `path`."""
    settings: Settings = {"drain": HASTE}
    nodes = OrdinaryNodes(directory, f"sqlite:{path}", settings)
    try:
        yield nodes
    finally:
        await nodes.end()


async def refusal(nodes: Nodes, name: str) -> str:
    """Start a node that must refuse to; return what it says."""
    node = await nodes.start(name, ready=False)
    assert await exit_of(node) == EX_CONFIG, node.log_tail()
    return node.log_tail()


async def test_what_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """Exit 78 and the reason, for a directory without a file, one with a file, and a file; nothing is changed."""
    place = tmp_path / "place"
    path = place / "store.db"
    place.mkdir(mode=0o555)
    async with ordinary_nodes(tmp_path, path) as nodes:
        assert f"cannot open {path} for reading and writing: Permission denied" in await refusal(nodes, "directory")
        place.chmod(0o755)
        term(first := await nodes.start("first"))
        assert await exit_of(first) == 0
        place.chmod(0o555)
        assert f"{path}: attempt to write a readonly database" in await refusal(nodes, "directory-with-a-file")
        place.chmod(0o755)
        path.chmod(0o444)
        assert f"cannot open {path} for reading and writing: Permission denied" in await refusal(nodes, "file")
        assert [file.name for file in place.iterdir() if file.is_file()] == [path.name]


async def test_permissions_are_taken_away_in_the_middle(tmp_path: Path) -> None:
    """The node that has the file open serves on and ends with 0; the next one is refused until they are given back."""
    place, address = tmp_path / "place", Address()
    path = place / "store.db"
    place.mkdir()
    async with ordinary_nodes(tmp_path, path) as nodes, open_talk() as talk:
        node = await nodes.start("node", address)
        await talk.worker("worker", address.url)
        for n in range(4):
            await talk.client(f"client {n}", address.url)
        talk.begin(0.06)
        await talk.goes_on(5)
        for file in [each for each in place.iterdir() if each.is_file()]:
            file.chmod(0o444)
        place.chmod(0o555)
        await talk.goes_on(5)
        assert await probe(node) == (200, "ready")
        for chatter in talk.chatters:
            assert not chatter.saw(Disconnected), talk.account()
        term(node)
        assert await exit_of(node) == 0
        await check_copy(path, tmp_path / "copy", promises(talk))
        assert f"cannot open {path}" in await refusal(nodes, "refused")
        place.chmod(0o755)
        for file in [each for each in place.iterdir() if each.is_file()]:
            file.chmod(0o600)
        again = await nodes.start("again", address)
        await talk.goes_on(5)
        await talk.settle()
        term(again)
        assert await exit_of(again) == 0
