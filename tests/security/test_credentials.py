"""Admission and identity: bearer tokens, tenants, and the pages a browser may come from, as the whole service judges them."""

from typing import Any

import jwt
import pytest
import trio

from signald.testing.cluster import Cluster, play
from signald.testing.websocket import request
from tests.conformance.service import SUBPROTOCOL, Stage, in_memory
from tests.service.test_opening import AUTH, SECRET, token_for

NOW = 1_700_000_000
"""When the clock of a cluster starts."""


def token(**claims: Any) -> str:
    """Return a bearer token of ann's that is good for an hour, changed by `claims`."""
    return jwt.encode({"sub": "ann", "role": "client", "exp": NOW + 3600, **claims}, SECRET, algorithm="HS256")


def test_an_expired_token_opens_nothing() -> None:
    """A bearer token past its `exp` and the leeway is no credential, neither for a new session nor for an old one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH, session={"resume_ttl_s": 600.0})
        brief = token(exp=NOW + 60)
        client, started = await cluster.client("n1", auth=brief)
        await trio.sleep(66)
        assert (await client.ask({"type": "ping"}, "pong")) == {"type": "pong"}
        client.cut()
        for peer, answer in [await cluster.restore("n1", started["recovery_token"], auth=brief)]:
            assert (answer["code"], await peer.closed()) == ("unauthenticated", 4401)
        peer = await cluster.dial("n1", "/v1/client")
        await peer.send({"type": "connect", "auth": brief})
        assert await peer.refused() == ("unauthenticated", 4401)
        _, restored = await cluster.restore("n1", started["recovery_token"], auth=token())
        assert restored["type"] == "session_restored"

    play(scene)


def test_an_expired_recovery_token_resumes_nothing() -> None:
    """A session whose client stayed away for `session.resume_ttl_s` is over, and its token says no more than one made up."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 10.0})
        client, started = await cluster.client("n1")
        client.cut()
        await trio.sleep(60)
        late, of_late = await cluster.restore("n1", started["recovery_token"])
        made_up, of_made_up = await cluster.restore("n1", "s_none." + "A" * 43)
        assert of_late == of_made_up
        assert (await late.closed(), await made_up.closed()) == (4404, 4404)
        assert late.close_reason == made_up.close_reason == "nothing_to_resume"

    play(scene)


@pytest.mark.parametrize(
    ("other", "word", "code"),
    [
        ({"tenant": "evil"}, "forbidden", 4403),
        ({}, "forbidden", 4403),
        ({"tenant": ""}, "forbidden", 4403),
        ({"sub": "acme\x1fann"}, "unauthenticated", 4401),
        ({"tenant": "acme\x1fann"}, "unauthenticated", 4401),
    ],
    ids=["another", "none", "empty", "in the subject", "both in the tenant"],
)
def test_the_same_name_in_another_tenant_is_somebody_else(other: dict[str, str], word: str, code: int) -> None:
    """A recovery token is bound to subject and tenant together; no spelling of one can stand for both."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", auth=token(tenant="acme"))
        thief, answer = await cluster.restore("n1", started["recovery_token"], auth=token(**other))
        assert (answer["code"], await thief.closed()) == (word, code)
        _, restored = await cluster.restore("n1", started["recovery_token"], auth=token(tenant="acme"))
        assert restored["type"] == "session_restored"

    play(scene)


def test_a_recovery_token_is_no_bearer_token_and_the_other_way_round() -> None:
    """Each opens what it is for: resuming takes both, of the same subject."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", auth=token())
        recovery = started["recovery_token"]
        for opening, code in (
            ({"type": "connect", "auth": recovery}, 4401),
            ({"type": "restore_session", "recovery_token": token(), "auth": token()}, 4404),
            ({"type": "restore_session", "recovery_token": recovery}, 4401),
            ({"type": "restore_session", "recovery_token": recovery, "auth": recovery}, 4401),
        ):
            peer = await cluster.dial("n1", "/v1/client")
            await peer.send({"received": 0, **opening} if "recovery_token" in opening else opening)
            assert await peer.closed() == code

    play(scene)


@pytest.mark.parametrize(
    "changed",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token + "=",
        lambda token: token[:-1] + ("B" if token[-1] != "B" else "A"),
        lambda token: token.replace(".", ".."),
        lambda token: token + "\x00",
        lambda token: token.upper(),
        lambda token: " " + token,
        lambda token: token.partition(".")[0] + ".",
        lambda token: token.partition(".")[2],
    ],
    ids=["cut", "longer", "padded", "last letter", "two dots", "nul", "upper case", "blank", "no secret", "no name"],
)
def test_a_recovery_token_that_is_not_exactly_it_resumes_nothing(changed: Any) -> None:
    """Cut, extended or spelt otherwise, a token belongs to no session: it neither resumes nor costs the owner anything."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        _, started = await cluster.client("n1", auth=token())
        thief, answer = await cluster.restore("n1", changed(started["recovery_token"]), auth=token())
        assert (answer["code"], await thief.closed()) == ("nothing_to_resume", 4404)
        assert node.hub.counters.token_reuse == 0
        _, restored = await cluster.restore("n1", started["recovery_token"], auth=token())
        assert restored["type"] == "session_restored"

    play(scene)


ORIGIN = "https://app.example.com"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, b"101"),
        (ORIGIN, b"101"),
        ("null", b"403"),
        ("", b"403"),
        ("https://evil.example", b"403"),
        ("https://app.example.com.evil.io", b"403"),
        ("https://evil.io/https://app.example.com", b"403"),
        ("https://sub.app.example.com", b"403"),
        ("https://APP.example.com", b"403"),
        ("https://app.example.com:8443", b"403"),
        ("https://app.example.com/", b"403"),
        ("http://app.example.com", b"403"),
        ("https://app.example.com, https://evil.example", b"403"),
    ],
)
def test_only_pages_on_the_list_may_connect(origin: str | None, status: bytes) -> None:
    """`listen.allowed_origins` is matched letter for letter; without an Origin a client is no browser, and has to show a credential."""

    async def scene(stage: Stage) -> None:
        await stage.start(listen={"allowed_origins": (ORIGIN,)})
        party = await stage.dial()
        await party.send(
            request("/v1/client", SUBPROTOCOL, *([(b"Origin", origin.encode())] if origin is not None else []))
        )
        assert (await party.response()).split()[1] == status
        if status == b"101":
            await party.say({"type": "connect"})
            assert (await party.closed_with())[0] == 4401
        else:
            await party.hung_up_after()
        await trio.aclose_forcefully(party.stream)

    in_memory(scene)


def test_a_token_shown_in_a_url_is_refused_before_anything_else() -> None:
    """400, whichever session it belongs to; neither the answer nor the log repeats it, and the session does not hear of it."""

    async def scene(stage: Stage) -> None:
        await stage.start()
        client, started = await stage.client()
        for name in ("token", "access_token", "recovery_token", "auth", "jwt"):
            party = await stage.dial()
            await party.send(request(f"/v1/client?{name}={started['recovery_token']}", SUBPROTOCOL))
            assert (await party.response()).split()[1] == b"400"
            await party.hung_up_after()
            assert started["recovery_token"].encode() not in party.received
        await client.say({"type": "ping"})
        await client.hear("pong")
        again = await stage.restore(started["recovery_token"])
        await again.hear("session_restored")

    in_memory(scene)


def test_the_credential_of_the_handshake_is_judged_like_that_of_the_message() -> None:
    """`Authorization` and the bearer subprotocol open what `auth` in the opening message opens, and no more."""

    async def scene(stage: Stage) -> None:
        await stage.start()
        for bearer, kind in ((token_for("ann", "client"), "session_started"), (token_for("ann", "worker"), "error")):
            party = await stage.dial()
            await party.open(SUBPROTOCOL, (b"Authorization", b"Bearer " + bearer.encode()))
            await party.say({"type": "connect"})
            await party.hear(kind)

    in_memory(scene)
