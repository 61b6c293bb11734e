"""Another program holds the file's one write lock: for a moment it is waited for, for longer it is an outage."""

from pathlib import Path

import pytest
import trio

from signald.sdk.events import Disconnected, RealtimeReceived
from tests.real.harness import Address, exit_of, logged, open_nodes, open_talk, probe, term, until
from tests.real.sqlite_files import HASTE, Footprint, check_away, check_copy, locked, promises

pytestmark = pytest.mark.real

SETTINGS: dict[str, dict[str, object]] = {"store": {"command_timeout_s": 3.0}}
"""How long a lock is waited for."""


async def test_a_lock_is_held_for_a_moment_and_then_for_long(tmp_path: Path) -> None:
    """Below `command_timeout_s` no party notices; above it nothing is acked, realtime flows, no party is disconnected."""
    address, path = Address(), tmp_path / "store.db"
    async with open_nodes(tmp_path, f"sqlite:{path}", SETTINGS) as nodes, open_talk() as talk:
        node = await nodes.start("node", address)
        worker = await talk.worker("worker", address.url)
        for n in range(4):
            await talk.client(f"client {n}", address.url)
        talk.begin(0.06)
        await talk.goes_on(5)
        before = Footprint.of(node)
        with locked(path):
            await trio.sleep(0.7)
            assert await probe(node) == (200, "ready")
        await talk.goes_on(5)
        assert not logged(node, "store_away")
        with locked(path):
            await check_away(node, talk, 3)
            assert worker.sessions[talk.chatters[0].client.session].realtime("now")
            await until(lambda: talk.chatters[0].saw(RealtimeReceived), 5, "realtime flows")
            assert [event.data for event in talk.chatters[0].saw(RealtimeReceived)] == ["now"]
        await talk.goes_on(5)
        await talk.settle()
        assert await probe(node) == (200, "ready")
        for chatter in talk.chatters:
            assert not chatter.saw(Disconnected), talk.account()
        assert len(logged(node, "store_away")) == len(logged(node, "store_back")) == 1
        await until(lambda: Footprint.of(node) == before, 10, "nothing is left")
        term(node)
        assert await exit_of(node) == 0
        await check_copy(path, tmp_path / "copy", promises(talk))


async def test_a_node_is_stopped_while_a_lock_is_held(tmp_path: Path) -> None:
    """Exit 0 within the deadline, though nothing can be written; all go on at the node that is started afterwards."""
    address, path = Address(), tmp_path / "store.db"
    settings: dict[str, dict[str, object]] = {"store": {"command_timeout_s": 0.5}, "drain": HASTE}
    async with open_nodes(tmp_path, f"sqlite:{path}", settings) as nodes, open_talk() as talk:
        node = await nodes.start("node", address)
        await talk.worker("worker", address.url)
        for n in range(4):
            await talk.client(f"client {n}", address.url)
        talk.begin(0.06)
        await talk.goes_on(5)
        with locked(path):
            await check_away(node, talk, 0.2)
            term(node)
            assert await exit_of(node) == 0
        await nodes.start("again", address)
        await talk.goes_on(5)
        await talk.settle()
