"""The key set of a URL: fetched, kept and rotated, and that an issuer that is dead or lying hurts no known party."""

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import trio

from signald.http.fetch import Fetched, FetchFailed
from signald.service.jwks import LIFE_MIN_S, RETRY_MAX_S
from signald.service.key_sets import ASKED_MAX, RemoteKeys
from signald.testing.cluster import Cluster, play
from tests.jwks import EC_KEY, ED_KEY, RSA_KEY, jwk, key_set
from tests.service.test_reload import reload

URL = "https://issuer.example/jwks"
AUTH: dict[str, object] = {"jwks_url": URL, "jwks_life_s": 300.0, "jwks_refetch_s": 10.0}
OLD, NEW = jwk(EC_KEY, "old"), jwk(ED_KEY, "new")


class Issuer:
    """Answers fetches by word of the test, and remembers when it was asked."""

    def __init__(self) -> None:
        self.body: bytes = key_set(OLD)
        self.max_age_s: int | None = None
        self.fails: Exception | None = None
        self.takes_s = 0.01
        self.asked: list[tuple[float, str]] = []

    async def __call__(self, url: str) -> Fetched:
        self.asked.append((trio.current_time(), url))
        body, fails = self.body, self.fails
        await trio.sleep(self.takes_s)
        if fails is not None:
            raise fails
        return Fetched(body, self.max_age_s)


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Issuer:
    """The issuer of all nodes of the test."""
    made = Issuer()
    monkeypatch.setattr("signald.service.jwks._HttpGet", lambda: made)
    return made


def token(cluster: Cluster, private: Any = EC_KEY, kid: str | None = "old", algorithm: str = "ES256") -> str:
    now = cluster.world.now_ms() / 1000
    claims = {"sub": "ann", "role": "client", "exp": now + 200_000}
    return jwt.encode(claims, private, algorithm, headers=None if kid is None else {"kid": kid})


def new_token(cluster: Cluster) -> str:
    return token(cluster, ED_KEY, "new", "EdDSA")


async def answer(cluster: Cluster, bearer: str) -> Any:
    """Connect with a token; return "in", or the error and the close code."""
    peer = await cluster.dial("n1", "/v1/client")
    await peer.send({"type": "connect", "auth": bearer})
    said = await peer.receive()
    if said["type"] == "session_started":
        await peer.send({"type": "bye"})
        return "in"
    return said["code"], await peer.closed()


PUT_OFF = ("auth_unavailable", 1013)
REFUSED = ("unauthenticated", 4401)

Scene = Callable[[Cluster], Any]


def test_a_token_of_the_issuer_opens_a_session(issuer: Issuer) -> None:
    """The set is fetched at the start, and a token of another key of the same kind is none."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        assert await answer(cluster, token(cluster)) == "in"
        assert await answer(cluster, token(cluster, ED_KEY, "old", "EdDSA")) == REFUSED
        assert [url for _, url in issuer.asked] == [URL]

    play(scene)


def test_until_the_first_set_parties_are_put_off(issuer: Issuer) -> None:
    """4401 ends a client for good; a node that cannot judge says 1013, asks again soon, and lets in once it can."""

    async def scene(cluster: Cluster) -> None:
        issuer.fails = FetchFailed("dead")
        node = await cluster.start("n1", auth=AUTH)
        await trio.sleep(5)
        assert await answer(cluster, token(cluster)) == PUT_OFF
        assert await answer(cluster, "no token") == REFUSED
        await trio.sleep(250)
        pauses = [later - earlier for (earlier, _), (later, _) in zip(issuer.asked, issuer.asked[1:], strict=False)]
        assert pauses[0] < 1.5
        assert RETRY_MAX_S * 0.7 < pauses[-1] < RETRY_MAX_S * 1.3
        issuer.fails = None
        with trio.fail_after(2 * RETRY_MAX_S):
            await node.hub.jwks.wait_first()
        assert await answer(cluster, token(cluster)) == "in"

    play(scene)


@pytest.mark.parametrize("how", ["dead", "lying", "broken"])
def test_a_set_goes_on_when_its_issuer_does_not(issuer: Issuer, how: str) -> None:
    """Known keys count for `jwks_stale_max_s` after the last good answer, whatever the issuer says since; then parties are put off."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH | {"jwks_stale_max_s": 400.0})
        await node.hub.jwks.wait_first()
        issuer.fails = {"dead": FetchFailed("dead"), "lying": None, "broken": RuntimeError("a bug")}[how]
        issuer.body = b"<html>we moved</html>"
        await trio.sleep(390)
        assert node.hub.jwks.outcomes["fetched"] == 1
        assert await answer(cluster, token(cluster)) == "in"
        await trio.sleep(20)
        assert await answer(cluster, token(cluster)) == PUT_OFF
        issuer.fails, issuer.body = None, key_set(OLD)
        await trio.sleep(2 * RETRY_MAX_S)
        assert await answer(cluster, token(cluster)) == "in"

    play(scene)


def test_a_node_that_starts_while_the_issuer_is_away_knows_what_the_others_know(issuer: Issuer) -> None:
    """A deploy or a restart in the middle of an outage hurts no known party; a new key still waits for the issuer, and a set that is
    too old counts on no node."""

    async def scene(cluster: Cluster) -> None:
        first = await cluster.start("n0", auth=AUTH)
        await first.hub.jwks.wait_first()
        await trio.sleep(100)
        issuer.fails = FetchFailed("dead")
        cluster.kill("n0")
        node = await cluster.start("n1", auth=AUTH | {"jwks_stale_max_s": 300.0})
        with trio.fail_after(1):
            await node.hub.jwks.wait_first()
        assert await answer(cluster, token(cluster)) == "in"
        assert await answer(cluster, new_token(cluster)) == PUT_OFF
        await trio.sleep(60)
        assert await answer(cluster, new_token(cluster)) == PUT_OFF
        await trio.sleep(145)
        assert await answer(cluster, token(cluster)) == PUT_OFF
        issuer.fails, issuer.body = None, key_set(NEW)
        await trio.sleep(2 * RETRY_MAX_S)
        assert await answer(cluster, new_token(cluster)) == "in"

    play(scene)


def test_a_set_in_the_store_is_that_of_its_url(issuer: Issuer) -> None:
    """A node with another URL, with other algorithms than the set has keys for, or with less patience begins without keys."""

    async def scene(cluster: Cluster) -> None:
        first = await cluster.start("n0", auth=AUTH)
        await first.hub.jwks.wait_first()
        issuer.fails = FetchFailed("dead")
        await trio.sleep(60)
        for change in ({"jwks_url": URL + "2"}, {"jwt_algorithms": ("RS256",)}, {"jwks_stale_max_s": 50.0}):
            node = await cluster.start("n1", auth=AUTH | change)
            await trio.sleep(5)
            assert node.hub.auth.remote is not None
            assert not node.hub.auth.remote.first.is_set()
            assert await answer(cluster, token(cluster)) == PUT_OFF
            cluster.kill("n1")

    play(scene)


def test_a_rotation_is_found_by_the_first_token_of_the_new_key(issuer: Issuer) -> None:
    """An unknown kid asks the issuer at once: the party is put off for a moment and not sent away, and both keys count."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        await trio.sleep(60)
        issuer.body = key_set(OLD, NEW)
        assert await answer(cluster, new_token(cluster)) == PUT_OFF
        await trio.sleep(0.1)
        assert await answer(cluster, new_token(cluster)) == "in"
        assert await answer(cluster, token(cluster)) == "in"
        assert len(issuer.asked) == 2

    play(scene)


def test_a_flood_of_unknown_keys_asks_the_issuer_so_often(issuer: Issuer) -> None:
    """One fetch each `jwks_refetch_s`, however many tokens; known tokens are taken meanwhile, and what is remembered is bounded."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        before, now = len(issuer.asked), cluster.world.now_ms() / 1000
        remote = node.hub.auth.remote
        assert remote is not None
        for number in range(3 * ASKED_MAX):
            with pytest.raises(Exception, match="not here"):
                node.hub.auth.authenticate(token(cluster, kid=f"k{number}"), "client", now)
            if number % 100 == 0:
                await trio.sleep(1)
                assert await answer(cluster, token(cluster)) == "in"
        assert len(issuer.asked) - before in (2, 3)
        assert len(remote._asked) == ASKED_MAX

    play(scene)


def test_a_key_that_the_issuer_does_not_have_is_refused_for_good(issuer: Issuer) -> None:
    """Once the issuer was asked and has no such key, the token is none: its party must not come again for ever."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        await trio.sleep(60)
        foreign = token(cluster, RSA_KEY, "foreign", "RS256")
        assert await answer(cluster, foreign) == PUT_OFF
        await trio.sleep(1)
        assert await answer(cluster, foreign) == REFUSED
        asked = len(issuer.asked)
        await trio.sleep(30)
        assert await answer(cluster, foreign) == REFUSED
        assert len(issuer.asked) == asked
        assert await answer(cluster, token(cluster, kid="k" * 257)) == REFUSED
        issuer.fails = FetchFailed("dead")
        assert await answer(cluster, token(cluster, kid="another")) == PUT_OFF
        await trio.sleep(60)
        assert await answer(cluster, token(cluster, kid="another")) == PUT_OFF  # it cannot be told

    play(scene)


@pytest.mark.parametrize(
    ("max_age_s", "life_s"), [(None, 300.0), (120, 120.0), (0, LIFE_MIN_S), (5, LIFE_MIN_S), (999_999, 200.0)]
)
def test_a_set_is_refreshed_before_its_life_ends(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, max_age_s: int | None, life_s: float
) -> None:
    """The issuer's max-age counts within bounds: no withdrawn key lives on for a day, and no issuer is asked without end."""
    monkeypatch.setattr("signald.service.jwks.LIFE_MAX_S", 200.0)  # instead of an hour

    async def scene(cluster: Cluster) -> None:
        issuer.max_age_s = max_age_s
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        issuer.body = key_set(NEW)
        await trio.sleep(life_s)
        assert len(issuer.asked) == 2
        assert 0.7 * life_s <= issuer.asked[1][0] - issuer.asked[0][0] <= 0.9 * life_s + 1
        assert await answer(cluster, new_token(cluster)) == "in"

    play(scene)


def test_a_reload_keeps_the_set_and_asks_anew(issuer: Issuer) -> None:
    """With the same URL no party is put off; another URL starts empty, because its keys alone are to be trusted."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await node.hub.jwks.wait_first()
        await trio.sleep(1)
        issuer.takes_s = 2.0
        reload(node, auth={"leeway_s": 1.0})
        assert await answer(cluster, token(cluster)) == "in"
        await trio.sleep(3)
        assert len(issuer.asked) == 2
        reload(node, auth={"jwt_algorithms": ("EdDSA",)})
        assert await answer(cluster, token(cluster)) != "in"
        issuer.body = key_set(NEW)
        reload(node, auth={"jwks_url": URL + "2", "jwt_algorithms": ()})
        assert await answer(cluster, token(cluster)) == PUT_OFF
        await trio.sleep(5)
        assert await answer(cluster, token(cluster)) != "in"
        assert await answer(cluster, new_token(cluster)) == "in"
        reload(node, auth={"jwks_url": "", "jwt_secret": "s" * 32})
        asked = len(issuer.asked)
        await trio.sleep(300)
        assert len(issuer.asked) == asked

    play(scene)


def test_a_set_does_not_show_its_url() -> None:
    """An authenticator with it can be logged."""
    assert "issuer" not in repr(RemoteKeys(URL, ()))
    assert json.loads(key_set(OLD))["keys"]
