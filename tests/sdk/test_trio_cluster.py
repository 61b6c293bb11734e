"""The SDK against whole nodes in one virtual time: deploys, kills and lost nodes, judged at the applications."""

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.events import HandedOver, LifecycleEvent, Paired, Replaced, Waiting
from signald.sdk.trio import Client, SessionGone, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.sdk.client_play import drained
from tests.service.core_server import URL as CORE_URL
from tests.service.core_server import CoreServer, says


class Talk:
    """Clients that ask numbered questions, workers that answer them; both count what they see."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.asked: dict[int, int] = {}
        self.heard: dict[int, list[int]] = {}
        self.served: dict[str, list[int]] = {}
        self.by: dict[str, list[str]] = {}
        self.events: dict[int, list[LifecycleEvent]] = {}
        self.connections: dict[int, int] = {}
        self.gap_max_s = 0.0
        """The longest time a client waited for its next answer."""
        self.stop = trio.Event()

    async def work(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        """One worker that echoes."""

        async def handler(session: WorkerSession) -> None:
            async for message in session:
                self.served.setdefault(session.session, []).append(message.data)
                self.by.setdefault(session.session, []).append(name)
                await session.send(message.data)

        async with open_worker(
            "ws://lb",
            handler,
            instance_id=name,
            capacity=100,
            dial=self.balancer.dial,
            entropy=SeededEntropy(len(name)),
        ):
            task_status.started()
            await trio.sleep_forever()

    async def talk(self, number: int, task_status: trio.TaskStatus[Client]) -> None:
        """One client that asks five times a second until it is told to stop, and waits for every answer."""
        entropy = SeededEntropy(number)
        async with open_client("ws://lb", dial=self.balancer.dial, entropy=entropy) as client:
            task_status.started(client)
            heard = self.heard[number] = []
            self.asked[number] = 0

            async def listen() -> None:
                last = trio.current_time()
                async for message in client:
                    heard.append(message.data)
                    self.gap_max_s = max(self.gap_max_s, trio.current_time() - last)
                    last = trio.current_time()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                while not self.stop.is_set() or len(heard) < self.asked[number]:
                    if not self.stop.is_set():
                        await client.send(self.asked[number])
                        self.asked[number] += 1
                    await trio.sleep(0.2)
                nursery.cancel_scope.cancel(reason="all answers are here")
            self.connections[number] = client.connections
            self.events[number] = drained(client)

    def judge(self) -> None:
        """Every question was answered once, in order."""
        assert self.asked
        for number, count in self.asked.items():
            assert self.heard[number] == list(range(count))
        for served in self.served.values():
            assert served == list(range(len(served)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_three_deploys_are_not_noticed(seed: int) -> None:
    """Nothing lost, doubled or reordered; the same workers; one connection more for each deploy."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        talk = Talk(balancer)
        async with trio.open_nursery() as nursery:
            for name in ("w-a", "w-b"):
                await nursery.start(talk.work, name)
            async with trio.open_nursery() as clients:
                for number in range(6):
                    await clients.start(talk.talk, number)
                for deploy in range(1, 4):
                    await trio.sleep(3)
                    await cluster.start(f"n{deploy}")
                    balancer.target = f"n{deploy}"
                    cluster.nodes[f"n{deploy - 1}"].shutdown.signal()
                    await cluster.wait_exit(f"n{deploy - 1}")
                await trio.sleep(3)
                talk.stop.set()
            nursery.cancel_scope.cancel(reason="the clients have all answers")
        talk.judge()
        assert set(talk.connections.values()) == {4}
        assert talk.gap_max_s <= 0.25  # a client is never without a connection that serves it
        assert all(len(set(names)) == 1 for names in talk.by.values())
        for events in talk.events.values():
            assert [event for event in events if not isinstance(event, Waiting | Paired)] == [HandedOver(None)] * 3

    play(scene, seed)


def test_a_killed_node_costs_a_second_and_no_message() -> None:
    """SIGKILL: all parties resume elsewhere with nothing lost."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        await cluster.start("n1")
        balancer = Balancer(cluster, "n0")
        talk = Talk(balancer)
        async with trio.open_nursery() as nursery:
            await nursery.start(talk.work, "w-a")
            async with trio.open_nursery() as clients:
                for number in range(4):
                    await clients.start(talk.talk, number)
                await trio.sleep(3)
                cluster.kill("n0")
                balancer.target = "n1"
                await trio.sleep(5)
                talk.stop.set()
            nursery.cancel_scope.cancel(reason="the clients have all answers")
        talk.judge()
        assert talk.gap_max_s <= 1.2  # a second, and what lies between two questions

    play(scene)


def test_a_worker_that_never_comes_back_is_replaced() -> None:
    """Its session goes to another worker, which gets the unfinished message and the chat history; the client is told."""
    got: list[object] = []

    async def never_done(session: WorkerSession) -> None:
        async for message in session:
            got.append(("first", message.data))
            await trio.sleep_forever()

    async def second(session: WorkerSession) -> None:
        got.append([entry["data"] for entry in session.chat_history])
        async for message in session:
            got.append(("second", message.data))
            await session.send("answer")

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with trio.open_nursery() as nursery:
            gone = trio.CancelScope()

            async def first(task_status: trio.TaskStatus[None]) -> None:
                with gone:
                    async with open_worker("ws://lb", never_done, instance_id="a", dial=balancer.dial):
                        task_status.started()
                        await trio.sleep_forever()

            await nursery.start(first)
            async with open_client("ws://lb", dial=balancer.dial) as client:
                await client.send("question")
                await trio.sleep(1)
                gone.cancel(reason="the worker's process dies")
                async with open_worker("ws://lb", second, instance_id="b", dial=balancer.dial) as worker:
                    assert (await anext(client)).data == "answer"
                    assert Replaced(worker.worker) in drained(client)
        assert got == [("first", "question"), ["question"], ("second", "question")]

    play(scene)


def test_both_sides_have_the_settings_of_the_core_server() -> None:
    """The client has them from the beginning, the worker with its session; without a core server there are none."""

    async def show(session: WorkerSession) -> None:
        await session.send([session.settings, session.subject])
        async for _ in session:
            pass

    async def scene(cluster: Cluster) -> None:
        async with trio.open_nursery() as nursery:
            core = CoreServer(nursery)
            core.answer = says(allow=True, settings={"voice": "alto"})
            for url, settings in (("", None), (CORE_URL, {"voice": "alto"})):
                name = "asking" if url else "plain"
                core.hear(await cluster.start(name, core={"authorize_url": url}))
                balancer = Balancer(cluster, name)
                async with (
                    open_worker("ws://lb", show, instance_id="a", dial=balancer.dial),
                    open_client("ws://lb", dial=balancer.dial) as client,
                ):
                    assert client.settings == settings
                    assert (await anext(client)).data == [settings, None]
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_client_without_a_worker_waits_and_is_told_so() -> None:
    """No worker: the session waits, and its messages with it, until one comes."""

    async def echo(session: WorkerSession) -> None:
        async for message in session:
            await session.send(message.data)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with open_client("ws://lb", dial=balancer.dial) as client:
            await client.send("early")
            await trio.sleep(30)
            assert drained(client) == [Waiting()]
            async with open_worker("ws://lb", echo, instance_id="a", dial=balancer.dial):
                assert (await anext(client)).data == "early"

    play(scene)


def test_bye_ends_the_session_everywhere() -> None:
    """After the client's bye the handler's loop ends, the token is worth nothing, and nothing is left of the session."""
    ended: list[str | None] = []

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            await session.send(message.data)
        ended.append(session.ended)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with open_worker("ws://lb", handler, instance_id="a", dial=balancer.dial) as worker:
            async with open_client("ws://lb", dial=balancer.dial) as client:
                await client.send("x")
                assert (await anext(client)).data == "x"
                state = client.state()
                await client.bye("enough")
                assert [message async for message in client] == []
            await trio.sleep(1)
            assert ended == ["enough"]
            assert worker.sessions == {}
            with pytest.raises(SessionGone, match="nothing_to_resume"):
                async with open_client("ws://lb", dial=balancer.dial, state=state):
                    pass

    play(scene)


def test_a_burst_above_the_rate_arrives_in_order() -> None:
    """A client that sends far more than its rate is slowed down, never cut off, and loses nothing."""
    got: list[int] = []

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            got.append(message.data)  # noqa: PERF401 - looked at while it grows

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        async with (
            open_worker("ws://lb", handler, instance_id="a", dial=balancer.dial),
            open_client("ws://lb", dial=balancer.dial) as client,
        ):
            for n in range(400):
                await client.send(n)
            await client.flush()
            await trio.sleep(1)
            assert got == list(range(400))
            assert client.connections == 1

    play(scene)


def test_a_slow_worker_pushes_back_and_loses_nothing() -> None:
    """Beyond the backlog bound the sender is refused for a while; all arrives once, in order."""
    got: list[int] = []

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            got.append(message.data)
            await trio.sleep(0.1)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0", limits={"backlog_messages_max": 10, "messages_per_s": 1000.0})
        balancer = Balancer(cluster, "n0")
        async with (
            open_worker("ws://lb", handler, instance_id="a", dial=balancer.dial),
            open_client("ws://lb", dial=balancer.dial) as client,
        ):
            for n in range(150):
                await client.send(n)
            await client.flush()
            await trio.sleep(30)
            assert got == list(range(150))

    play(scene)
