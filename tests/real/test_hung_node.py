"""A node that hangs for longer than its lease and comes back: it finds that others have acted, and does no harm."""

import signal
from pathlib import Path

import pytest
import trio

from signald.sdk.events import Disconnected, Replaced
from tests.real.harness import Address, logged, open_nodes, open_talk, until

pytestmark = pytest.mark.real

SETTINGS: dict[str, dict[str, object]] = {"node": {"lease_ttl_s": 3.0}, "worker": {"resume_timeout_s": 2.0}}


async def test_a_node_hangs_for_longer_than_its_worker_may_be_away(tmp_path: Path) -> None:
    """single-owner: its worker's sessions went to another; what clients said meanwhile reaches that one alone.

    A session whose client is at the node that hangs waits for that node: its worker may be either of the two then.
    """
    first, second = Address(), Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes, open_talk() as talk:
        hung, other = await nodes.start("hung", first), await nodes.start("other", second)
        here, there = (first.url, second.url), (second.url, first.url)
        await talk.worker("worker here", *here)
        for n in range(4):
            await talk.client(f"client {n}", *(here if n % 2 else there))
        for chatter in talk.chatters:
            await chatter.ask()
        # All have the one worker there is, before they could get another.
        await until(lambda: all(one.answered for one in talk.chatters), 10, "the first worker has answered all")
        await talk.worker("worker there", *there)
        hung.send_signal(signal.SIGSTOP)
        talk.begin()
        await until(lambda: logged(other, "worker_given_up"), 15, "the worker is given up")
        await until(lambda: all(one.answered > 5 for one in talk.chatters[::2]), 10, talk.account())
        hung.send_signal(signal.SIGCONT)
        await talk.goes_on(8)
        await talk.settle()
        for chatter in talk.chatters:
            assert not chatter.saw(Disconnected)
            assert len(chatter.saw(Replaced)) <= 1
        for chatter in talk.chatters[::2]:
            assert chatter.ledger.workers == {"worker here", "worker there"}
            assert len(chatter.saw(Replaced)) == 1


async def test_a_node_hangs_for_longer_than_its_lease(tmp_path: Path) -> None:
    """Shorter than its worker may be away: no party was moved, and all goes on as before."""
    first, second = Address(), Address()
    settings: dict[str, dict[str, object]] = {**SETTINGS, "worker": {"resume_timeout_s": 10.0}}
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", settings) as nodes, open_talk() as talk:
        hung, other = await nodes.start("hung", first), await nodes.start("other", second)
        await talk.worker("worker", first.url)
        for n in range(4):
            await talk.client(f"client {n}", first.url if n % 2 else second.url)
        talk.begin()
        await talk.goes_on(3)
        hung.send_signal(signal.SIGSTOP)
        await trio.sleep(5)
        hung.send_signal(signal.SIGCONT)
        await talk.goes_on(8)
        await talk.settle()
        assert not logged(other, "worker_given_up")
        for chatter in talk.chatters:
            assert not chatter.saw(Replaced)
            assert not chatter.saw(Disconnected)
