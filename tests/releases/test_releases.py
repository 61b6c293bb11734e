"""two-releases: nodes of this release and of the one before keep every promise on one store, forth and back."""

import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

import signald
from signald.config import StoreConfig
from signald.core.callers import ALL
from signald.demo.options import DemoOptions
from signald.sdk.trio import Client, WorkerSession, open_client, open_worker
from signald.store.formats import READS
from signald.store.open import open_store
from signald.store.registry.ops import Format, RaiseFormat
from signald.store.session.jobs.ops import JobRead, ReadJob
from signald.store.session.ops import Look, Looked, NoSession, ReadHistory
from tests.real.harness import exit_of, logged, open_nodes, term, url_of
from tests.releases.play import ANSWER_S, play
from tests.releases.receiver import open_receiver
from tests.releases.wheels import unpacked
from tests.store.ops import NOW_MS, append, create, create_job, entries
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_deploys_forth_and_back_lose_nothing(store: str, tmp_path: Path) -> None:
    """Two deploys to this release and one back between them, under load, with clients away during each.

    This release tells a core server of what it has of the sessions: their numbers have no gap.
    """
    options = DemoOptions(sessions=16, workers=4, rate=2.0, deploys=3)
    async with open_receiver() as receiver:
        codes = [unpacked("0.1.0", tmp_path), None]
        outcome = await play(options, tmp_path, codes, away=3, store=store, settings=receiver.settings)
        assert outcome.ok, outcome.as_json()
        assert outcome.stayed.messages > 0
        assert len(outcome.away) == 3
        assert receiver.wrong == []
        told = {queue: receiver.types(queue) for queue in receiver.events if queue.startswith("s_")}
        assert len(told) == 16 + 3
        assert set(receiver.types("cluster")) == {"deploy.finished"}


async def test_nodes_are_of_the_release_that_is_asked_for(tmp_path: Path) -> None:
    """A node runs the code of its release, and not that in the working directory."""
    async with open_nodes(tmp_path, "memory:") as nodes:
        for code, version in ((unpacked("0.1.0", tmp_path), "0.1.0"), (None, signald.__version__)):
            nodes.code = code
            said = tmp_path / "version"
            await (await nodes.spawn(["-m", "signald.cli", "--version"], said)).wait()
            assert said.read_text().strip() == version


async def _echo(session: WorkerSession) -> None:
    async for message in session:
        await session.send(message.data)


async def _hear(client: Client) -> object:
    """The next message, acked."""
    with trio.fail_after(ANSWER_S):
        async for message in client:
            client.ack(message)
            return message.data
    raise AssertionError("the session has ended")


@asynccontextmanager
async def store_url(kind: str, directory: Path) -> AsyncIterator[str]:
    """An empty store for nodes of any release."""
    if kind == "sqlite":
        yield f"sqlite:{directory}/signald.db"
        return
    server = Server(directory)
    async with servers(server):
        yield server.url


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_a_record_without_a_field_of_today_is_read(store: str, tmp_path: Path) -> None:
    """A session of a state before 0.1.0, whose head lacks `said_before`, goes on here with what was acked."""
    async with store_url(store, tmp_path) as url, open_nodes(tmp_path, url) as nodes:
        nodes.code = unpacked("before-0.1.0", tmp_path)
        old = await nodes.start("old")
        async with open_worker(url_of(old), _echo, instance_id="w", capacity=9), open_client(url_of(old)) as client:
            await client.send("first")
            assert await _hear(client) == "first"
            talked = client.state()
        async with open_client(url_of(old)) as client:
            await client.send("precious")
            await client.flush()
            alone = client.state()
        nodes.code = None
        new = await nodes.start("new")
        term(old)
        assert await exit_of(old) == 0
        async with open_worker(url_of(new), _echo, instance_id="w", capacity=9):
            async with open_client(url_of(new), state=alone) as client:
                assert await _hear(client) == "precious"
            async with open_client(url_of(new), state=talked) as client:
                await client.send("second")
                assert await _hear(client) == "second"
        assert not logged(new, "record_unreadable")
        assert not logged(new, "log_lost")


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_a_store_of_two_formats_later_is_refused(store: str, tmp_path: Path) -> None:
    """The number in the store ends the start of a release that is two formats behind it with 78, and says what to do."""
    async with store_url(store, tmp_path) as url, open_nodes(tmp_path, url) as nodes:
        await _raise_format(url, READS)
        readable = await nodes.start("readable")
        term(readable)
        assert await exit_of(readable) == 0
        await _raise_format(url, READS + 1)
        refused = await nodes.start("refused", ready=False)
        assert await exit_of(refused) == os.EX_CONFIG
        assert f"this release reads formats up to {READS}" in refused.log_tail()


async def _raise_format(url: str, number: int) -> None:
    async with open_store(url, "later", StoreConfig(url=url)) as store:
        assert await store.execute([RaiseFormat(number)]) == [Format(number)]


_OF_0_1_0 = """
import sys, trio
from signald.store.base import Detach, EndSession
from signald.store.sqlite import open_sqlite

async def main():
    async with open_sqlite("sqlite:" + sys.argv[1], "old", ack="process", poll_interval_s=1.0) as store:
        await store.execute([Detach("s_1", "client", "a", 1, 1), EndSession("s_2", "old")])

trio.run(main)
"""


async def test_the_release_before_saves_and_ends_sessions_on_sqlite(tmp_path: Path) -> None:
    """A record that 0.1.0 has saved keeps what it does not know; of a session that it ends, jobs are kept and the history is not."""
    url = f"sqlite:{tmp_path}/signald.db"
    async with open_store(url, "a", StoreConfig(url=url)) as store:
        for name in ("s_1", "s_2"):
            await store.execute([create(name), create_job(name), append(entries(1, 2, history=True), session=name)])
    environment = {**os.environ, "PYTHONPATH": str(unpacked("0.1.0", tmp_path))}
    command = [sys.executable, "-c", _OF_0_1_0, f"{tmp_path}/signald.db"]
    await trio.run_process(command, env=environment, cwd=tmp_path)
    async with open_store(url, "a", StoreConfig(url=url)) as store:
        looked, history, job, job_of_ended = await store.execute(
            [
                Look("s_1", "worker", 0, 9),
                ReadHistory("s_2", 9, 0, ALL, NOW_MS),
                ReadJob("s_1", 1, ALL, "a", NOW_MS),
                ReadJob("s_2", 1, ALL, "a", NOW_MS),
            ]
        )
    assert isinstance(looked, Looked)
    assert (looked.head.client_node, looked.head.jobs, len(looked.entries)) == ("", 1, 2)
    assert history == NoSession()
    assert isinstance(job, JobRead)
    assert isinstance(job_of_ended, JobRead)
    assert (job.job.state, job_of_ended.job.state) == ("queued", "cancelled")
    with closing(sqlite3.connect(tmp_path / "signald.db")) as file:
        ((until_ms,),) = file.execute("SELECT until_ms FROM jobs WHERE session = 's_2'").fetchall()
    assert until_ms > 0
