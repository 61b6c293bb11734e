"""API tokens on the wire: given to the parties that ask, followed by the next in time, verified by every node, and their keys rotated."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

from signald.config import AuthConfig
from signald.core.api_keys import READ_EVERY_S
from signald.core.api_tokens import Statement, kid_in
from signald.errors import StoreUnavailable
from signald.ids import SeededEntropy
from signald.node import Node
from signald.sdk.trio import WorkerSession, open_client, open_worker
from signald.service.api_tokens import LEARN_EVERY_S
from signald.service.auth import Role, mint
from signald.store.base import Op, Result
from signald.store.registry.ops import Keys, ReadApiKeys
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, open_cluster, play
from signald.testing.wire import Json, Peer
from tests.core.test_api_tokens import mint as mint_elsewhere
from tests.service.test_reload import reload

SECRET = "correct horse battery staple, " * 3
TTL_S = 60.0


def play_long(scene: Callable[[Cluster], Awaitable[None]]) -> None:
    """As `play`, for hours of virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with open_cluster() as cluster:
                await scene(cluster)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def said(node: Node, answer: Json) -> Statement | None:
    """Verify at `node` the token of an answer."""
    return await node.hub.api_tokens.read(answer["api_token"])


def test_all_four_answers_carry_a_token() -> None:
    """Each opening with `api` is answered with a token that every node verifies, and a life of the configured length."""

    async def scene(cluster: Cluster) -> None:
        auth: dict[str, object] = {"jwt_secret": SECRET, "api_token_ttl_s": TTL_S}
        one, two = [await cluster.start(name, auth=auth) for name in ("n1", "n2")]

        def credential(subject: str, role: Role) -> str:
            now = one.hub.store.now_ms() / 1000
            return mint(AuthConfig(jwt_secret=SECRET), subject=subject, role=role, ttl_s=60, now=now, tenant="acme")

        ann, wes = credential("ann", "client"), credential("wes", "worker")
        _, started = await cluster.client("n1", auth=ann, api=True)
        _, restored = await cluster.restore("n2", started["recovery_token"], auth=ann, api=True)
        _, accepted = await cluster.worker("n1", auth=wes, api=True)
        _, resumed = await cluster.resume("n2", accepted["recovery_token"], auth=wes, api=True)
        assert [one["type"] for one in (started, restored, accepted, resumed)] == [
            "session_started", "session_restored", "app_accepted", "reconnection_ack",
        ]  # fmt: skip
        for answer in (started, restored, accepted, resumed):
            assert answer["api_token_ttl_ms"] == TTL_S * 1000
            for node in (one, two):
                statement = await said(node, answer)
                assert statement is not None
                caller = statement.caller
                assert caller.tenant == "acme"
                if "session" in answer:
                    assert (caller.kind, caller.subject, caller.session) == ("client", "ann", started["session"])
                else:
                    assert (caller.kind, caller.subject, caller.worker) == ("worker", "wes", accepted["worker"])

    play(scene)


def test_parties_that_do_not_ask_hear_nothing_of_it() -> None:
    """A party of an earlier release gets no field and no message that it does not know, however long it stays."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth={"api_token_ttl_s": TTL_S})
        _client, started, _worker, accepted, session = await cluster.pair("n1")
        answers = [started, accepted]
        answers += [(await cluster.restore("n1", started["recovery_token"]))[1]]
        answers += [(await cluster.resume("n1", accepted["recovery_token"], {"session": session}))[1]]
        assert not any("api_token" in answer or "api_token_ttl_ms" in answer for answer in answers)
        quiet, _ = await cluster.client("n1")
        assert [one["type"] for one in await quiet.quiet(3 * TTL_S)] == []

    play(scene)


async def renewal(peer: Peer) -> tuple[Json, float]:
    """Receive the next renewal: (the message, how long it was waited for)."""
    since = trio.current_time()
    return await peer.expect("api_token"), trio.current_time() - since


@pytest.mark.parametrize("parties", [1, 70])
def test_the_next_token_comes_before_two_thirds_of_the_life(parties: int) -> None:
    """However many parties there are, each is given its next token in time, again and again, and it is a new one."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"api_token_ttl_s": TTL_S}, admission={"connects_burst": 1000})
        worker, accepted = await cluster.worker("n1", api=True)
        peers = [(worker, accepted)] + [await cluster.client("n1", api=True) for _ in range(parties)]
        async with trio.open_nursery() as nursery:
            for peer, answer in peers:
                nursery.start_soon(check, node, peer, answer)

    async def check(node: Node, peer: Peer, answer: Json) -> None:
        token = answer["api_token"]
        for _ in range(3):
            message, waited_s = await renewal(peer)
            assert TTL_S / 3 < waited_s < TTL_S * 2 / 3
            assert message["api_token"] != token
            assert message["api_token_ttl_ms"] == TTL_S * 1000
            assert await said(node, message) is not None
            token = message["api_token"]

    play(scene)


def test_a_party_that_is_gone_is_forgotten() -> None:
    """A node keeps nothing of a party for its API token once its connection is over, and the next connection is told alone."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"api_token_ttl_s": TTL_S})
        old, started = await cluster.client("n1", api=True)
        new, _ = await cluster.restore("n1", started["recovery_token"], api=True)
        await old.closed()
        assert not any(one["type"] == "api_token" for one in old.aside)
        assert len(node.hub.api_tokens._asking) == 1
        await new.expect("api_token")
        new.cut()
        await trio.sleep(1)
        assert not node.hub.api_tokens._asking

    play(scene)


def test_another_life_by_reload() -> None:
    """A shorter life that an operator sets holds for the next token, which comes in time for it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"api_token_ttl_s": 400.0})
        await trio.sleep(1)
        reload(node, auth={"api_token_ttl_s": 6.0})
        peer, answer = await cluster.client("n1", api=True)
        assert answer["api_token_ttl_ms"] == 6000
        for _ in range(3):
            _, waited_s = await renewal(peer)
            assert 2 < waited_s < 4

    play(scene)


def test_the_store_is_not_asked_for_each_token() -> None:
    """Verifying costs no operation, also while the store is away; a token with an unknown key then is neither good nor bad."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, answer = await cluster.client("n1", api=True)
        await trio.sleep(LEARN_EVERY_S)
        before = node.committer.ops
        for _ in range(100):
            assert await said(node, answer) is not None
        assert node.committer.ops == before
        cluster.kill("n1")

    play(scene)


def test_a_flood_of_unknown_keys_asks_the_store_once_a_second() -> None:
    """Ids of keys that are made up cost the store one operation a second, and no good token is refused meanwhile."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, answer = await cluster.client("n1", api=True)
        await trio.sleep(READ_EVERY_S + 5)
        readings: list[Op] = []
        execute = node.committer.store.execute

        async def counting(ops: Sequence[Op]) -> list[Result]:
            readings.extend(op for op in ops if isinstance(op, ReadApiKeys))
            return await execute(ops)

        node.committer.store.execute = counting  # type: ignore[method-assign]
        since = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(node.hub.api_tokens.read, mint_elsewhere())
                assert await said(node, answer) is not None
                await trio.sleep(0.02)
        assert await node.hub.api_tokens.read(mint_elsewhere()) is None
        assert 2 <= len(readings) <= (trio.current_time() - since) / LEARN_EVERY_S + 1

    play(scene)


def test_an_unknown_key_while_the_store_is_away() -> None:
    """It cannot be told whether the token is good: the caller is told to come again, and not that it is refused."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, answer = await cluster.client("n1", api=True)
        await trio.sleep(LEARN_EVERY_S)
        cluster.kill("n1")
        since = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(refused, node)
        assert trio.current_time() - since < 10, "fifty callers wait for one answer, not in turn"
        assert await said(node, answer) is not None

    async def refused(node: Node) -> None:
        with pytest.raises(StoreUnavailable):
            await node.hub.api_tokens.read(mint_elsewhere())

    play(scene)


@pytest.mark.long
def test_rotation_over_three_nodes_refuses_no_token() -> None:
    """Hours with a short turn of keys, nodes that come and go: each live token is good at each node, and old keys are dropped."""

    async def scene(cluster: Cluster) -> None:
        auth: dict[str, object] = {"api_token_ttl_s": 300.0, "api_token_rotate_s": 600.0}
        clients = {}
        kids = set()
        for name in ("n1", "n2", "n3"):
            await cluster.start(name, auth=auth)
            clients[name] = await cluster.client(name, api=True)
        live: list[tuple[float, str]] = []
        for turn in range(80):
            await trio.sleep(47)
            if turn == 30:
                cluster.kill("n2")
                await trio.sleep(1)
                await cluster.start("n4", auth=auth)
            for node in cluster.nodes.values():
                token = node.hub.api_tokens.make("client", "s_1", "ann").text
                kids.add(kid_in(token))
                live.append((trio.current_time() + 300, token))
            live = [one for one in live if one[0] > trio.current_time()]
            for node in cluster.nodes.values():
                before = node.committer.ops
                for _, token in live:
                    assert await node.hub.api_tokens.read(token) is not None
                assert node.committer.ops == before, "each key was known before a token signed by it came"
                assert len(node.hub.api_tokens._stored) <= 2
        assert len(kids) >= 4

    play_long(scene)


def test_keys_that_the_store_has_lost_are_given_back() -> None:
    """A store that comes back empty has the keys again with the next reading, so that no token of before is refused."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, answer = await cluster.client("n1", api=True)
        cluster.world.rows.save_fact("api_keys", b"")
        other = await cluster.start("n2")
        assert await said(other, answer) is None
        await trio.sleep(READ_EVERY_S + 1)
        assert await said(other, answer) is not None
        later = other.hub.api_tokens.make("client", "s_1", "").text
        assert await node.hub.api_tokens.read(later) is not None

    play(scene)


def test_keys_of_the_operator() -> None:
    """The first of the configured keys signs and all verify; the store makes none, and its tokens stay good beside them."""

    async def scene(cluster: Cluster) -> None:
        one = await cluster.start("n1", auth={"api_token_key": "first-key-of-the-operator-32-bytes."})
        found = await one.committer.call(ReadApiKeys((), b"", 1, 1, one.hub.store.now_ms()))
        assert found == Keys(())
        two = await cluster.start(
            "n2", auth={"api_token_key": "next-key-of-the-operator-32-bytes.. first-key-of-the-operator-32-bytes."}
        )
        (_, old), (_, new) = [await cluster.client(name, api=True) for name in ("n1", "n2")]
        assert kid_in(old["api_token"]) != kid_in(new["api_token"])
        assert await said(two, old) is not None
        assert await said(one, new) is None
        reload(one, auth={"api_token_key": two.hub.config.auth.api_token_key})
        assert await said(one, new) is not None
        reload(one, auth={"api_token_key": ""})
        assert one.hub.api_tokens.make("client", "s_1", "").text, "until the store's are known"
        await trio.sleep(1)
        (_, stored) = await cluster.client("n1", api=True)
        assert kid_in(stored["api_token"]) not in {kid_in(old["api_token"]), kid_in(new["api_token"])}
        await trio.sleep(READ_EVERY_S + 1)
        assert await said(two, stored) is not None

    play(scene)


def test_the_token_of_an_sdk_follows_its_moves() -> None:
    """A client and a worker of the SDK hold a good token at any time: over renewals, a deploy, and a kill."""

    async def scene(cluster: Cluster) -> None:
        auth: dict[str, object] = {"api_token_ttl_s": TTL_S}
        await cluster.start("n1", auth=auth)
        balancer = Balancer(cluster, "n1")
        async with (
            open_worker(
                "ws://lb", _idle, instance_id="w", dial=balancer.dial, entropy=SeededEntropy(1), api=True
            ) as worker,
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(2), api=True) as client,
            open_client("ws://lb", dial=balancer.dial, entropy=SeededEntropy(3)) as plain,
        ):
            seen = set()
            for step in range(12):
                for party in (client, worker):
                    statement = await cluster.nodes[balancer.target].hub.api_tokens.read(party.api_token)
                    assert statement is not None
                    assert statement.owner in (client.session, worker.worker)
                    assert party.api_token not in repr(party)
                    seen.add(party.api_token)
                if step == 3:
                    await cluster.start("n2", auth=auth)
                    balancer.target = "n2"
                    cluster.nodes["n1"].shutdown.signal()
                    await cluster.wait_exit("n1")
                if step == 7:
                    await cluster.start("n3", auth=auth)
                    cluster.kill("n2")
                    balancer.target = "n3"
                    await trio.sleep(5)
                await trio.sleep(TTL_S / 3)
            assert plain.api_token == ""
            assert len(seen) >= 10
            assert client.api_token not in repr(client.state())

    play(scene)


async def _idle(_session: WorkerSession) -> None:
    await trio.sleep_forever()
