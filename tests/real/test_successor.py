"""Successors that are not there: a new release that crashes is the deploy that goes wrong most often."""

from pathlib import Path

import pytest
import trio

from signald.sdk.events import Disconnected, Replaced
from tests.real.harness import Address, Talk, exit_of, kill, logged, open_nodes, open_talk, term, until

pytestmark = pytest.mark.real


def check_kept(talk: Talk) -> None:
    """Every client has the worker it had, and was never told otherwise."""
    for chatter in talk.chatters:
        assert len(chatter.ledger.workers) == 1, talk.account()
        assert not chatter.saw(Replaced)


async def test_a_successor_killed_a_moment_ago_is_none(tmp_path: Path) -> None:
    """Its lease still stands; no party is sent to it, no worker is given up for not arriving there."""
    first, second = Address(), Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        old, ghost = await nodes.start("old", first), await nodes.start("ghost", second)
        urls = first.url, second.url
        for n in range(2):
            await talk.worker(f"worker {n}", *urls, capacity=2)
        for n in range(4):
            await talk.client(f"client {n}", *urls)
        talk.begin()
        await talk.goes_on(5)
        await kill(ghost)
        term(old)
        assert await exit_of(old) == 0
        assert logged(old, "no_successor")
        assert not logged(old, "worker_given_up")
        await nodes.start("next", second)
        await talk.goes_on(5)
        await talk.settle()
        check_kept(talk)
        assert {one.saw(Disconnected)[0].code for one in talk.chatters} == {1012}


async def test_a_successor_that_dies_during_the_handover(tmp_path: Path) -> None:
    """A party that has moved goes on by its token, one that has not is not late: another successor is waited for, and takes the rest."""
    first, second = Address(), Address()
    drain: dict[str, object] = {
        "timeout_s": 40.0,
        "stop_timeout_s": 75.0,
        "successor_timeout_s": 20.0,
        "worker_timeout_s": 5.0,
        "client_timeout_s": 5.0,
    }
    settings: dict[str, dict[str, object]] = {
        "drain": drain,
        "node": {"lease_ttl_s": 4.0},
        "pace": {"sessions_per_s": 2.5},
        "worker": {"resume_timeout_s": 20.0},
    }
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", settings) as nodes, open_talk(100) as talk:
        old, bad = await nodes.start("old", first), await nodes.start("bad", second)
        urls = first.url, second.url
        for n in range(6):
            await talk.worker(f"worker {n}", *urls, capacity=1)
        for n in range(6):
            await talk.client(f"client {n}", *urls)
        talk.begin()
        await talk.goes_on(5)
        term(old)
        await until(lambda: logged(bad, "worker_resumed"), 10, "the handover has begun")
        await kill(bad)
        await until(lambda: logged(old, "successor_lost"), 10, "the old node misses it")
        assert old.process.poll() is None
        await trio.sleep(5.5)  # longer than a worker may take
        await nodes.start("good", second)
        assert await exit_of(old, 45) == 0
        await talk.goes_on(5)
        await talk.settle()
        assert not logged(old, "worker_given_up")
        check_kept(talk)
