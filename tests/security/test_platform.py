"""What stands around signald: the permissions of its user at Redis, and the versions of TLS it speaks."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from redis import Redis
from redis.exceptions import NoPermissionError

from signald.config import ListenConfig
from signald.service.tls import tls_context
from signald.store.redis import ACL
from tests.net.clients import listening
from tests.net.test_real import certificate
from tests.store import test_redis
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with a key and a channel of another program."""
    server = Server(tmp_path)
    async with servers(server):
        server.ask("SET", "other:key", "theirs")
        yield server


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET requirepass",
        "CONFIG SET maxmemory 1",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "EVAL return(1) 0",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
        "SHUTDOWN NOSAVE",
        "SAVE",
        "REPLICAOF NO ONE",
        "MODULE LIST",
        "MONITOR",
        "CLIENT LIST",
        "ACL LIST",
        "ACL SETUSER signald on nopass",
        "SWAPDB 0 1",
        "GET other:key",
        "GET signald:key",
        "SET signald:key x",
        "DEL other:key",
        "EXISTS other:key",
        "HGETALL other:key",
        "XADD other:key * a b",
        "PUBLISH other x",
        "SUBSCRIBE other",
        "PSUBSCRIBE *",
    ],
)
async def test_the_user_of_signald_may_do_nothing_else(redis: Server, command: str) -> None:
    """With the documented permissions a stolen password neither empties nor searches nor stops Redis, nor sees other keys."""
    url = test_redis.TestPermissions.allow(redis, ACL)
    with Redis.from_url(url) as stolen:
        assert stolen.ping()
        with pytest.raises(NoPermissionError):
            stolen.execute_command(*command.split(" "))
    assert redis.ask("GET", "other:key") == b"theirs"


async def test_a_script_of_the_user_of_signald_may_not_either(redis: Server) -> None:
    """What it may load it may not use to get at more than it may itself."""
    url = test_redis.TestPermissions.allow(redis, ACL)
    with Redis.from_url(url) as stolen:
        for body in ("return redis.call('GET', KEYS[1])", "return redis.call('FLUSHALL')"):
            sha = stolen.script_load(body)
            with pytest.raises(NoPermissionError):
                stolen.evalsha(sha, 1, "other:key")
    assert redis.ask("GET", "other:key") == b"theirs"


def client_hello(version: int) -> bytes:
    """Return the first message of a client that knows TLS up to `version`, 0x0303 being TLS 1.2."""
    suites = struct.pack("!6H", 0xC02B, 0xC009, 0xC00A, 0xC013, 0x002F, 0x00FF)
    groups = struct.pack("!HHHH", 10, 4, 2, 23)  # P-256, the curve of the certificate
    points = struct.pack("!HHBB", 11, 2, 1, 0)
    signatures = struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0203)
    extensions = groups + points + (signatures if version >= 0x0303 else b"")
    body = struct.pack("!H", version) + b"r" * 32 + b"\0" + struct.pack("!H", len(suites)) + suites + b"\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack("!BHH", 22, 0x0301, len(hello)) + hello


@pytest.mark.parametrize(
    ("version", "served"), [(0x0300, False), (0x0301, False), (0x0302, False), (0x0303, True)], ids=hex
)
async def test_tls_below_1_2_is_not_spoken(tmp_path: Path, version: int, served: bool) -> None:
    """A client that knows no more than TLS 1.1 is hung up on; one with 1.2 is answered in 1.2."""
    certificate_file, key_file = certificate(tmp_path)
    context = tls_context(ListenConfig(tls_certificate_file=str(certificate_file), tls_key_file=str(key_file)))
    assert context is not None
    async with listening(tls=context) as port:
        client = await port.dial()
        await client.send(client_hello(version))
        if served:
            answer = bytes(await client.stream.receive_some())
            assert answer[:1] == b"\x16", "a handshake record"
            assert answer[5:6] == b"\x02", "with a ServerHello in it"
            assert answer[9:11] == b"\x03\x03", "that chooses TLS 1.2"
        else:
            await client.hung_up_after()
            assert not client.received.startswith(b"\x16")
        await trio.aclose_forcefully(client.stream)
