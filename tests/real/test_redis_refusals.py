"""Redis that refuses: full memory, rights taken away in the middle, and what the recommended user may not do."""

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from redis import Redis
from redis.exceptions import NoPermissionError

from signald.sdk.trio import open_client
from signald.store.redis import ACL
from tests.real.harness import QUICK, logged, probe, until, url_of
from tests.real.redis_scene import Scene, talking
from tests.store.redis_servers import HOST, Server, servers

pytestmark = pytest.mark.real

PASSWORD = "hunter2-is-no-password"


def allow(redis: Server, rules: str = ACL) -> str:
    """Give signald's user these rights, as the pages recommend; return the URL for it."""
    known = [rule for rule in rules.split() if rule != "+waitaof" or redis.ask("COMMAND", "INFO", "waitaof") != [None]]
    redis.ask("ACL", "SETUSER", "signald", "reset", "on", f">{PASSWORD}", *known)
    return f"redis://signald:{PASSWORD}@{HOST}:{redis.port}"


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[tuple[Server, Scene]]:
    """Two nodes on one Redis, as the recommended user; all parties talk."""
    redis = Server(directory / "redis")
    async with servers(redis), talking(directory, allow(redis)) as talk:
        yield redis, talk


async def nothing_is_acked(talk: Scene) -> None:
    """Senders keep what they say, receivers get nothing, and newcomers are told to come again; for a while."""
    await talk.degraded()
    await trio.sleep(1)  # what was stored before is handed on still
    answered = talk.talk.answered
    with trio.move_on_after(1.5) as scope:
        # No worker is to get its session, should that be made later, when the client that asked for it has gone.
        async with open_client(url_of(talk.first), backoff=QUICK, want={"for": "nobody"}):
            pass
    assert scope.cancelled_caught, "let in without a store"
    assert talk.talk.answered == answered
    assert all(one.ledger.questions.lost for one in talk.talk.chatters), "somebody is not pushed back"
    for node in talk.pair:
        assert (await probe(node, "/livez"))[0] == 200


async def test_memory_is_full(tmp_path: Path) -> None:
    """OOM: nothing is acked and nothing dropped while `maxmemory` is reached; with more of it all that waited goes through."""
    async with scene(tmp_path) as (redis, talk):
        for _ in range(2):
            redis.ask("CONFIG", "SET", "maxmemory", "1mb")
            await nothing_is_acked(talk)
            redis.ask("CONFIG", "SET", "maxmemory", "0")
            await talk.ready()
            await talk.talk.goes_on(3)
        await talk.ends_well()
        for node in talk.pair:
            assert any("OOM" in entry["why"] for entry in logged(node, "store_away"))


async def test_rights_are_taken_away_and_given_back(tmp_path: Path) -> None:
    """`ACL SETUSER` in the middle: a node with sessions does not end over it, it waits until an operator has mended it."""
    async with scene(tmp_path) as (redis, talk):
        for taken in ("-evalsha", "-hset", "resetkeys", "off", "resetpass"):
            redis.ask("ACL", "SETUSER", "signald", taken)
            # A connection that is logged in stays so, whatever becomes of the user's password.
            redis.ask("CLIENT", "KILL", "USER", "signald")
            await nothing_is_acked(talk)
            for node in talk.pair:
                assert "credentials or permissions" in logged(node, "store_away")[-1]["why"]
            allow(redis)
            await talk.ready()
            await talk.talk.goes_on(3)
        await talk.ends_well()
        for node in talk.pair:
            assert PASSWORD not in node.log.read_text()


async def test_the_backplane_is_denied_for_a_while(tmp_path: Path) -> None:
    """Without its channels a node is not woken: it looks by itself, slower, and when they are back it is woken again."""
    async with scene(tmp_path) as (redis, talk):
        redis.ask("ACL", "SETUSER", "signald", "resetchannels", "&signald:nothing")
        for node in talk.pair:
            await until(lambda node=node: logged(node, "backplane_away") or logged(node, "store_away"), 10)
        await trio.sleep(2.0)
        allow(redis)
        await talk.ends_well()


FORBIDDEN = [
    "FLUSHALL", "FLUSHDB", "CONFIG GET maxmemory", "CONFIG SET maxmemory 1", "KEYS *", "SCAN 0", "SAVE", "SHUTDOWN NOSAVE",
    "ACL LIST", "REPLICAOF NO ONE", "CLIENT LIST", "MONITOR", "MODULE LIST", "SCRIPT FLUSH",
    "EVAL 'return 1' 0", "GET foreign", "SET foreign 1", "HGETALL foreign", "PUBLISH foreign 1", "SUBSCRIBE foreign",
]  # fmt: skip


async def test_the_recommended_user_can_do_no_harm(tmp_path: Path) -> None:
    """The least rights are enough for the service; they do not reach to other keys, to all keys, or to the server itself."""
    async with scene(tmp_path) as (redis, talk):
        for command in FORBIDDEN:
            client: Any = Redis(host=HOST, port=redis.port, username="signald", password=PASSWORD, socket_timeout=5)
            with closing(client), pytest.raises(NoPermissionError):
                client.execute_command(*shlex.split(command))
        await talk.ends_well()
        assert not any(logged(node, "store_away") for node in talk.pair)
