"""Redis dead, empty, away or stalled under traffic: connections stay, messages wait at their senders and come once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from signald.sdk.events import Disconnected, RealtimeReceived
from tests.real.harness import (
    Address,
    Nodes,
    Talk,
    exit_of,
    kill,
    logged,
    open_nodes,
    open_talk,
    probe,
    term,
    until,
    url_of,
)
from tests.real.redis_scene import check_undisturbed
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

AWAY_S = 8.0
APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")

PLACES = pytest.mark.parametrize("cross", [False, True], ids=["same node", "cross"])


@asynccontextmanager
async def scene(directory: Path, *options: str, cross: bool) -> AsyncIterator[tuple[Server, list[Node], Talk, Nodes]]:
    """Two nodes on a Redis; clients on the first, workers there too or on the second; all parties talk."""
    redis = Server(directory / "redis", *options)
    async with servers(redis), open_nodes(directory, redis.url) as nodes, open_talk(120) as talk:
        pair = [await nodes.start("first"), await nodes.start("second")]
        for n in range(2):
            await talk.worker(f"worker {n}", url_of(pair[1] if cross else pair[0]))
        for n in range(4):
            await talk.client(f"client {n}", url_of(pair[0]))
        talk.begin()
        await talk.goes_on(8)
        yield redis, pair, talk, nodes


@PLACES
async def test_redis_is_killed_and_started_empty(tmp_path: Path, cross: bool) -> None:
    """No live session is lost, three times over; and what was given back is good for a new connection and for newcomers."""
    async with scene(tmp_path, cross=cross) as (redis, pair, talk, _):
        for pause_s in (0.0, 1.5, 0.0):
            await redis.kill()
            await trio.sleep(pause_s)
            await redis.start()
            await talk.goes_on(8, 30)
        newcomer = await talk.client("newcomer", url_of(pair[1]))
        await newcomer.ask()
        await until(lambda: newcomer.answered == 1, 10, talk.account())
        await talk.settle()
        check_undisturbed(talk)
        for node in pair:
            assert logged(node, "store_came_back_empty")
            assert (await probe(node))[0] == 200


@PLACES
async def test_redis_is_restarted_with_its_log(tmp_path: Path, cross: bool) -> None:
    """The same with a Redis that keeps everything: no node has anything to give back."""
    async with scene(tmp_path, *APPEND_ONLY, cross=cross) as (redis, pair, talk, _):
        for pause_s in (0.0, 1.5):
            await redis.kill()
            await trio.sleep(pause_s)
            await redis.start()
            await talk.goes_on(8, 30)
        await talk.settle()
        check_undisturbed(talk)
        for node in pair:
            assert not logged(node, "store_came_back_empty")


async def test_redis_is_away_for_a_while(tmp_path: Path) -> None:
    """Connections stay up, realtime flows within a node, /readyz says degraded, nothing is acked; then all arrives once."""
    async with scene(tmp_path, *APPEND_ONLY, cross=False) as (redis, pair, talk, _):
        chatter = talk.chatters[0]
        (worker,) = [worker for worker in talk.workers if chatter.client.session in worker.sessions]
        session = worker.sessions[chatter.client.session]
        await redis.kill()
        await until(lambda: logged(pair[0], "store_away"), 5)
        assert await probe(pair[0]) == (503, "degraded")
        await trio.sleep(1)  # what was stored before is handed on still
        answered = talk.answered
        ended = trio.current_time() + AWAY_S
        sent = 0
        while trio.current_time() < ended:
            sent += session.realtime(sent)
            await trio.sleep(0.5)
            assert await probe(pair[0]) == (503, "degraded")
            assert (await probe(pair[0], "/livez"))[0] == 200
        await until(lambda: len(chatter.saw(RealtimeReceived)) >= sent, 5, "all of it flows")
        assert [event.data for event in chatter.saw(RealtimeReceived)] == list(range(sent))
        assert sent > 3
        assert talk.answered == answered, "nothing more than was under way when it died"
        await redis.start()
        for node in pair:
            await until(lambda node=node: ready(node), 10, f"{node.name} is ready again")
        await talk.goes_on(8, 30)
        await talk.settle()
        check_undisturbed(talk)
        for node in pair:
            assert not logged(node, "worker_given_up")
            assert not logged(node, "session_expired")


async def ready(node: Node) -> bool:
    """Whether a node is ready."""
    return await probe(node) == (200, "ready")


@PLACES
async def test_nobody_is_answered_before_redis_is(tmp_path: Path, cross: bool) -> None:
    """`CLIENT PAUSE`: no ack reaches a sender, no message a receiver, no party is let in until it ends."""
    async with scene(tmp_path, cross=cross) as (redis, pair, talk, _):
        quiet = await talk.client("quiet", url_of(pair[0]))
        await quiet.ask()
        await until(lambda: quiet.answered == 1, 10)
        paused_until = trio.current_time() + 4.5
        redis.ask("CLIENT", "PAUSE", 4500, "ALL")  # longer than any patience of ours
        await trio.sleep(1)  # what was under way
        before = talk.answered
        await quiet.ask()
        with trio.move_on_after(paused_until - trio.current_time()) as scope:
            await quiet.client.flush()
        assert scope.cancelled_caught, "acked while the store was silent"
        assert talk.answered == before
        await quiet.client.flush()
        await talk.goes_on(8, 30)
        await talk.settle()
        check_undisturbed(talk)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_deploy_meets_an_outage(tmp_path: Path, how: str) -> None:
    """The handover waits for Redis and goes on: each party moves once, workers stay the same, and nothing is lost."""
    first, second = Address(), Address()
    redis = Server(tmp_path / "redis", *APPEND_ONLY)
    settings: dict[str, dict[str, object]] = {
        "pace": {"sessions_per_s": 10.0},
        "drain": {"timeout_s": 30.0, "successor_timeout_s": 8.0},
    }
    async with servers(redis), open_nodes(tmp_path, redis.url, settings) as nodes, open_talk(120) as talk:
        old = await nodes.start("old", first)
        for n in range(2):
            await talk.worker(f"worker {n}", first.url, second.url)
        for n in range(8):
            await talk.client(f"client {n}", first.url, second.url)
        talk.begin()
        await nodes.start("new", second)
        await talk.goes_on(3)
        term(old)
        await until(lambda: logged(old, "drain_plan"), 5)
        await trio.sleep(0.3)
        if how == "killed":
            await redis.kill()
            await trio.sleep(1.5)
            await redis.start()
        else:
            redis.freeze()
            await trio.sleep(3)
            redis.thaw()
        assert await exit_of(old, 35) == 0
        await talk.goes_on(3)
        await talk.settle()
        assert not logged(old, "worker_given_up")
        (receipt,) = logged(old, "drain_receipt")
        assert receipt["goaway_before_pair_ready"] == 0
        for chatter in talk.chatters:
            assert chatter.client.connections == 2
            assert len(chatter.ledger.workers) == 1
            assert not chatter.saw(Disconnected)


async def test_a_party_that_breaks_off_while_redis_is_away(tmp_path: Path) -> None:
    """It is told to come again, and does: its session is there when Redis is, with everything."""
    async with scene(tmp_path, *APPEND_ONLY, cross=True) as (redis, pair, talk, nodes):
        await redis.kill()
        await until(lambda: logged(pair[0], "store_away"), 5)
        # All clients lose their node at once, and the only one left can let no party in.
        address = Address(*(node[1] for node in (pair[0].websocket, pair[0].http)))
        await kill(pair[0])
        again = await nodes.start("again", address, ready=False)
        await trio.sleep(3)
        await redis.start()

        async def decided() -> bool:
            return again.process.poll() is not None or await ready(again)

        await until(decided, 30, "it starts or refuses to")
        if again.process.poll() == 69:
            # It refused to start without its store, as it should; a supervisor starts it again. A slow one may find it back.
            await nodes.start("once-more", address)
        await talk.goes_on(8, 30)
        await talk.settle()
        for chatter in talk.chatters:
            assert len(chatter.ledger.workers) == 1, talk.account()
