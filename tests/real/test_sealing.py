"""Real nodes that seal: keys rotate under load and a deploy, the store shows nothing, and a node without a key ends with 78."""

import base64
import signal
from pathlib import Path

import pytest
import trio
from redis import Redis

from signald.demo.cluster import Node
from tests.real.harness import exit_of, logged, open_nodes, open_talk, term, until, url_of
from tests.store.redis_servers import Server, servers
from tests.store.test_sealed import content

pytestmark = pytest.mark.real

EX_CONFIG = 78
NAME = "hush-7f3a"
"""Stands in `meta`, and in no record that stays plain."""


def line(name: str, byte: int) -> str:
    """Return a line of a key file."""
    return f"{name} {base64.b64encode(bytes([byte]) * 32).decode()}\n"


def used(node: Node) -> list[str]:
    """Return the keys under which a node has sealed, in order."""
    return [entry["key"] for entry in logged(node, "seal_key_used")]


def dump(url: str) -> bytes:
    """Return all that Redis keeps."""
    with Redis.from_url(url) as redis:
        return b"".join(key + b"\0" + content(redis, key) for key in redis.keys("*"))


async def test_keys_rotate_under_load_and_a_deploy(tmp_path: Path) -> None:
    """Every question is answered once; the newest key seals once both nodes have it; no byte of `meta` is in the store."""
    keys, redis = tmp_path / "keys", Server(tmp_path / "redis")
    keys.write_text(line("first", 1))
    keys.chmod(0o600)
    settings: dict[str, dict[str, object]] = {
        "store": {"encryption_keys_file": str(keys)},
        "node": {"lease_ttl_s": 2.0},
    }
    async with servers(redis), open_nodes(tmp_path, redis.url, settings) as nodes, open_talk() as talk:
        one, two = await nodes.start("one"), await nodes.start("two")
        assert (used(one), used(two)) == (["first"], ["first"])
        await talk.worker("worker", url_of(two), url_of(one))
        await talk.client(NAME, url_of(one), url_of(two))
        talk.begin()
        await talk.goes_on(5)
        keys.write_text(line("first", 1) + line("second", 2))
        one.send_signal(signal.SIGHUP)
        await until(lambda: logged(one, "config_reloaded"), 5, "the first node has both keys")
        await trio.sleep(2.0)
        assert used(one) == ["first"], "the other node cannot open by the new key yet"
        two.send_signal(signal.SIGHUP)
        await until(lambda: used(one)[-1:] == used(two)[-1:] == ["second"], 10, "both seal under the new key")
        await talk.goes_on(5)
        three = await nodes.start("three")
        term(one)
        assert await exit_of(one) == 0
        await talk.goes_on(5)
        assert used(three) == ["second"]
        assert NAME.encode() not in dump(redis.url)
        keys.write_text(line("second", 3))
        refused = await nodes.start("refused", ready=False)
        assert await exit_of(refused, 20) == EX_CONFIG
        assert "encryption_keys_file" in refused.log.read_text()
        await talk.settle()
        talk.check()
