"""The authorise hook in a cluster: what the core server is asked, and what comes of its answers, its lies and its absence."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from signald.core.authorising import FOREVER
from signald.core.callers import ALL
from signald.core.webhooks import secrets_of
from signald.node import Node
from signald.service.api.sessions import HttpSessions
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.service.core_server import URL, CoreServer, http, says
from tests.service.test_http_callers import SECRET, jwt

WEBHOOK_SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
PREVIOUS = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
SETTINGS = {"voice": "alto", "depth": [1, {"two": None}]}
Scene = Callable[[Cluster, CoreServer], Awaitable[None]]


def act(scene: Scene) -> None:
    """Play a scene with a core server that every node reaches."""

    async def main(cluster: Cluster) -> None:
        async with trio.open_nursery() as nursery:
            await scene(cluster, CoreServer(nursery, secrets_of(WEBHOOK_SECRET)))
            nursery.cancel_scope.cancel()

    play(main)


async def start(cluster: Cluster, core: CoreServer, name: str = "n1", **keys: object) -> Node:
    """Start a node that asks the core server; `keys` are of `[core]`."""
    section = {"authorize_url": URL, "secret": WEBHOOK_SECRET, **keys}
    node = await cluster.start(name, core=section, auth={"jwt_secret": SECRET})
    core.hear(node)
    return node


async def connect(cluster: Cluster, node: Node, subject: str = "ann", role: str = "client", **fields: Any) -> Json:
    """Let a party come in; returns the first frame that it gets."""
    _, first = await come(cluster, node, subject, role, **fields)
    return first


async def come(
    cluster: Cluster, node: Node, subject: str = "ann", role: str = "client", **fields: Any
) -> tuple[Peer, Json]:
    """Let a party come in; returns it with the first frame that it gets."""
    peer = await cluster.dial(node.hub.node, f"/v1/{role}", remote="203.0.113.7")
    opening = {"type": "connect"} if role == "client" else {"type": "app_ready", "instance_id": "w", "capacity": 10}
    await peer.send({**opening, "auth": jwt(node, subject, role), **fields})  # type: ignore[arg-type]
    return peer, await peer.receive()


def breaker_of(node: Node) -> str:
    """The state of a node's breaker."""
    return node.hub.authoriser.state


def test_what_is_asked() -> None:
    """Of a client and of a worker: who they are, what they want and offer, in a signed request on one kept connection."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        await connect(cluster, node, want={"lang": "en"}, meta={"name": "Alice"})
        await connect(cluster, node, "wes", "worker", labels={"gpu": "yes"})
        client, worker = core.asked
        claims = client.pop("claims")
        assert (claims["sub"], claims["role"]) == ("ann", "client")
        assert client == {
            "role": "client",
            "subject": "ann",
            "remote": "203.0.113.7",
            "want": {"lang": "en"},
            "meta": {"name": "Alice"},
        }
        assert worker.pop("claims")["sub"] == "wes"
        assert worker == {
            "role": "worker",
            "subject": "wes",
            "remote": "203.0.113.7",
            "want": {},
            "labels": {"gpu": "yes"},
        }
        assert len(set(core.ids)) == 2
        assert core.connections == 1

    act(scene)


def test_settings_reach_both_parties() -> None:
    """The client in its answer, the worker on another node in its assignment; a page that is loaded again is told again."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        first, second = await start(cluster, core), await start(cluster, core, "n2")
        core.answers["ann"] = says(allow=True, settings=SETTINGS, rooms={"lobby:*": ["join"]}, unknown=1)
        worker, _ = await come(cluster, second, "wes", "worker")
        client, started = await come(cluster, first)
        assigned = await worker.expect("session_assigned")
        assert started["settings"] == assigned["client"]["settings"] == SETTINGS
        assert assigned["client"]["subject"] == "ann"
        shown = await HttpSessions(second.hub.parts).read(started["session"], ALL)
        assert {name: json.loads(bytes(value)) for name, value in shown.settings.items()} == SETTINGS
        session = first.hub.sessions[started["session"]]
        assert json.loads(session.rooms) == {"lobby:*": ["join"]}
        client.cut()
        for received in (None, 0):
            fields = {} if received is None else {"received": received}
            client, restored = await cluster.restore(
                "n2", started["recovery_token"], auth=jwt(second, "ann", "client"), **fields
            )
            started = restored
            assert restored["type"] == "session_restored"
            assert restored["settings"] == SETTINGS
            client.cut()
        assert "settings" not in await connect(cluster, first, "bob")

    act(scene)


def test_settings_outlive_the_store() -> None:
    """A store that comes back empty is given them back: the next worker is told them."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answers["ann"] = says(allow=True, settings=SETTINGS, ttl_ms=1000)
        _, started = await come(cluster, node)
        cluster.world.lose_everything()
        await trio.sleep(5)
        worker, _ = await come(cluster, node, "wes", "worker")
        assigned = await worker.expect("session_assigned")
        assert assigned["session"] == started["session"]
        assert assigned["client"]["settings"] == SETTINGS

    act(scene)


def test_labels_are_merged() -> None:
    """The core server chooses the kind of worker for a client, and says what a worker is."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answers = {
            "ann": says(allow=True, want={"tier": "gold", "lang": "de"}),
            "wes": says(allow=True, labels={"tier": "gold"}),
        }
        _, started = await come(cluster, node, want={"tier": "iron", "voice": "yes"})
        plain, _ = await come(cluster, node, "bob", "worker", labels={"voice": "yes", "lang": "de"})
        gold, _ = await come(cluster, node, "wes", "worker", labels={"voice": "yes", "lang": "de", "tier": "iron"})
        assigned = await gold.expect("session_assigned")
        assert assigned["session"] == started["session"]
        assert node.hub.sessions[started["session"]].want == {"tier": "gold", "voice": "yes", "lang": "de"}
        with trio.move_on_after(1):
            raise AssertionError(await plain.receive())

    act(scene)


@pytest.mark.parametrize("role", ["client", "worker"])
@pytest.mark.parametrize("reason", ["the account is closed", None])
def test_a_no(role: str, reason: str | None) -> None:
    """The party is told why, and closed with 4403; nothing of it is in the store."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answer = says(allow=False, reason=reason, settings=1)
        peer, error = await come(cluster, node, role=role)
        assert (error["type"], error["code"], error["fatal"]) == ("error", "forbidden", True)
        assert error["message"] == (reason or "not allowed")
        assert await peer.closed() == 4403
        assert not node.hub.sessions
        assert not node.hub.worker_links
        assert node.hub.authoriser.outcomes["refused"] == 1
        assert breaker_of(node) == "closed"

    act(scene)


def test_granted_labels_outlive_a_resume_and_the_store() -> None:
    """A worker that resumes at another node, or whose store has lost all, has what the core server gave it, and is not asked for."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        first, second = await start(cluster, core), await start(cluster, core, "n2")
        core.answers["wes"] = says(allow=True, labels={"tier": "gold"})
        worker, accepted = await come(cluster, first, "wes", "worker", labels={"lang": "en"})
        worker.cut()
        core.answers["wes"] = says(allow=False)
        own = {"labels": {"lang": "de", "tier": "iron"}}
        worker, again = await cluster.resume("n2", accepted["recovery_token"], auth=jwt(second, "wes", "worker"), **own)
        assert again["type"] == "reconnection_ack"
        await trio.sleep(1)
        cluster.world.lose_everything()
        await trio.sleep(5)
        worker.cut()
        worker, again = await cluster.resume("n1", again["recovery_token"], auth=jwt(first, "wes", "worker"), **own)
        assert again["type"] == "reconnection_ack"
        _, started = await come(cluster, first, want={"lang": "de", "tier": "gold"})
        assert (await worker.expect("session_assigned"))["session"] == started["session"]
        assert len(core.asked) == 2

    act(scene)


LIES = (
    http(b""),
    http(b"yes"),
    http(b"[]"),
    http(b"{}"),
    http(b'{"allow":"true"}'),
    http(b'{"allow":1}'),
    http(b'{"allow":null}'),
    http(b'{"allow":true,"settings":1e999}'),
    http(b'{"allow":true,"settings":"\\ud83d"}'),
    http(b'{"allow":true,"settings":' + b"[" * 31 + b"]" * 31 + b"}"),
    http(b'{"allow":true,"settings":"' + b"x" * 32_767 + b'"}'),
    http(b'{"allow":true,"want":{"a":1}}'),
    http(b'{"allow":true,"want":["a"]}'),
    http(b'{"allow":true,"labels":{"' + b"x" * 65 + b'":""}}'),
    http(json.dumps({"allow": True, "want": {f"w{n}": "" for n in range(32)}}).encode()),
    http(b'{"allow":true,"rooms":{"a":"join"}}'),
    http(b'{"allow":true,"ttl_ms":-1}'),
    http(b'{"allow":true,"ttl_ms":1.5}'),
    http(b'{"allow":true,"ttl_ms":"60000"}'),
    http(b'{"allow":true}', "204 No Content"),
    http(b'{"allow":true}', "201 Created"),
    http(b'{"allow":false}', "403 Forbidden"),
    http(b'{"allow":true}', "302 Found", b"location: http://169.254.169.254/\r\n"),
    http(b'{"allow":true}', more=b"content-encoding: gzip\r\n"),
    http(b" " * 200_000 + b'{"allow":true}'),
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    b"SSH-2.0-OpenSSH\r\n",
)


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_a_lie_counts_as_away(lie: bytes, on_failure: str) -> None:
    """Another status, another body and no HTTP at all: the policy decides, and nothing of the answer counts."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core, on_failure=on_failure)
        core.answer = lie
        began = trio.current_time()
        peer, first = await come(cluster, node, want={"lang": "en"})
        assert trio.current_time() - began < 2.5
        outcomes = node.hub.authoriser.outcomes
        assert outcomes["failed"] + outcomes["wrong"] == 1
        if on_failure == "open":
            assert first["type"] == "session_started"
            assert "settings" not in first
            session = node.hub.sessions[first["session"]]
            assert session.want == {"lang": "en"}
            assert 0 < session.asked_until_ms <= node.hub.store.now_ms()
        else:
            assert (first["code"], first["fatal"]) == ("core_unavailable", True)
            assert first["retry_after_ms"] > 0
            assert await peer.closed() == 1013
            assert not node.hub.sessions

    act(scene)


@pytest.mark.parametrize("how", ["mute", "slow", "down"])
def test_a_core_server_that_is_away(how: str) -> None:
    """Parties wait no longer than the time-out; after a few failures they do not wait at all; one question finds it back."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.down, core.delay_s = how == "down", 3600.0 if how == "slow" else 0.0
        core.answer = None if how == "mute" else says(allow=True)
        for number in range(5):
            began = trio.current_time()
            assert (await connect(cluster, node, f"p{number}"))["code"] == "core_unavailable"
            assert trio.current_time() - began < 2.1
        assert breaker_of(node) == "open"
        tried = len(core.asked)
        for number in range(20):
            began = trio.current_time()
            assert (await connect(cluster, node, f"q{number}"))["code"] == "core_unavailable"
            assert trio.current_time() - began < 0.1
        assert len(core.asked) == tried
        core.down, core.delay_s, core.answer = False, 0.0, says(allow=True)
        await trio.sleep(5.0)
        assert breaker_of(node) == "trying"
        assert (await connect(cluster, node, "back"))["type"] == "session_started"
        assert breaker_of(node) == "closed"
        assert node.hub.authoriser.turned_away == 25

    act(scene)


def test_a_trial_that_fails() -> None:
    """Of many parties that come while the core server may be back, one tries, and the others do not wait for it."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core, on_failure="open")
        core.answer = None
        for number in range(5):
            await connect(cluster, node, f"p{number}")
        asked = len(core.asked)
        await trio.sleep(5.0)
        took: list[float] = []

        async def arrive(subject: str) -> None:
            began = trio.current_time()
            assert (await connect(cluster, node, subject))["type"] == "session_started"
            took.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(arrive, f"q{number}")
        assert len(core.asked) == asked + 1
        assert sorted(took)[-2] < 0.1
        assert node.hub.authoriser.let_in == 35

    act(scene)


def test_answers_are_remembered() -> None:
    """For `ttl_ms`, yes and no alike, for the same question only; without `ttl_ms` each party is asked for."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answers = {
            "ann": says(allow=True, settings=1, ttl_ms=10_000),
            "eve": says(allow=False, reason="no", ttl_ms=10_000),
            "bob": says(allow=True),
        }
        same = {subject: jwt(node, subject, "client", ttl_s=600) for subject in core.answers}

        async def again(subject: str, **fields: Any) -> Json:
            return await connect(cluster, node, subject, **{"auth": same[subject], **fields})

        for _ in range(3):
            assert (await again("ann"))["settings"] == 1
            assert (await again("eve"))["message"] == "no"
            await again("bob")
        asked = [request["subject"] for request in core.asked]
        assert (asked.count("ann"), asked.count("eve"), asked.count("bob")) == (1, 1, 3)
        assert node.hub.authoriser.outcomes["cached"] == 4
        await again("ann", want={"lang": "de"})
        await again("ann", meta=1)
        assert len(core.asked) == 7
        core.answers["ann"] = says(allow=True, settings=2, ttl_ms=0)
        assert (await again("ann"))["settings"] == 1
        await trio.sleep(10.1)
        assert (await again("ann"))["settings"] == 2
        assert (await again("ann"))["settings"] == 2
        assert len(core.asked) == 9

    act(scene)


def test_few_questions_are_in_flight() -> None:
    """A crowd of parties makes no more requests at once than the operator allows, and each is let in within its time."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core, authorize_in_flight_max=4)
        core.delay_s = 0.05
        firsts: list[str] = []

        async def arrive(subject: str) -> None:
            firsts.append((await connect(cluster, node, subject))["type"])

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(arrive, f"p{number}")
        assert firsts == ["session_started"] * 60
        assert core.most == 4
        assert core.connections == 4

    act(scene)


def test_a_resume_never_waits() -> None:
    """Client and worker resume at once while the core server is mute, after the answer has run out as well."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        first, second = await start(cluster, core), await start(cluster, core, "n2")
        core.answer = says(allow=True, settings=1, ttl_ms=1000)
        worker, accepted = await come(cluster, first, "wes", "worker")
        _, started = await come(cluster, first)
        await worker.expect("session_assigned")
        await worker.send({"type": "session_accept", "session": started["session"]})
        await trio.sleep(2)
        asked = len(core.asked)
        core.answer = None
        began = trio.current_time()
        _, restored = await cluster.restore("n2", started["recovery_token"], auth=jwt(second, "ann", "client"))
        _, again = await cluster.resume("n2", accepted["recovery_token"], auth=jwt(second, "wes", "worker"))
        assert (restored["type"], again["type"]) == ("session_restored", "reconnection_ack")
        assert trio.current_time() - began < 0.5
        await trio.sleep(60)
        assert second.hub.sessions[started["session"]].client.is_here
        assert len(core.asked) > asked

    act(scene)


@pytest.mark.parametrize("until", ["kept", "run out", "forever"])
def test_it_is_asked_again_after_a_resume(until: str) -> None:
    """Only when the answer has run out: with the session's name, and the next worker is told what came of it."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answer = says(allow=True, settings=1, **({} if until == "forever" else {"ttl_ms": 10_000}))
        client, started = await come(cluster, node)
        client.cut()
        core.answer = says(allow=True, settings=2, rooms={"a": []}, ttl_ms=20_000)
        await trio.sleep(11 if until == "run out" else 1)
        _, restored = await cluster.restore("n1", started["recovery_token"], auth=jwt(node, "ann", "client"))
        assert restored["settings"] == 1
        await trio.sleep(1)
        assert [request.get("session") for request in core.asked] == [
            None,
            *([started["session"]] if until == "run out" else []),
        ]
        session = node.hub.sessions[started["session"]]
        if until == "forever":
            assert session.asked_until_ms == FOREVER
        core.answer = says(allow=True)
        worker, _ = await come(cluster, node, "wes", "worker")
        assigned = await worker.expect("session_assigned")
        assert assigned["client"]["settings"] == (2 if until == "run out" else 1)

    act(scene)


def test_a_later_no_ends_the_session() -> None:
    """The client is closed with 4403 and told why, the worker that its session has ended, and nothing can be resumed."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.answer = says(allow=True, ttl_ms=1000)
        worker, _ = await come(cluster, node, "wes", "worker")
        client, started = await come(cluster, node)
        await worker.expect("session_assigned")
        await worker.send({"type": "session_accept", "session": started["session"]})
        await trio.sleep(2)
        client.cut()
        core.answer = says(allow=False, reason="no more credit")
        client, restored = await cluster.restore("n1", started["recovery_token"], auth=jwt(node, "ann", "client"))
        assert restored["type"] == "session_restored"
        error = await client.expect("error")
        assert (error["code"], error["message"], error["fatal"]) == ("forbidden", "no more credit", True)
        assert await client.closed() == 4403
        ended = await worker.expect("session_ended")
        assert (ended["session"], ended["reason"]) == (started["session"], "forbidden")
        _, refused = await cluster.restore("n1", restored["recovery_token"], auth=jwt(node, "ann", "client"))
        assert refused["code"] == "nothing_to_resume"
        assert node.hub.counts.ended["forbidden"] == 1

    act(scene)


def test_one_let_in_without_an_answer_is_asked_for_after_its_resume() -> None:
    """While it is away nothing is taken back; when it is there again a no counts."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core, on_failure="open")
        core.down = True
        client, started = await come(cluster, node)
        client.cut()
        await trio.sleep(1)
        client, restored = await cluster.restore("n1", started["recovery_token"], auth=jwt(node, "ann", "client"))
        assert restored["type"] == "session_restored"
        await trio.sleep(60)
        assert node.hub.sessions[started["session"]].client.is_here
        core.down, core.answer = False, says(allow=False, reason="who is this?")
        error = await client.expect("error")
        assert error["message"] == "who is this?"
        assert await client.closed() == 4403

    act(scene)


def test_a_drain_that_begins_meanwhile() -> None:
    """A party that waits for the core server when a drain begins is refused: let in, it would be sent on at once."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        first = await start(cluster, core)
        await start(cluster, core, "n2")
        core.delay_s = 1.0
        peer = await cluster.dial("n1", "/v1/client")
        await peer.send({"type": "connect", "auth": jwt(first, "ann", "client")})
        await trio.sleep(0.5)
        first.shutdown.begin("deploy")
        error = await peer.receive()
        assert (error["code"], error["fatal"]) == ("busy", True)
        assert await peer.closed() == 1013
        assert not first.hub.sessions

    act(scene)


def test_a_session_begun_over_http_is_not_asked_for() -> None:
    """The backend that begins it has decided; without a URL no party is asked for at all."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core, authorize_url="")
        core.answer = says(allow=False)
        assert (await connect(cluster, node))["type"] == "session_started"
        assert core.asked == []

    act(scene)


def test_a_reload_begins_anew() -> None:
    """Another section: what was remembered is forgotten, and the breaker is closed; both secrets sign while they rotate."""

    async def scene(cluster: Cluster, core: CoreServer) -> None:
        node = await start(cluster, core)
        core.down = True
        for number in range(5):
            await connect(cluster, node, f"p{number}")
        assert breaker_of(node) == "open"
        core.down = False
        config = node.hub.config
        changed = attrs.evolve(config.core, secret=PREVIOUS, secret_previous=WEBHOOK_SECRET)
        node.hub.renew(attrs.evolve(config, core=changed), node.hub.auth)
        assert breaker_of(node) == "closed"
        assert (await connect(cluster, node))["type"] == "session_started"
        core.answer = http(b"", "500 No")
        for number in range(5):
            await connect(cluster, node, f"q{number}")
        assert breaker_of(node) == "open"
        node.hub.renew(attrs.evolve(config, core=attrs.evolve(changed, authorize_url="")), node.hub.auth)
        assert breaker_of(node) == "closed"

    act(scene)
