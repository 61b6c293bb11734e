"""Recovery tokens when the answer is lost, and when a token that is over is used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from signald.sdk.errors import SessionGone
from signald.sdk.events import Disconnected, Resumed
from tests.real.harness import Cutting, cutting, dial, logged, open_nodes, open_talk, until, url_of
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real


@asynccontextmanager
async def store_of(kind: str, directory: Path) -> AsyncIterator[str]:
    """The URL of a store of `kind`."""
    redis = Server(directory / "redis")
    async with servers(*([redis] if kind == "redis" else [])):
        yield redis.url if kind == "redis" else f"sqlite:{directory / 'store.db'}"


async def restore(url: str, token: str) -> tuple[dict[str, Any], int | None]:
    """Try a client's token by hand: the first frame, and the close code if that was the end of it."""
    async with dial(url, "/v1/client") as peer:
        await peer.send({"type": "restore_session", "recovery_token": token, "received": 0})
        answer = await peer.receive()
        return answer, await peer.closed() if answer["type"] == "error" else None


async def lose_answers(proxy: Cutting, count: int) -> None:
    """Cut all connections at the proxy, and then the next `count` that come back, when they have been granted what they ask."""
    proxy.lost = 0
    proxy.cut()
    proxy.lose_answers = count
    await until(lambda: proxy.lost == count, 15, "the answers are lost")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_answer_locks_no_client_out(tmp_path: Path, kind: str, times: int) -> None:
    """The claim was granted, its answer never came: the client gets in with the token it has, however often this happens."""
    async with (
        store_of(kind, tmp_path) as store,
        open_nodes(tmp_path, store) as nodes,
        open_talk() as talk,
    ):
        node = await nodes.start("node")
        async with cutting(node.websocket) as proxy:
            await talk.worker("worker", url_of(node))
            chatter = await talk.client("client", proxy.url)
            talk.begin()
            await talk.goes_on(5)
            before = chatter.client.recovery_token
            await lose_answers(proxy, times)
            await talk.goes_on(5)
            await talk.settle()
            granted = logged(node, "session_restored")
            assert len(granted) == times + 1, "each of them was granted"
            assert [entry["epoch"] for entry in granted] == list(range(2, times + 3))
            assert len(chatter.saw(Resumed)) == 1
            assert chatter.client.recovery_token != before
            assert not logged(node, "token_reuse")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_lost_answer_locks_no_worker_out(tmp_path: Path, kind: str) -> None:
    """The same for a worker and all its sessions: it keeps them."""
    async with (
        store_of(kind, tmp_path) as store,
        open_nodes(tmp_path, store) as nodes,
        open_talk() as talk,
    ):
        node = await nodes.start("node")
        async with cutting(node.websocket) as proxy:
            worker = await talk.worker("worker", proxy.url)
            for n in range(3):
                await talk.client(f"client {n}", url_of(node))
            talk.begin()
            await talk.goes_on(5)
            name = worker.worker
            await lose_answers(proxy, 2)
            await talk.goes_on(5)
            await talk.settle()
            assert len(logged(node, "worker_resumed")) == 3
            assert worker.worker == name
            assert len(worker.sessions) == 3
            for chatter in talk.chatters:
                assert not chatter.saw(Disconnected)
                assert len(chatter.ledger.workers) == 1


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_used_token_revokes_all(tmp_path: Path, kind: str) -> None:
    """Once the new token was shown, the old one is theft or a bug: 4403 `token_reuse`, and the newest is refused from then on."""
    async with (
        store_of(kind, tmp_path) as store,
        open_nodes(tmp_path, store) as nodes,
        open_talk() as talk,
    ):
        node, other = await nodes.start("node"), await nodes.start("other")
        async with cutting(node.websocket) as proxy:
            await talk.worker("worker", url_of(node))
            chatter = await talk.client("client", proxy.url)
            talk.begin()
            await talk.goes_on(3)
            first = chatter.client.recovery_token
            proxy.cut()
            await talk.goes_on(3)
            second = chatter.client.recovery_token
            assert second != first
            # The client has spoken since it got the second: the first is over, at every node.
            answer, code = await restore(url_of(other), first)
            assert (answer["type"], answer["code"], code) == ("error", "token_reuse", 4403)
            assert first not in other.log.read_text()
            assert logged(other, "token_reuse")[0]["owner"] == chatter.client.session
            for url in (url_of(node), url_of(other)):
                for token in (second, first):
                    answer, code = await restore(url, token)
                    assert answer["code"] in ("token_reuse", "token_revoked")
                    assert code == 4403
            # The holder is served on as long as its connection lasts; then it is told.
            await talk.goes_on(3)
            await talk.settle()
            proxy.cut()
            await until(lambda: chatter.gone is not None, 15, talk.account())
            assert isinstance(chatter.gone, SessionGone)


async def test_a_token_of_another_kind_resumes_nothing(tmp_path: Path) -> None:
    """Made up, cut short, or of a session there is not: 4404, and nothing of it is kept."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        node = await nodes.start("node")
        chatter = await talk.client("client", url_of(node))
        token = chatter.client.recovery_token
        name, _, secret = token.partition(".")
        other = f"{name[:-1]}{'b' if name.endswith('a') else 'a'}.{secret}"
        for wrong in ("x", name, f"{name}.", f"{name}.{secret[:-1]}", other, token + "a"):
            answer, code = await restore(url_of(node), wrong)
            assert (answer["code"], code) == ("nothing_to_resume", 4404), (wrong, answer)
        assert chatter.gone is None
        assert not logged(node, "token_reuse")
