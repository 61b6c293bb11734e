"""TLS to Redis and TLS of signald's own: with the right authority all works, and no other server is told anything."""

import ssl
import warnings
from pathlib import Path

import pytest
import trio

from tests.real.authority import Authority
from tests.real.harness import HOST, exit_of, open_nodes, open_talk
from tests.real.redis_scene import talking
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

EX_UNAVAILABLE, EX_CONFIG = 69, 78


class Secure:
    """A Redis that speaks TLS only, and keeps its data."""

    def __init__(self, home: Path) -> None:
        self.authority = Authority(home, "authority")
        self._certificate, self._key = home / "redis.pem", home / "redis.key"
        self.authority.issue(self._certificate, self._key)
        self.server = Server(
            home / "redis",
            *("--tls-cert-file", str(self._certificate), "--tls-key-file", str(self._key)),
            *("--tls-ca-cert-file", str(self.authority.file), "--tls-auth-clients", "no"),
            *("--appendonly", "yes", "--appendfsync", "always"),
            # A client that accepts any authority asks whether it is up.
            tls={"ssl_cert_reqs": "none"},
        )
        self.url = f"rediss://{HOST}:{self.server.port}"

    async def shown_by(self, authority: Authority) -> None:
        """Kill it, and start it with a new certificate."""
        await self.server.kill()
        authority.issue(self._certificate, self._key)
        await self.server.start()


async def test_certificates_are_changed(tmp_path: Path) -> None:
    """A new certificate of the same authority is as good; one of another is waited out, and said."""
    secure, other = Secure(tmp_path), Authority(tmp_path, "other")
    url = f"{secure.url}?ssl_ca_certs={secure.authority.file}"
    async with servers(secure.server), talking(tmp_path, url) as scene:
        await secure.shown_by(secure.authority)
        await scene.talk.goes_on(3)
        await secure.shown_by(other)
        await scene.degraded()
        answered = scene.talk.answered
        await trio.sleep(1.5)
        assert scene.talk.answered == answered
        await secure.shown_by(secure.authority)
        await scene.ends_well()


@pytest.mark.parametrize(
    ("form", "code", "said"),
    [
        ("rediss://{at}?ssl_ca_certs={other}", EX_CONFIG, "the certificate of Redis is not accepted"),
        ("rediss://{at}", EX_CONFIG, "the certificate of Redis is not accepted"),
        ("redis://{at}", EX_CONFIG, "Redis at {at} speaks TLS: write rediss"),
    ],
    ids=["another authority", "the system's authorities", "in plain"],
)
async def test_a_node_without_the_right_authority(tmp_path: Path, form: str, code: int, said: str) -> None:
    """It does not start, and says which of the two it does not like; a certificate is part of the configuration."""
    secure, other = Secure(tmp_path), Authority(tmp_path, "other")
    at = f"{HOST}:{secure.server.port}"
    async with servers(secure.server), open_nodes(tmp_path, form.format(at=at, other=other.file)) as nodes:
        node = await nodes.start("node", ready=False)
        assert await exit_of(node) == code
        assert said.format(at=at) in node.log_tail()


def old_tls(purpose: ssl.Purpose) -> ssl.SSLContext:
    """A side that speaks nothing newer than TLS 1.1, and trusts every certificate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ssl.create_default_context(purpose)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context


async def test_redis_with_an_old_tls(tmp_path: Path) -> None:
    """A server that speaks nothing newer than TLS 1.1 is refused, whatever authority vouches for it."""
    authority = Authority(tmp_path, "authority")
    authority.issue(tmp_path / "old.pem", tmp_path / "old.key")
    context = old_tls(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "old.pem", tmp_path / "old.key")
    refused = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await trio.SSLStream(stream, context, server_side=True).do_handshake()
            except trio.BrokenResourceError:
                refused.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"rediss://{HOST}:{listener.socket.getsockname()[1]}?ssl_ca_certs={authority.file}"
        async with open_nodes(tmp_path, url) as nodes:
            node = await nodes.start("node", ready=False)
            assert await exit_of(node) == EX_UNAVAILABLE
        assert refused.is_set()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_parties_over_tls(tmp_path: Path) -> None:
    """signald's own listener speaks TLS 1.2 and 1.3 to peers that trust its certificate, and nothing older to any."""
    authority = Authority(tmp_path, "authority")
    files = {"tls_certificate_file": tmp_path / "node.pem", "tls_key_file": tmp_path / "node.key"}
    authority.issue(*files.values())
    async with open_nodes(tmp_path, "memory:") as nodes, open_talk() as talk:
        node = await nodes.start("node", listen={name: str(file) for name, file in files.items()})
        url = f"wss://{HOST}:{node.websocket[1]}"
        for number, version in enumerate((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)):
            context = ssl.create_default_context(cafile=authority.file)
            context.minimum_version = context.maximum_version = version
            await talk.worker(f"worker {number}", url, capacity=1, ssl_context=context)
            await talk.client(f"client {number}", url, ssl_context=context)
        stream = await trio.open_tcp_stream(*node.websocket)
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, old_tls(ssl.Purpose.SERVER_AUTH), server_hostname=HOST).do_handshake()
        await trio.aclose_forcefully(stream)
        talk.begin()
        await talk.goes_on(3)
        await talk.settle()
