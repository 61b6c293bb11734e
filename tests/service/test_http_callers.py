"""Which caller a credential names at a node: API tokens, JWTs of services and persons, and nothing else."""

from typing import Any

import pytest
import trio
import trio.testing

from signald.config import AuthConfig
from signald.core.callers import Caller, CallerRefused
from signald.core.wants import SEPARATOR
from signald.node import Node
from signald.service.api.callers import HttpCallers
from signald.service.auth import Role, mint
from signald.testing.cluster import Cluster, play
from tests.core.test_api_tokens import mint as mint_elsewhere
from tests.http.publicly import HttpPeer

SECRET = "correct horse battery staple, " * 3
AUTH: dict[str, object] = {"jwt_secret": SECRET, "cookie_name": "jwt"}
ANN = f"acme{SEPARATOR}ann"


def jwt(node: Node, subject: str, role: Role, ttl_s: float = 60, ago_s: float = 0, **claims: Any) -> str:
    """A JWT of the operator."""
    now = node.hub.store.now_ms() / 1000 - ago_s
    return mint(AuthConfig(jwt_secret=SECRET), subject=subject, role=role, ttl_s=ttl_s, now=now, **claims)


async def verify(node: Node, shown: str | None, *, cookie: bool = False) -> Caller | str:
    """The caller, or why there is none; twice, as a request whose holder is named first does."""
    callers = HttpCallers(node.hub.parts)
    try:
        first = callers.known(shown, cookie=cookie)
    except CallerRefused as refused:
        with pytest.raises(CallerRefused, match=str(refused)):
            await callers.verify(shown, cookie=cookie)
        return refused.because
    try:
        caller = await callers.verify(shown, cookie=cookie)
    except CallerRefused as refused:
        return refused.because
    assert first in (None, caller)
    return caller


def test_the_four_kinds() -> None:
    """Each at a node that did not make its token: client, worker, service, person."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        node = await cluster.start("n2", auth=AUTH)
        _, started = await cluster.client("n1", auth=jwt(node, "ann", "client", tenant="acme"), api=True)
        _, accepted = await cluster.worker("n1", auth=jwt(node, "wes", "worker"), api=True)
        session, worker = started["session"], accepted["worker"]
        assert await verify(node, started["api_token"]) == Caller("client", ANN, "ann", "acme", session=session)
        assert await verify(node, accepted["api_token"]) == Caller("worker", "wes", "wes", worker=worker)
        assert await verify(node, jwt(node, "back", "service")) == Caller("service", "back", "back")
        limited = jwt(node, "back", "service", tenant="acme", scope=["jobs"])
        service = Caller("service", f"acme{SEPARATOR}back", "back", "acme", scopes=frozenset({"jobs"}))
        assert await verify(node, limited) == service
        person = jwt(node, "ann", "client", tenant="acme")
        for cookie in (False, True):
            assert await verify(node, person, cookie=cookie) == Caller("person", ANN, "ann", "acme")

    play(scene)


def test_what_names_no_caller() -> None:
    """Recovery tokens, JWTs of workers, what has run out, what another has signed, and each in the wrong place."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", auth=jwt(node, "ann", "client"), api=True)
        for shown in (None, "", "x", "a.b.c", started["recovery_token"], started["session"], mint_elsewhere()):
            assert await verify(node, shown) == "unauthenticated", shown
        assert await verify(node, jwt(node, "ann", "client", ttl_s=60, ago_s=120)) == "unauthenticated"
        assert await verify(node, jwt(node, "wes", "worker")) == "forbidden"
        assert await verify(node, jwt(node, "back", "service"), cookie=True) == "forbidden"
        assert await verify(node, started["api_token"], cookie=True) == "unauthenticated"
        await trio.sleep(node.hub.config.auth.api_token_ttl_s / 2)

    play(scene)


def test_an_api_token_is_no_opening_credential() -> None:
    """It opens no WebSocket, whose parties show the operator's JWT."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", auth=jwt(node, "ann", "client"), api=True)
        peer = await cluster.dial("n1", "/v1/client")
        await peer.send({"type": "connect", "auth": started["api_token"]})
        assert await peer.refused() == ("unauthenticated", 4401)

    play(scene)


def test_without_a_key_callers_are_anonymous_and_api_tokens_work() -> None:
    """Without a credential an anonymous person; a token that cannot be judged is none."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, started = await cluster.client("n1", api=True)
        assert await verify(node, None) == Caller("person", "", "")
        assert await verify(node, started["api_token"]) == Caller("client", "", "", session=started["session"])
        assert await verify(node, jwt(node, "back", "service")) == "unauthenticated"

    play(scene)


def test_a_token_of_a_revoked_principal() -> None:
    """Its API tokens are void with its JWTs, at each node within two seconds; what is vouched for later is good."""

    async def scene(cluster: Cluster) -> None:
        nodes = [await cluster.start(name, auth=AUTH) for name in ("n1", "n2")]
        shown = jwt(nodes[0], "ann", "client")
        _, started = await cluster.client("n1", auth=shown, api=True)
        made = nodes[0].hub.api_tokens.make("client", "s_1", "ann").text
        other = nodes[0].hub.api_tokens.make("worker", "w_1", "wes").text
        await trio.sleep(1)
        await nodes[1].operations.revoke("ann", None)
        await trio.sleep(2)
        for node in nodes:
            for token in (started["api_token"], made, shown):
                assert await verify(node, token) == "unauthenticated"
            assert isinstance(await verify(node, other), Caller)
            later = node.hub.api_tokens.make("client", "s_1", "ann").text
            assert isinstance(await verify(node, later), Caller)

    play(scene)


def test_a_node_that_hears_late_of_a_revocation_makes_no_token_that_outlives_it() -> None:
    """A token is as old as the credential by which its party was let in, however often it was followed by the next one."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={**AUTH, "api_token_ttl_s": 60.0})
        _, started = await cluster.client("n1", auth=jwt(node, "ann", "client", ttl_s=3600), api=True)
        (link,) = node.hub.links
        await trio.sleep(5)
        await node.operations.revoke("ann", None)
        renewed = node.hub.api_tokens.issue(link).text  # as a node does that has not heard of it yet
        assert renewed != started["api_token"]
        assert await verify(node, renewed) == "unauthenticated"

    play(scene)


def test_an_unknown_key_and_a_store_that_is_away() -> None:
    """The caller is told to come again: a node that was cut off cannot know whether the token is good."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await trio.sleep(2)
        cluster.kill("n1")
        assert await verify(node, mint_elsewhere()) == "unavailable"

    play(scene)


def test_a_node_answers_preflights() -> None:
    """The application of a node stands behind CORS, by the origins of its configuration."""

    async def scene(cluster: Cluster) -> None:
        listen: dict[str, object] = {"allowed_origins": ("https://app.example",)}
        node = await cluster.start("n1", auth=AUTH, listen=listen)
        ours, theirs = trio.testing.memory_stream_pair()
        node.hub.spawn(node.server.serve_stream, theirs, "192.0.2.1")
        peer = HttpPeer(ours)
        ask = b"OPTIONS /v1/jobs HTTP/1.1\r\nhost: a\r\norigin: https://%b.example\r\naccess-control-request-method: POST\r\n\r\n"
        answer = await peer.ask(ask % b"app")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "https://app.example")
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert (await peer.ask(ask % b"evil")).status == 403
        missing = await peer.ask(b"GET /none HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\n\r\n")
        assert (missing.status, missing.headers["access-control-allow-origin"]) == (404, "https://app.example")

    play(scene)
