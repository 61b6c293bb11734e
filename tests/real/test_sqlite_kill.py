"""A node that dies while it writes: the file is sound, everything acked is in it, and other users of the file go on."""

from pathlib import Path
from typing import Literal

import pytest

from signald.sdk.events import Disconnected
from tests.real.harness import Address, exit_of, kill, logged, open_nodes, open_talk, probe, term, until
from tests.real.sqlite_files import check_copy, promises, stopped_in_a_transaction
from tests.real.sqlite_kills import kill_again_and_again

pytestmark = pytest.mark.real


@pytest.mark.parametrize("ack", ["process", "disk"])
async def test_a_node_is_killed_again_and_again(tmp_path: Path, ack: Literal["process", "disk"]) -> None:
    """After every kill `integrity_check` is ok and all that was acked is there; to the parties all comes once."""
    figures = await kill_again_and_again(tmp_path, 2, ack, seed=1)
    assert figures["lost"] == figures["duplicated"] == figures["reordered"] == 0


async def test_one_of_two_nodes_is_killed_in_a_transaction(tmp_path: Path) -> None:
    """While it hangs there the other is away too; its death lets the other go on, and its parties move there."""
    first, second, path = Address(), Address(), tmp_path / "store.db"
    settings: dict[str, dict[str, object]] = {"store": {"command_timeout_s": 0.5}}
    async with open_nodes(tmp_path, f"sqlite:{path}", settings) as nodes, open_talk() as talk:
        doomed, other = await nodes.start("doomed", first), await nodes.start("other", second)
        here, there = (first.url, second.url), (second.url, first.url)
        await talk.worker("worker here", *here, capacity=3)
        await talk.worker("worker there", *there, capacity=3)
        for n in range(6):
            await talk.client(f"client {n}", *(here if n % 2 else there))
        talk.begin(0.06)
        await talk.goes_on(5)
        await stopped_in_a_transaction(doomed, path)
        await until(lambda: logged(other, "store_away"), 10, "the other cannot write either")
        assert await probe(other) == (503, "degraded")
        await kill(doomed)
        await talk.goes_on(5)
        await talk.settle()
        assert await probe(other) == (200, "ready")
        for n, chatter in enumerate(talk.chatters):
            assert len(chatter.saw(Disconnected)) == n % 2, talk.account()
            assert len(chatter.ledger.workers) == 1, talk.account()
        term(other)
        assert await exit_of(other) == 0
        await check_copy(path, tmp_path / "copy", promises(talk))
