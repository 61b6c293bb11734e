"""A node and a real issuer: it is ready once it has keys, puts parties off until then, and goes on when the issuer dies."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import jwt
import pytest
import trio

from tests.jwks import EC_KEY, jwk, key_set
from tests.real.harness import dial, exit_of, logged, open_nodes, probe, term, until, url_of

pytestmark = pytest.mark.real


class Issuer:
    """Serves a key set on loopback, or resets each connection."""

    def __init__(self) -> None:
        self.alive = False
        self.asked = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        body = key_set(jwk(EC_KEY, "k"))
        try:
            async with stream:
                await stream.receive_some(4096)
                self.asked += 1
                if self.alive:
                    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def serving(issuer: Issuer) -> AsyncIterator[str]:
    """Run an issuer; gives its URL."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, issuer.serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/jwks"
        nursery.cancel_scope.cancel()


async def answer(url: str) -> str:
    """Connect with a token of the issuer; return the type or the code of the answer."""
    token = jwt.encode({"sub": "ann", "role": "client", "exp": time.time() + 60}, EC_KEY, "ES256", headers={"kid": "k"})
    async with dial(url, "/v1/client") as peer:
        await peer.send({"type": "connect", "auth": token})
        said = await peer.receive()
        return str(said.get("code", said["type"]))


async def test_a_node_is_ready_once_it_has_keys(tmp_path: Path) -> None:
    """Before the first set `/readyz` is 503 and parties are put off; afterwards a dead issuer changes nothing."""
    issuer = Issuer()
    async with serving(issuer) as url, open_nodes(tmp_path, "memory:") as nodes:
        node = await nodes.start("n1", ready=False, auth={"jwks_url": url})
        await until(lambda: logged(node, "keys_waited_for"), 20)
        assert (await probe(node))[0] == 503
        assert await answer(url_of(node)) == "auth_unavailable"
        issuer.alive = True

        async def is_ready() -> bool:
            return (await probe(node))[0] == 200

        await until(is_ready, 20)
        assert await answer(url_of(node)) == "session_started"
        issuer.alive = False
        assert await answer(url_of(node)) == "session_started"
        term(node)
        assert await exit_of(node) == 0


async def test_sigterm_ends_the_wait_for_keys(tmp_path: Path) -> None:
    """A node that waits for its first keys can be stopped."""
    async with serving(Issuer()) as url, open_nodes(tmp_path, "memory:") as nodes:
        node = await nodes.start("n1", ready=False, auth={"jwks_url": url})
        await until(lambda: logged(node, "keys_waited_for"), 20)
        term(node)
        assert await exit_of(node) == 0
