"""Revoked subjects: their tokens are void on all nodes within two seconds, and the connections that were opened with one end."""

from typing import Any

import jwt
import pytest
import trio

from signald.errors import OperationRefused
from signald.service.auth import Unauthenticated
from signald.service.cluster import revocations
from signald.service.revoked import Revocations
from signald.store.memory import MemoryStore
from signald.store.registry.ops import ListRevoked, Revocation, Revoke
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.test_opening import SECRET
from tests.service.test_reload import reload

NOW = 1_700_000_000
AUTH: dict[str, object] = {"jwt_secret": SECRET}
IN_TIME_S = 2.0


def token(cluster: Cluster, subject: str = "ann", role: str = "client", **claims: Any) -> str:
    """Return a token that is issued now, changed by `claims`; None leaves one out."""
    now = cluster.world.now_ms() / 1000
    said = {"sub": subject, "role": role, "exp": NOW + 100_000, "iat": now, **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, SECRET, algorithm="HS256")


async def is_open(peer: Peer) -> bool:
    return await peer.ask({"type": "ping"}, "pong") == {"type": "pong"}


async def ended(peer: Peer) -> None:
    """The connection is told of the revocation and closed with 4401."""
    said = await peer.expect("error")
    assert (said["code"], said["fatal"]) == ("auth_revoked", True)
    assert await peer.closed() == 4401


async def revoke(cluster: Cluster, node: str, subject: str, tenant: str | None = None) -> Any:
    return await cluster.nodes[node].operations.revoke(subject, tenant)


def test_connections_on_all_nodes_end() -> None:
    """A client and a worker of the subject, at the node that is asked and at another; no party of another subject or tenant."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        node = await cluster.start("n2", auth=AUTH)
        here, _ = await cluster.client("n1", auth=token(cluster))
        there, _ = await cluster.client("n2", auth=token(cluster))
        worker, _ = await cluster.worker("n2", auth=token(cluster, role="worker"))
        others = [
            (await cluster.client("n1", auth=token(cluster, "bob")))[0],
            (await cluster.client("n2", auth=token(cluster, tenant="acme")))[0],
        ]
        await trio.sleep(1)
        answer = await revoke(cluster, "n1", "ann")
        assert answer == {"subject": "ann", "tenant": None, "revoked_at_ms": cluster.world.now_ms()}
        with trio.fail_after(IN_TIME_S):
            for peer in (here, there, worker):
                await ended(peer)
        for peer in others:
            assert await is_open(peer)
        assert node.hub.credentials.ended["revoked"] == 2

    play(scene)


def test_an_old_token_opens_and_resumes_nothing() -> None:
    """Neither does one without iat; a token that is issued later resumes the session, which is kept."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        await cluster.start("n2", auth=AUTH)
        old, silent = token(cluster), token(cluster, iat=None)
        peer, started = await cluster.client("n1", auth=old)
        await trio.sleep(1)
        await revoke(cluster, "n2", "ann")
        await ended(peer)
        for bearer in (old, silent):
            for at in ("n1", "n2"):
                refused, answer = await cluster.restore(at, started["recovery_token"], auth=bearer)
                assert (answer["code"], await refused.closed()) == ("unauthenticated", 4401)
                peer = await cluster.dial(at, "/v1/client")
                await peer.send({"type": "connect", "auth": bearer})
                assert await peer.refused() == ("unauthenticated", 4401)
        await trio.sleep(1)
        _, answer = await cluster.restore("n2", started["recovery_token"], auth=token(cluster))
        assert (answer["type"], answer["session"]) == ("session_restored", started["session"])

    play(scene)


def test_a_connection_with_a_newer_token_stays() -> None:
    """A token that was renewed after the moment holds, and an older one is refused by `auth`."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        old = token(cluster)
        peer, _ = await cluster.client("n1", auth=old)
        await trio.sleep(10)
        await peer.send({"type": "auth", "auth": token(cluster, iat=NOW + 60)})
        await peer.send({"type": "ping"})
        await peer.expect("pong")
        await revoke(cluster, "n1", "ann")
        assert await is_open(peer)
        await peer.send({"type": "auth", "auth": old})
        assert (await peer.expect("error"))["code"] == "auth_refused"
        assert await is_open(peer)

    play(scene)


def test_a_tenant_is_part_of_the_name() -> None:
    """The same subject of a tenant is another one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        plain, _ = await cluster.client("n1", auth=token(cluster))
        tenant, _ = await cluster.client("n1", auth=token(cluster, tenant="acme"))
        await trio.sleep(1)
        await revoke(cluster, "n1", "ann", "acme")
        await ended(tenant)
        assert await is_open(plain)

    play(scene)


def test_a_wake_up_that_is_lost_costs_no_more_than_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that ignores the wake-up, as one of an earlier release does, or misses it, looks by itself."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        node = await cluster.start("n2", auth=AUTH)
        peer, _ = await cluster.client("n2", auth=token(cluster))
        await trio.sleep(5)
        monkeypatch.setattr(node.wakes, "take", lambda _: None)
        await revoke(cluster, "n1", "ann")
        with trio.fail_after(IN_TIME_S):
            await ended(peer)

    play(scene)


def test_a_node_that_starts_knows_it() -> None:
    """Before the first party is let in."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        old = token(cluster)
        await trio.sleep(1)
        for number in range(3):
            await revoke(cluster, "n1", f"someone {number}")
        await revoke(cluster, "n1", "ann")
        monkey = revocations.PAGE
        revocations.PAGE = 2
        try:
            node = await cluster.start("n2", auth=AUTH)
        finally:
            revocations.PAGE = monkey
        assert len(node.hub.context.revocations) == 4
        with pytest.raises(Unauthenticated):
            node.hub.auth.authenticate(old, "client", NOW + 5)
        reload(node, auth={"leeway_s": 1.0})
        with pytest.raises(Unauthenticated):
            node.hub.auth.authenticate(old, "client", NOW + 5)

    play(scene)


def test_a_store_that_has_lost_it_is_given_it_back() -> None:
    """Nodes that know a revocation fill an empty store, so that a node that starts later knows it too."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        old = token(cluster)
        await trio.sleep(1)
        await revoke(cluster, "n1", "ann")
        await trio.sleep(3)
        cluster.world.lose_everything()
        await trio.sleep(5)
        node = await cluster.start("n2", auth=AUTH)
        with pytest.raises(Unauthenticated):
            node.hub.auth.authenticate(old, "client", NOW + 20)

    play(scene)


def test_it_is_forgotten_when_all_tokens_have_run_out() -> None:
    """After `revoked_keep_s`, by the store and by each node."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH | {"revoked_keep_s": 60.0})
        await revoke(cluster, "n1", "ann")
        await trio.sleep(50)
        assert len(node.hub.context.revocations) == 1
        await trio.sleep(15)
        assert len(node.hub.context.revocations) == 0
        await revoke(cluster, "n1", "bob")
        [page] = await node.hub.store.execute([ListRevoked(0, 9, cluster.world.now_ms())])
        assert [one.principal for one in page.revocations] == ["bob"]  # type: ignore[attr-defined]

    play(scene)


def test_a_party_that_is_being_let_in_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revocation that comes while the store is asked for the claim: no connection of the subject is left behind it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        execute = MemoryStore.execute
        bearer = token(cluster)

        async def slow(store: MemoryStore, ops: Any) -> Any:
            answer = await execute(store, ops)
            if not any(isinstance(op, (Revoke, ListRevoked)) for op in ops):
                await trio.sleep(0.2)
            return answer

        await trio.sleep(1)
        monkeypatch.setattr(MemoryStore, "execute", slow)
        for path, opening in (
            ("/v1/client", {"type": "connect", "auth": bearer}),
            ("/v1/worker", {"type": "app_ready", "instance_id": "i", "auth": token(cluster, "wes", "worker")}),
        ):
            peer = await cluster.dial("n1", path)
            await peer.send(opening)
            await trio.sleep(0.05)
            name = "ann" if path == "/v1/client" else "wes"
            node.hub.context.revocations.adopt(Revocation(name, 1, cluster.world.now_ms() + 10, 2**53))
            node.hub.credentials.revoke(name)
            assert await peer.refused() == ("unauthenticated", 4401)
        assert not node.hub.links

    play(scene)


@pytest.mark.parametrize(
    ("auth", "subject", "tenant", "because"),
    [
        (AUTH, "", None, "invalid"),
        (AUTH, "a\x1fb", None, "invalid"),
        (AUTH, "ann", "a\x1fb", "invalid"),
        (AUTH, "x" * 1025, None, "invalid"),
        ({}, "ann", None, "state"),
    ],
)
def test_what_cannot_be_revoked(auth: dict[str, object], subject: str, tenant: str | None, because: str) -> None:
    """Names that no token can have, and nodes that ask for no tokens."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=auth)
        with pytest.raises(OperationRefused) as caught:
            await revoke(cluster, "n1", subject, tenant)
        assert caught.value.because == because

    play(scene)


def test_a_full_store_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator hears that the subject is not revoked."""
    monkeypatch.setattr("signald.service.cluster.revocations.REVOKED_MAX", 2)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        await revoke(cluster, "n1", "ann")
        await revoke(cluster, "n1", "bob")
        with pytest.raises(OperationRefused, match="revoked already"):
            await revoke(cluster, "n1", "eve")
        await trio.sleep(1)
        await revoke(cluster, "n1", "ann")

    play(scene)


def test_a_cluster_without_tokens_does_not_ask_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be revoked there, so looking costs nothing; a reload that adds a key begins to look."""
    asked: list[object] = []
    execute = MemoryStore.execute

    async def watched(store: MemoryStore, ops: Any) -> Any:
        asked.extend(op for op in ops if isinstance(op, ListRevoked))
        return await execute(store, ops)

    monkeypatch.setattr(MemoryStore, "execute", watched)

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await trio.sleep(30)
        assert asked == []
        reload(node, auth=AUTH)
        await trio.sleep(30)
        assert 25 < len(asked) < 50

    play(scene)


def test_the_later_moment_holds() -> None:
    """Whatever order they come in; and an iat is compared in seconds, which is never to the advantage of a token."""
    known = Revocations()
    assert known.adopt(Revocation("ann", 1, 5_500, 9_000))
    assert not known.adopt(Revocation("ann", 2, 4_000, 9_000))
    assert [known.refuses("ann", issued_at) for issued_at in (None, 4, 5, 5.499, 5.5, 6)] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    assert not known.refuses("bob", None)
    assert known.adopt(Revocation("ann", 3, 6_000, 9_000))
    known.expire(9_000)
    assert not known.refuses("ann", None)
