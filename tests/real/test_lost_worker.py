"""A worker process that is killed and never comes back."""

from pathlib import Path
from typing import Any

import pytest
import trio

from signald.sdk.events import LifecycleEvent, Paired, PeerAway, Replaced, Waiting
from signald.sdk.trio import Client, WorkerSession, open_client, open_worker
from tests.real.harness import QUICK, Nodes, kill_process, open_nodes, until, url_of

pytestmark = pytest.mark.real

SETTINGS: dict[str, dict[str, object]] = {"worker": {"resume_timeout_s": 1.5}}


class Heard:
    """What the client's application and the second worker's have received, in order."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.events: list[LifecycleEvent] = []
        self.questions: list[int] = []
        self.histories: list[list[Any]] = []

    async def listen(self, client: Client) -> None:
        """Take answers."""
        async for message in client:
            self.answers.append((message.data["n"], message.data["from"]))

    async def watch(self, client: Client) -> None:
        """Take events."""
        async for event in client.events:
            self.events.append(event)

    def kinds(self) -> list[type]:
        """The kinds of events so far."""
        return [type(event) for event in self.events]

    async def second(self, session: WorkerSession) -> None:
        """The handler of the worker that comes after."""
        self.histories.append(session.chat_history)
        async for message in session:
            self.questions.append(message.data["n"])
            await session.send({"n": message.data["n"], "from": "second"})


async def start_first(nodes: Nodes, url: str) -> tuple[trio.Process, Path]:
    """Start the worker that will be killed."""
    output = nodes.directory / "first.out"
    return await nodes.spawn(["-m", "tests.real.lone_worker", url, "first"], output), output


@pytest.mark.parametrize("cross", [False, True], ids=["same node", "cross"])
async def test_another_worker_takes_over(tmp_path: Path, cross: bool) -> None:
    """It gets the chat history as context and every unacked message as its own; the client is told `replaced`."""
    heard = Heard()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        front = await nodes.start("front")
        back = await nodes.start("back") if cross else front
        first, output = await start_first(nodes, url_of(back))
        with trio.fail_after(120):
            async with open_client(url_of(front), backoff=QUICK) as client, trio.open_nursery() as nursery:
                nursery.start_soon(heard.listen, client)
                nursery.start_soon(heard.watch, client)
                for n in (1, 2, 3):
                    await client.send({"n": n})
                await until(lambda: len(heard.answers) == 3, 15)
                before = client.worker
                await client.send({"n": 4, "hold": True})
                await client.send({"n": 5})
                await client.flush()
                await until(lambda: output.read_text().split() == ["1", "2", "3", "4"], 5)
                await kill_process(first)
                await until(lambda: PeerAway in heard.kinds(), 10)
                # Sent while no worker is there.
                await client.send({"n": 6})
                await client.flush()
                async with open_worker(url_of(back), heard.second, instance_id="second", capacity=10) as worker:
                    await until(lambda: len(heard.answers) == 6, 15, str(heard.events))
                    await client.send({"n": 7})
                    await until(lambda: len(heard.answers) == 7, 5)
                    assert heard.questions == [4, 5, 6, 7]
                    assert heard.answers == [(n, "first" if n < 4 else "second") for n in range(1, 8)]
                    (history,) = heard.histories
                    said = {(entry["from"], entry["data"]["n"]) for entry in history}
                    assert said >= {(who, n) for who in ("client", "worker") for n in (1, 2, 3)}
                    assert ("worker", 4) not in said
                    assert heard.events.count(Replaced(worker.worker)) == 1
                    assert worker.worker != before
                    assert client.connections == 1
                nursery.cancel_scope.cancel(reason="seen enough")


async def test_no_worker_at_all(tmp_path: Path) -> None:
    """The client is told that it waits; what it says is kept, and the first worker to come gets it."""
    heard = Heard()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        node = await nodes.start("node")
        first, _output = await start_first(nodes, url_of(node))
        with trio.fail_after(120):
            async with open_client(url_of(node), backoff=QUICK) as client, trio.open_nursery() as nursery:
                nursery.start_soon(heard.listen, client)
                nursery.start_soon(heard.watch, client)
                await client.send({"n": 1})
                await until(lambda: heard.answers == [(1, "first")], 15)
                await kill_process(first)
                await client.send({"n": 2})
                await until(lambda: heard.kinds()[-2:] == [PeerAway, Waiting], 15, str(heard.events))
                assert client.peer_state == "waiting"
                for n in (3, 4):
                    await client.send({"n": n})
                await client.flush()
                async with open_worker(url_of(node), heard.second, instance_id="second", capacity=10):
                    await until(lambda: len(heard.answers) == 4, 15, str(heard.events))
                    assert heard.questions == [2, 3, 4]
                    assert [type(event) for event in heard.events if isinstance(event, (Paired, Replaced))][
                        -1
                    ] is Replaced
                nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_client_without_any_worker_from_the_start(tmp_path: Path) -> None:
    """It may talk at once; everything is there for the first worker."""
    heard = Heard()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        node = await nodes.start("node")
        with trio.fail_after(90):
            async with open_client(url_of(node)) as client, trio.open_nursery() as nursery:
                nursery.start_soon(heard.listen, client)
                assert client.peer_state == "waiting"
                for n in (1, 2, 3):
                    await client.send({"n": n})
                await client.flush()
                async with open_worker(url_of(node), heard.second, instance_id="second"):
                    await until(lambda: len(heard.answers) == 3, 15)
                    assert heard.questions == [1, 2, 3]
                nursery.cancel_scope.cancel(reason="seen enough")
