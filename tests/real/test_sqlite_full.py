"""A disk that is full or fails, under traffic: senders wait, the node lives, and goes on when there is room again."""

from pathlib import Path

import pytest
import trio

from signald.sdk.events import Disconnected
from tests.real.harness import Address, exit_of, logged, open_nodes, open_talk, probe, term, until
from tests.real.sqlite_files import HASTE, KINDS, Footprint, check_away, check_copy, disk, promises, wal_of

pytestmark = pytest.mark.real

AWAY_S = 0.5


@pytest.mark.parametrize("kind", KINDS)
async def test_the_disk_is_full_for_a_while(tmp_path: Path, kind: str) -> None:
    """Nothing is acked meanwhile and no party is disconnected; with room everything arrives once, newcomers too."""
    address = Address()
    with disk(kind, tmp_path / "disk") as room:
        path = room.directory / "store.db"
        async with open_nodes(tmp_path, f"sqlite:{path}") as nodes, open_talk() as talk:
            node = await nodes.start("node", address)
            worker = await talk.worker("worker", address.url)
            for n in range(4):
                await talk.client(f"client {n}", address.url)
            talk.begin(0.06)
            await talk.goes_on(5)
            await until(lambda: wal_of(path).stat().st_size > 200_000, 20, "a file to be limited")
            before = Footprint.of(node)
            for _ in range(2):
                room.fill(node)
                await check_away(node, talk, AWAY_S)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(talk.client, f"newcomer {len(talk.chatters)}", address.url)
                    await trio.sleep(0.5)
                    room.free(node)
                await talk.goes_on(5)
                await until(lambda: len(worker.sessions) == len(talk.chatters), 10, "the newcomer has a worker")
                assert await probe(node) == (200, "ready")
            await talk.settle()
            for chatter in talk.chatters[:4]:
                assert not chatter.saw(Disconnected), talk.account()
            newcomers = 2
            expected = before._replace(descriptors=before.descriptors + newcomers)
            await until(lambda: Footprint.of(node) == expected, 10, "nothing is left but the newcomers")
            assert len(logged(node, "store_away")) == len(logged(node, "store_back")) == 2
            term(node)
            assert await exit_of(node) == 0
            await check_copy(path, tmp_path / "copy", promises(talk))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_is_stopped_while_the_disk_is_full(tmp_path: Path, kind: str) -> None:
    """Exit 0 within the deadline, though nothing can be written; all go on at the node that is started with room."""
    address = Address()
    with disk(kind, tmp_path / "disk") as room:
        path = room.directory / "store.db"
        async with open_nodes(tmp_path, f"sqlite:{path}", {"drain": HASTE}) as nodes, open_talk() as talk:
            node = await nodes.start("node", address)
            await talk.worker("worker", address.url)
            for n in range(4):
                await talk.client(f"client {n}", address.url)
            talk.begin(0.06)
            await talk.goes_on(5)
            await until(lambda: wal_of(path).stat().st_size > 200_000, 20, "a file to be limited")
            room.fill(node)
            await check_away(node, talk, 0.2)
            term(node)
            assert await exit_of(node) == 0
            await check_copy(path, tmp_path / "copy", promises(talk))
            room.free(node)
            again = await nodes.start("again", address)
            await talk.goes_on(5)
            await talk.settle()
            term(again)
            assert await exit_of(again) == 0
