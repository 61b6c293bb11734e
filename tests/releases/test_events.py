"""Events and blobs beside the release before, which knows neither: what this release tells stays whole, and nothing is left for ever.

A session tells nothing of what happens to it at a node of the release before: no pairing, no end of the client's connection, no job
that has ended, and no end of the session. What this release has told of it before, and tells after, has no gap in its numbers.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import frozen

from signald.demo.cluster import Node
from signald.sdk.trio import Client, WorkerSession, open_client, open_worker
from tests.real.harness import Nodes, exit_of, logged, open_nodes, term, until, url_of
from tests.releases.play import ANSWER_S
from tests.releases.receiver import Receiver, open_receiver
from tests.releases.wheels import Wheel, unpacked
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

STORES = ("sqlite", "redis")
BEFORE: tuple[Wheel, ...] = ("0.1.0", "before-0.1.0")
BYTES = bytes(range(256)) * 40


@frozen
class Both:
    """A store, and what starts nodes of both releases on it."""

    nodes: Nodes
    receiver: Receiver
    directory: Path
    wheel: Wheel
    redis: Server | None

    async def new(self, name: str) -> Node:
        """Start a node of this release, which tells events and keeps blobs."""
        self.nodes.code = None
        blobs = {"url": f"file:{self.directory}/blobs"}
        return await self.nodes.start(name, core=self.receiver.settings["core"], blobs=blobs)

    async def old(self, name: str) -> Node:
        """Start a node of the release before."""
        self.nodes.code = unpacked(self.wheel, self.directory)
        return await self.nodes.start(name)

    def queue(self, session: str) -> tuple[bool, bool]:
        """Tell whether the store has an event queue of `session`, and whether it is kept for a time only."""
        if self.redis is not None:
            left_ms = self.redis.ask("PTTL", f"signald:{{{session}}}:events")
            return left_ms != -2, left_ms > 0
        with closing(sqlite3.connect(self.directory / "signald.db")) as file:
            rows = file.execute("SELECT until_ms FROM queue WHERE name = ?", (session,)).fetchall()
        return bool(rows), any(until_ms > 0 for (until_ms,) in rows)


@asynccontextmanager
async def open_both(kind: str, wheel: Wheel, directory: Path) -> AsyncIterator[Both]:
    """A store of `kind`, without a node."""
    redis = Server(directory) if kind == "redis" else None
    async with servers(*([redis] if redis is not None else [])), open_receiver() as receiver:
        url = f"sqlite:{directory}/signald.db" if redis is None else redis.url
        async with open_nodes(directory, url) as nodes:
            yield Both(nodes, receiver, directory, wheel, redis)
        assert receiver.wrong == []


async def _echo(session: WorkerSession) -> None:
    async for message in session:
        await session.send(message.data)


async def _asks(client: Client, text: str) -> None:
    """Ask, and hear the answer."""
    await client.send(text)
    with trio.fail_after(ANSWER_S):
        message = await client.__anext__()
    client.ack(message)
    assert message.data == text


@pytest.mark.parametrize("wheel", BEFORE)
@pytest.mark.parametrize("store", STORES)
async def test_numbers_are_dense_forth_and_back(store: str, wheel: Wheel, tmp_path: Path) -> None:
    """A session begins here, goes on at a node of the release before, and ends here: what was told has no gap."""
    async with open_both(store, wheel, tmp_path) as both:
        new, receiver = await both.new("new"), both.receiver
        async with open_worker(url_of(new), _echo, instance_id="w", capacity=9), open_client(url_of(new)) as client:
            session = client.session
            await _asks(client, "here")
            state = client.state()
        await receiver.hears(session, "session.started", "session.paired", "session.away")
        old = await both.old("old")
        async with (
            open_worker(url_of(old), _echo, instance_id="w", capacity=9),
            open_client(url_of(old), state=state) as client,
        ):
            await _asks(client, "there")
            state = client.state()
        async with open_worker(url_of(new), _echo, instance_id="w", capacity=9) as worker:
            async with open_client(url_of(new), state=state) as client:
                await _asks(client, "here again")
                await client.bye("done")
            told = receiver.events[session]
            await until(lambda: told[-1]["type"] == "session.ended", 30.0, f"{receiver.types(session)}")
            assert receiver.types(session)[3] == "session.resumed"
            assert [said["data"]["n"] for said in told] == list(range(1, len(told) + 1))
            assert (told[-1]["data"]["up"], told[-1]["data"]["down"]) == (3, 3)
            assert receiver.types(worker.worker)[0] == "worker.registered"
        await until(lambda: both.queue(session) == (False, False), 10.0, "an empty queue goes with its session")
        for node in (old, new):
            term(node)
            assert await exit_of(node) == 0
            assert not logged(node, "record_unreadable")


@pytest.mark.parametrize("store", STORES)
async def test_an_end_at_the_release_before(store: str, tmp_path: Path) -> None:
    """A node of the release before ends a session: its end is not told, what waited is, and its queue is kept for a time only."""
    async with open_both(store, "0.1.0", tmp_path) as both:
        new, receiver = await both.new("new"), both.receiver
        receiver.away = True
        async with open_client(url_of(new)) as client, open_client(url_of(new)) as other:
            state, other_state, session = client.state(), other.state(), client.session
        old = await both.old("old")
        for left in (state, other_state):
            async with open_client(url_of(old), state=left) as client:
                await client.bye("done")
        await until(partial(_is_for_a_time, both, session), 10.0, "the queue is kept for a time only")
        receiver.away = False
        for one in (session, other_state.session):
            await receiver.hears(one, "session.started", "session.away")
        await until(lambda: both.queue(session) == (False, False), 10.0, "what was told goes")
        for node in (old, new):
            term(node)
            assert await exit_of(node) == 0


def _is_for_a_time(both: Both, session: str) -> bool:
    return both.queue(session) == (True, True)


@pytest.mark.parametrize("store", STORES)
async def test_a_session_of_the_release_before_is_told_from_here_on(store: str, tmp_path: Path) -> None:
    """A session that began at a node of the release before is told from its first claim here on, beginning with 1."""
    async with open_both(store, "0.1.0", tmp_path) as both:
        old, receiver = await both.old("old"), both.receiver
        async with open_worker(url_of(old), _echo, instance_id="w", capacity=9), open_client(url_of(old)) as client:
            await _asks(client, "there")
            state, session = client.state(), client.session
        new = await both.new("new")
        term(old)
        assert await exit_of(old) == 0
        async with open_worker(url_of(new), _echo, instance_id="w", capacity=9):
            async with open_client(url_of(new), state=state) as client:
                await _asks(client, "here")
                await client.bye("done")
            await until(lambda: receiver.types(session)[-1:] == ["session.ended"], 30.0, str(receiver.types(session)))
            assert "session.started" not in receiver.types(session)


@pytest.mark.parametrize("store", STORES)
async def test_a_blob_beside_the_release_before(store: str, tmp_path: Path) -> None:
    """A blob that was uploaded here is read here while its session is at a node of the release before, and a message names it through."""
    async with open_both(store, "0.1.0", tmp_path) as both:
        new, old = await both.new("new"), await both.old("old")
        heard: list[tuple[object, str | None]] = []

        async def listen(session: WorkerSession) -> None:
            async for message in session:
                blob = message.blob.id if message.blob is not None else None
                heard.append((message.data, blob))

        async with open_worker(url_of(old), listen, instance_id="w", capacity=9):
            async with open_client(url_of(new), api=True) as client:
                blob = await client.upload(BYTES, content_type="audio/ogg")
                await client.send("look", blob=blob)
                await until(lambda: heard, 10.0, "the worker hears of it")
                state = client.state()
            assert heard == [("look", blob.id)]
            async with open_client(url_of(old), state=state, api=True) as client:
                await client.send("there")
                await until(lambda: len(heard) > 1, 10.0, "the session goes on there")
                state = client.state()
            async with open_client(url_of(new), state=state, api=True) as client:
                assert await client.blob(blob.id).read() == BYTES
                await client.bye("done")
