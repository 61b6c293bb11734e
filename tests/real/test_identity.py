"""Identity of nodes among real processes: a live holder is never disturbed, a dead one is replaced without delay.

`RUNTIME_DIRECTORY` stands for the host: processes with another one know nothing of each other but what the store says.
"""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.real.harness import exit_of, kill, logged, open_nodes, probe, term, until
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

TAKEN = 'node.id "n1" is in use: another live process holds it on this store'


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty store."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'store.db'}"
        return
    redis = Server(tmp_path / "redis")
    async with servers(redis):
        yield redis.url


def on_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Let nodes that are started from now on run on the host `name`."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / name))


@pytest.mark.parametrize("same_host", [True, False])
async def test_a_second_live_process_is_refused(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_host: bool
) -> None:
    """The second process ends with 75 and one clear line; the first stays ready."""
    async with open_nodes(tmp_path, store) as nodes:
        on_host(monkeypatch, tmp_path, "a")
        first = await nodes.start("first", node={"id": "n1", "lease_ttl_s": 3.0})
        on_host(monkeypatch, tmp_path, "a" if same_host else "b")
        second = await nodes.start("second", node={"id": "n1", "lease_ttl_s": 3.0}, ready=False)
        assert await exit_of(second, 60) == 75
        [line] = logged(second, "cannot_serve")
        assert line["why"].startswith(TAKEN)
        assert second.log.read_text().count("another live process holds it") == 1
        assert (await probe(first))[0] == 200
        assert not logged(first, "node_id_lost")


async def test_a_killed_process_is_replaced_at_once_on_its_host(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease of ten minutes is not waited for: each start after SIGKILL recovers the id of the one before."""
    on_host(monkeypatch, tmp_path, "a")
    async with open_nodes(tmp_path, store) as nodes:
        await kill(await nodes.start("node1", node={"id": "n1", "lease_ttl_s": 600.0}))
        for number in (2, 3):
            node = await nodes.start(f"node{number}", node={"id": "n1", "lease_ttl_s": 600.0})
            assert logged(node, "node_id_recovered")
            assert not logged(node, "node_id_waited_for")
            await kill(node)


async def test_sigterm_ends_the_wait_for_an_id(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another host a dead holder is waited for with a line that says so; SIGTERM ends that with 0."""
    async with open_nodes(tmp_path, store) as nodes:
        on_host(monkeypatch, tmp_path, "a")
        await kill(await nodes.start("first", node={"id": "n1", "lease_ttl_s": 600.0}))
        on_host(monkeypatch, tmp_path, "b")
        second = await nodes.start("second", node={"id": "n1"}, ready=False)
        await until(lambda: logged(second, "node_id_waited_for"), 30)
        assert (await probe(second))[0] == 503
        term(second)
        assert await exit_of(second, 60) == 0


async def test_a_frozen_process_finds_out_that_its_id_was_taken(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP for longer than the lease: another host takes the id; the first, awake again, ends with 75 and says why."""
    async with open_nodes(tmp_path, store) as nodes:
        on_host(monkeypatch, tmp_path, "a")
        first = await nodes.start("first", node={"id": "n1", "lease_ttl_s": 2.0})
        first.send_signal(signal.SIGSTOP)
        on_host(monkeypatch, tmp_path, "b")
        second = await nodes.start("second", node={"id": "n1", "lease_ttl_s": 2.0})
        first.send_signal(signal.SIGCONT)
        assert await exit_of(first, 60) == 75
        assert logged(first, "node_id_lost")
        assert (await probe(second))[0] == 200
        third = await nodes.start("third", node={"id": "n1", "lease_ttl_s": 2.0}, ready=False)
        assert await exit_of(third, 60) == 75  # the first has not removed the second's entry
