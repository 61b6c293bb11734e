"""What a party may do in a room: by its credential, by the core server, by the configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest
import trio

from signald.config import AuthConfig, Config, RoomsConfig
from signald.core.api_tokens import Statement
from signald.core.callers import Caller
from signald.core.head import Party
from signald.core.wants import SEPARATOR
from signald.service.api.callers import HttpCallers
from signald.service.rooms.rights import Rights, rights_of, rights_of_caller
from signald.testing.cluster import Cluster, play
from tests.service.core_server import says
from tests.service.test_authorising import act, come, start
from tests.service.test_credentials import AUTH, token
from tests.service.test_http_callers import jwt
from tests.service.test_opening import SECRET

ALL = {"join", "publish", "state"}
WITH_AUTH = Config(auth=AuthConfig(jwt_secret=SECRET))
OPEN = Config()

Patterns = Mapping[str, Sequence[str]]


def person(rooms: Patterns | None, subject: str = "ann") -> Caller:
    """A user with a claim."""
    return Caller("person", subject, subject, rooms=rooms)


@pytest.mark.parametrize(
    ("rooms", "room", "may"),
    [
        ({"canvas:*": ["join", "publish"]}, "canvas:42", {"join", "publish"}),
        ({"canvas:*": ["join", "publish"]}, "canvas:", {"join", "publish"}),
        ({"canvas:*": ["join", "publish"]}, "canvas", set()),
        ({"canvas:*": ["join"], "*": ["state"]}, "canvas:42", {"join", "state"}),
        ({"canvas:42": ["join"]}, "canvas:421", set()),
        ({"can*as:42": ["join"]}, "canvas:42", set()),
        ({"*": ["join", "own", "publish"]}, "lobby", {"join", "publish"}),
        ({}, "lobby", set()),
    ],
)
def test_patterns(rooms: Patterns, room: str, may: set[str]) -> None:
    assert rights_of_caller(WITH_AUTH, person(rooms), b"").of(room) == may


def test_who_gives_them() -> None:
    """Without auth all are given; else the core server's word, the claim, the default, in this order."""
    some = attrs.evolve(WITH_AUTH, rooms=RoomsConfig(default_rights=("join",)))
    assert rights_of_caller(OPEN, person(None), b"").of("lobby") == ALL
    assert rights_of_caller(WITH_AUTH, person(None), b"").of("lobby") == set()
    assert rights_of_caller(some, person(None), b"").of("lobby") == {"join"}
    assert rights_of_caller(some, person({}), b"").of("lobby") == set(), "an empty claim is one"
    answered = b'{"lobby":["publish"]}'
    for config in (OPEN, WITH_AUTH, some):
        rights = rights_of_caller(config, person({"*": ["state"]}), answered)
        assert rights.of("lobby") == {"publish"}
        assert rights.of("hall") == set()
    for broken in (b"{", b"[]", b'{"*":"join"}', b'{"*":[1]}', b"null", b"[" * 100_000):
        assert rights_of_caller(OPEN, person(None), broken).of("lobby") == set(), "a mistake gives no right"


def test_the_room_of_a_user() -> None:
    """Its own sessions may be there and never publish, whatever a claim says. A worker may not even be there."""
    for config in (OPEN, WITH_AUTH):
        rights = rights_of_caller(config, person({"*": sorted(ALL)}), b'{"user:*":["join","publish","state"]}')
        assert rights.of("user:ann") == {"join"}
        assert rights.of("user:bob") == set()
        worker = Caller("worker", "ann", "ann", worker="w_1", rooms={"*": sorted(ALL)})
        assert rights_of_caller(config, worker, b"").of("user:ann") == set()
    anonymous = rights_of_caller(OPEN, Caller("client", "", "", session="s_1"), b"")
    assert anonymous.of("user:") == anonymous.of("user:ann") == set()
    tenant = Caller("person", f"acme{SEPARATOR}ann", "ann", "acme", rooms={})
    assert rights_of_caller(WITH_AUTH, tenant, b"").of("user:ann") == {"join"}
    assert Rights({"*": ("join",)}).of("user:") == set()


async def rights_at(cluster: Cluster, session: str, party: Party = "client") -> Rights:
    """The rights of a party that is attached to n1."""
    hub = cluster.nodes["n1"].hub
    return rights_of(hub.context.config, hub.sessions[session], party)


def test_a_credential_is_renewed() -> None:
    """What a party has shown last counts, and so it does over HTTP with its next API token."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        claim: dict[str, Any] = {"rooms": {"lobby": ["join"]}}
        peer, started = await cluster.client("n1", auth=token(500, **claim), api=True)
        worker, _ = await cluster.worker("n1", auth=token(500, "worker", rooms={"*": ["join", "state"]}))
        await worker.accept()
        session = started["session"]
        assert (await rights_at(cluster, session)).of("lobby") == {"join"}
        assert (await rights_at(cluster, session, "worker")).of("lobby") == {"join", "state"}
        callers = HttpCallers(node.hub.parts)
        caller = await callers.verify(started["api_token"], cookie=False)
        assert rights_of_caller(node.hub.context.config, caller, b"").of("lobby") == {"join"}
        await peer.send({"type": "auth", "auth": token(900, rooms={})})
        await trio.sleep(1)
        assert (await rights_at(cluster, session)).of("lobby") == set()
        renewed = await peer.expect("api_token")
        caller = await callers.verify(renewed["api_token"], cookie=False)
        assert caller.rooms == {}
        by_jwt = await callers.verify(token(900, rooms={"lobby": ["publish"]}), cookie=False)
        assert rights_of_caller(node.hub.context.config, by_jwt, b"").of("lobby") == {"publish"}

    play(scene)


@pytest.mark.parametrize("end", ["resumes", "resumes after a loss"])
def test_the_core_server_says_what_a_worker_may(end: str) -> None:
    """In place of its claim, for as long as it is registered: at another node, to a store that has lost it, and over HTTP."""

    async def scene(cluster: Cluster, core: Any) -> None:
        nodes = [await start(cluster, core, name) for name in ("n1", "n2")]
        core.answers["wes"] = says(allow=True, rooms={"lobby": ["join"]})
        worker, accepted = await come(cluster, nodes[0], "wes", "worker", api=True)
        await come(cluster, nodes[0])
        session = (await worker.accept())["session"]
        assert (await rights_at(cluster, session, "worker")).of("lobby") == {"join"}
        if end == "resumes after a loss":
            cluster.world.lose_everything()
            await trio.sleep(5)
        worker.cut()
        had = {"session": session, "received": 0, "acked": 0}
        claim: Any = {"auth": jwt(nodes[1], "wes", "worker", rooms={"*": ["join"]}), "api": True}
        worker, again = await cluster.resume("n2", accepted["recovery_token"], had, **claim)
        hub = nodes[1].hub
        rights = rights_of(hub.context.config, hub.sessions[session], "worker")
        assert rights.of("lobby") == {"join"}
        assert rights.of("hall") == set()
        caller = await HttpCallers(hub.parts).verify(again["api_token"], cookie=False)
        assert rights_of_caller(OPEN, caller, b"").of("lobby") == {"join"}
        assert rights_of_caller(OPEN, caller, b"").of("hall") == set()

    act(scene)


def test_an_api_token_without_a_claim_says_none() -> None:
    assert Statement("client", "s_1", "ann").caller.rooms is None
    assert Statement("client", "s_1", "ann", rooms={}).caller.rooms == {}


def test_the_core_server_replaces_the_claim() -> None:
    async def scene(cluster: Cluster, core: Any) -> None:
        node = await start(cluster, core)
        core.answers["ann"] = says(allow=True, rooms={"lobby": ["join"]})
        _, started = await come(cluster, node)
        assert (await rights_at(cluster, started["session"])).of("lobby") == {"join"}
        _, started = await come(cluster, node, "bob")
        assert (await rights_at(cluster, started["session"])).of("lobby") == set(), (
            "it says nothing, and there is no claim"
        )

    act(scene)
