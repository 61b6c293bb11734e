"""Parties on asyncio through deploys and kills of real nodes, in a process that never imports Trio."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.real.harness import Address, exit_of, kill, open_nodes, term, until

pytestmark = pytest.mark.real

DEPLOYS = 3


async def test_asyncio_parties_notice_no_deploy(tmp_path: Path) -> None:
    """Three deploys and a kill beneath twelve clients and three workers: nothing is lost, doubled or reordered, and no text is wrong."""
    here, there = Address(), Address()
    output = tmp_path / "talk.out"
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        old = await nodes.start("node-0", here)
        talk = await nodes.spawn(["-m", "tests.real.asyncio_talk", "12", "3", here.url, there.url], output)
        await until(lambda: "talking" in output.read_text(), 30)
        await trio.sleep(2)
        for number in range(1, DEPLOYS + 1):
            new = await nodes.start(f"node-{number}", there)
            term(old)
            assert await exit_of(old) == 0
            old, here, there = new, there, here
            await trio.sleep(1)
        await kill(old)
        await nodes.start("node-last", here)
        await trio.sleep(3)
        talk.terminate()
        with trio.move_on_after(60):
            await talk.wait()
        said = output.read_text()
    assert talk.returncode == 0, said
    counts: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert [counts[name] for name in ("lost", "duplicated", "reordered", "trio")] == [0, 0, 0, False], counts
    assert counts["sent"] > 24, counts
    assert set(counts["texts"]) == {"right"}, counts
    # Each client has come to each of the nodes: by a handover for a deploy, and by itself after the kill.
    assert counts["events"]["HandedOver"] == 12 * DEPLOYS, counts
    assert counts["events"]["Disconnected"] == 12, counts
    assert set(counts["connections"]) == {2 + DEPLOYS}, counts
