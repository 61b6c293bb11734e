"""Real nodes that seal: keys rotate under load and a deploy, the store shows nothing, and a node without a key ends with 78."""

import base64
import json
import signal
import sys
from pathlib import Path

import pytest
import trio
from redis import Redis

from signald.demo.cluster import Node
from tests.real.harness import Talk, exit_of, logged, open_nodes, open_talk, term, until, url_of
from tests.store.redis_servers import Server, servers
from tests.store.test_sealed import content

pytestmark = pytest.mark.real

EX_CONFIG = 78
TOKEN = "t" * 32
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
        "admin": {"token": TOKEN, "socket": "off"},
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
        await _retire_the_first(talk, keys, redis, two, three)
        keys.write_text(line("second", 3))
        refused = await nodes.start("refused", ready=False)
        assert await exit_of(refused, 20) == EX_CONFIG
        assert "encryption_keys_file" in refused.log.read_text()
        await talk.settle()
        talk.check()


async def _retire_the_first(talk: Talk, keys: Path, redis: Server, *nodes: Node) -> None:
    """Reseal under load; then no value is under the first key, whose line goes, and the parties notice nothing."""
    first_id = logged(nodes[0], "seal_key_used")[0]["id"]
    sealed = b"\xc1\x01" + bytes.fromhex(first_id)
    assert sealed in dump(redis.url), "the sessions have begun under it"
    token = keys.with_name("admin-token")
    token.write_text(TOKEN)
    url = "http://{}:{}".format(*nodes[1].http)
    command = ["ctl", "reseal", "--wait", "--json", "--url", url, "--token-file", str(token)]
    done = await trio.run_process([sys.executable, "-m", "signald.cli", *command], capture_stdout=True)
    answer = json.loads(done.stdout)
    assert answer["state"] == "done"
    assert [one["id"] for one in answer["retirable"]] == [first_id]
    assert answer["exchanged"] > 0
    assert sealed not in dump(redis.url)
    keys.write_text(f"retired {first_id}\n" + line("second", 2))  # noqa: ASYNC240
    before = len(logged(nodes[0], "config_reloaded"))
    for node in nodes:
        node.send_signal(signal.SIGHUP)
    await until(lambda: len(logged(nodes[0], "config_reloaded")) > before, 5, "the first key is retired")
    await talk.goes_on(5)
