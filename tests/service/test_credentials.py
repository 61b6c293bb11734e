"""Credentials that run out while their party is connected: told, renewed, or closed at the end of the grace; and not at all without one."""

from typing import Any

import jwt
import pytest
import trio

from signald.http.fetch import FetchFailed
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.jwks import EC_KEY
from tests.service.test_jwks import AUTH as BY_URL
from tests.service.test_jwks import Issuer, issuer
from tests.service.test_opening import SECRET
from tests.service.test_reload import reload

__all__ = ["issuer"]

NOW = 1_700_000_000
"""When the clock of a cluster starts."""

AUTH: dict[str, object] = {"jwt_secret": SECRET, "expiry_grace_s": 10.0}


def token(life_s: float, role: str = "client", **claims: Any) -> str:
    """Return a token that is good until `life_s` after the start of the clock."""
    said = {"sub": "ann", "role": role, "exp": NOW + life_s, **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, SECRET, algorithm="HS256")


async def connect(cluster: Cluster, role: str, life_s: float, **claims: Any) -> Peer:
    """Open a connection of a party with a token."""
    if role == "client":
        return (await cluster.client("n1", auth=token(life_s, **claims)))[0]
    return (await cluster.worker("n1", auth=token(life_s, "worker", **claims)))[0]


@pytest.mark.parametrize("role", ["client", "worker"])
def test_a_party_is_told_and_then_closed(role: str) -> None:
    """`auth_expiring` comes when the token runs out, with the grace; without a new one the connection ends with 4401 behind it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        begin = trio.current_time()
        peer = await connect(cluster, role, 60)
        said = await peer.expect("error")
        assert (said["code"], said["fatal"], said["retry_after_ms"]) == ("auth_expiring", False, 10_000)
        assert 60 <= trio.current_time() - begin < 62
        said = await peer.expect("error")
        assert (said["code"], said["fatal"]) == ("auth_expired", True)
        assert await peer.closed() == 4401
        assert 70 <= trio.current_time() - begin < 73
        assert node.hub.credentials.ended["expired"] == 1

    play(scene)


@pytest.mark.parametrize("role", ["client", "worker"])
def test_a_new_token_of_the_same_subject_goes_on(role: str) -> None:
    """The connection stays open, nothing is answered, and the new token's end counts from then on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        peer = await connect(cluster, role, 30, tenant="acme")
        await peer.expect("error")
        await peer.send({"type": "auth", "auth": token(100, role, tenant="acme")})
        assert await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}
        begin = trio.current_time()
        assert (await peer.expect("error"))["code"] == "auth_expiring"
        assert 60 < trio.current_time() - begin < 75
        await peer.send({"type": "auth", "auth": token(500, role, tenant="acme")})
        await trio.sleep(60)
        assert await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}

    play(scene)


def test_a_token_may_be_renewed_before_it_runs_out() -> None:
    """A party that sends a new token early is never told."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        peer = await connect(cluster, "client", 30)
        await peer.send({"type": "auth", "auth": token(300)})
        await trio.sleep(120)
        assert await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}

    play(scene)


@pytest.mark.parametrize(
    "wrong",
    [
        token(500, sub="eve"),
        token(500, tenant="acme"),
        token(500, "worker"),
        token(500, "service"),
        token(30),
        token(-10),
        "no token",
        jwt.encode({"sub": "ann", "role": "client", "exp": NOW + 500}, "another secret, more than 32 bytes", "HS256"),
    ],
)
def test_any_other_token_changes_nothing(wrong: str) -> None:
    """Another subject, tenant or role, a token that has run out, and noise: `auth_refused`, and the grace goes on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        peer = await connect(cluster, "client", 30)
        await peer.expect("error")
        begin = trio.current_time()
        await peer.send({"type": "auth", "auth": wrong})
        said = await peer.expect("error")
        assert (said["code"], said["fatal"]) == ("auth_refused", False)
        assert await peer.closed() == 4401
        assert trio.current_time() - begin < 13

    play(scene)


def test_without_a_grace_a_token_counts_at_the_opening_only() -> None:
    """The default: a connection outlives its token. `auth` is taken all the same, and a reload may begin a grace."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"jwt_secret": SECRET})
        peer = await connect(cluster, "client", 30)
        await trio.sleep(120)
        await peer.send({"type": "auth", "auth": token(200)})
        await peer.send({"type": "auth", "auth": token(200, sub="eve")})
        assert (await peer.expect("error"))["code"] == "auth_refused"
        reload(node, auth={"expiry_grace_s": 5.0})
        assert (await peer.expect("error"))["code"] == "auth_expiring"
        assert 200 <= trio.current_time() < 203
        assert await peer.closed() == 4401

    play(scene)


def test_an_anonymous_party_never_runs_out() -> None:
    """Without a key there is nothing to renew, and `auth` from a party of such a node is no error."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth={"expiry_grace_s": 1.0})
        peer, _ = await cluster.client("n1")
        await peer.send({"type": "auth", "auth": "whatever"})
        await trio.sleep(60)
        assert await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}

    play(scene)


def test_nobody_pays_for_an_issuer_that_is_away(issuer: Issuer) -> None:
    """While no token can be judged no party can prove itself: it stays until it can, and has its grace over then."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=BY_URL | {"expiry_grace_s": 10.0, "jwks_stale_max_s": 100.0})
        await node.hub.jwks.wait_first()
        claims = {"sub": "ann", "role": "client", "exp": NOW + 95}
        bearer = jwt.encode(claims, EC_KEY, "ES256", headers={"kid": "old"})
        peer, _ = await cluster.client("n1", auth=bearer)
        issuer.fails = FetchFailed("dead")
        assert (await peer.expect("error"))["code"] == "auth_expiring"
        await trio.sleep(60)
        await peer.send({"type": "auth", "auth": bearer})
        assert (await peer.expect("error"))["code"] == "auth_unavailable"
        issuer.fails = None
        await trio.sleep(100)
        assert await peer.closed() == 4401

    play(scene)


def test_a_flood_of_credentials_ends_its_connection() -> None:
    """Each `auth` is verified, so it counts as a frame that is no message."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        peer = await connect(cluster, "client", 300)
        for _ in range(1500):
            await peer.send({"type": "auth", "auth": "x"})
        assert await peer.closed() == 4429

    play(scene)


def test_one_task_looks_after_all_parties() -> None:
    """Many parties that run out at different times are all told in time, by a look a second at most."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        peers = [(await connect(cluster, "client", life_s), life_s) for life_s in (90, 20.25, 20.5, 55, 20)]
        for peer, life_s in sorted(peers, key=lambda one: one[1]):
            assert (await peer.expect("error"))["code"] == "auth_expiring"
            assert life_s <= trio.current_time() < life_s + 1.5

    play(scene)
