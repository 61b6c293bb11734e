"""Workers that leave are told when others have room for their sessions, and what they hand on goes there without a pause."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from signald.core.pairing import Candidate
from signald.service.seats import SeatState
from signald.service.successors import asking, tell
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer

ASK: dict[str, object] = {"type": "app_state", "capacity": 10, "leaving": True, "successor": True}


async def serving(cluster: Cluster, sessions: int = 1, **want: str) -> tuple[Peer, list[Peer], list[str]]:
    """A worker, and clients whose sessions it has; returns the worker, the clients, and the ids."""
    worker, _ = await cluster.worker("n1", "old", capacity=10, labels={"lang": "en"})
    clients, names = [], []
    for _ in range(sessions):
        client, started = await cluster.client("n1", want=want)
        assert (await worker.accept())["session"] == started["session"]
        await client.expect("peer")
        clients.append(client)
        names.append(started["session"])
    return worker, clients, names


def test_it_is_told_at_once_that_it_will_be_told() -> None:
    """Without another worker the list is empty, and nothing more comes until there is one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, _ = await serving(cluster)
        await worker.send(ASK)
        assert await worker.expect("successor") == {"type": "successor", "sessions": []}
        assert [frame for frame in await worker.quiet(10) if frame["type"] == "successor"] == []

    play(scene)


@pytest.mark.parametrize("where", ["n1", "n2"])
def test_a_worker_that_comes_is_told_of_with_the_sessions_that_it_suits(where: str) -> None:
    """Within a second, and each session once; one whose label it has not is left out."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        worker, _, [wants_english] = await serving(cluster, lang="en")
        _, started = await cluster.client("n1")
        assert (await worker.accept())["session"] == started["session"]
        await worker.send(ASK)
        await worker.expect("successor")
        await cluster.worker(where, "new", capacity=10, labels={"lang": "de"})
        assert (await worker.expect("successor"))["sessions"] == [started["session"]]
        await cluster.worker(where, "another", capacity=10, labels={"lang": "en"})
        assert (await worker.expect("successor"))["sessions"] == [wants_english]
        assert [frame for frame in await worker.quiet(10) if frame["type"] == "successor"] == []

    play(scene)


def test_no_more_sessions_are_told_than_there_is_room() -> None:
    """A successor with two seats: two of three; the third when one more has come."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, names = await serving(cluster, 3)
        await cluster.worker("n1", "new", capacity=2)
        await worker.send(ASK)
        told = (await worker.expect("successor"))["sessions"]
        assert len(told) == 2
        for name in told:
            await worker.send({"type": "session_refuse", "session": name})
        await trio.sleep(3)
        await cluster.worker("n1", "more", capacity=2)
        assert (await worker.expect("successor"))["sessions"] == [name for name in names if name not in told]

    play(scene)


def test_another_one_that_leaves_is_no_successor() -> None:
    """Two workers of the old release leave at the same time: neither is told of the other."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, _ = await serving(cluster)
        other, _ = await cluster.worker("n1", "old 2", capacity=10)
        await other.send(ASK)
        await worker.send(ASK)
        assert (await worker.expect("successor"))["sessions"] == []

    play(scene)


def test_the_room_of_those_that_leave_is_none() -> None:
    """While the store has yet to hear that they leave, the registry shows their room: it is left out by their names."""

    class Told:
        """A worker that leaves, as far as it matters here."""

        def __init__(self, worker: str, seats: dict[str, Any]) -> None:
            self.worker, self.seats = worker, seats
            self.asks_successor, self.over = True, False
            self.told_successor: set[str] | None = None
            self.heard: list[list[str]] = []

        def successor(self, sessions: Sequence[str]) -> None:
            """Note what is told."""
            self.heard.append(list(sessions))

    seat = SimpleNamespace(state=SeatState.ACCEPTED, session=SimpleNamespace(want={}, principal=""))
    leaving: Any = [Told("w_1", {"s_1": seat}), Told("w_2", {})]
    registry = [Candidate("w_1", {}, 10, 1), Candidate("w_2", {}, 10, 0)]
    assert asking(leaving) == leaving
    tell(leaving, registry)
    assert [one.heard for one in leaving] == [[[]], [[]]]
    tell(asking(leaving), [*registry, Candidate("w_3", {}, 1, 0)])
    assert [one.heard for one in leaving] == [[[], ["s_1"]], [[]]]
    assert asking(leaving) == []


def test_a_worker_that_does_not_ask_or_stays_after_all_is_told_nothing() -> None:
    """`leaving` alone is as it was; a later `app_state` takes the request back, and a new one begins anew."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, names = await serving(cluster)
        await cluster.worker("n1", "new", capacity=10)
        await worker.send({"type": "app_state", "capacity": 10, "leaving": True})
        await worker.send({"type": "app_state", "capacity": 10, "successor": True})
        assert [frame for frame in await worker.quiet(3) if frame["type"] == "successor"] == []
        for _ in range(2):
            await worker.send(ASK)
            assert (await worker.expect("successor"))["sessions"] == names
            await worker.send({"type": "app_state", "capacity": 10})

    play(scene)


def test_what_is_handed_on_is_with_the_next_worker_at_once() -> None:
    """State, open stream and unacked message go along; the client is told `replaced`, and nothing counts as a failure."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, [client], [name] = await serving(cluster)
        await client.send({"type": "message", "seq": 1, "data": "tell me"})
        await worker.expect("message")
        piece = {"type": "message", "session": name, "stream": "a", "fold": "text"}
        await worker.send({**piece, "seq": 1, "data": "Once "})
        await worker.expect("ack")
        new, _ = await cluster.worker("n1", "new", capacity=10)
        await worker.send(ASK)
        assert (await worker.expect("successor"))["sessions"] == [name]
        start = trio.current_time()
        await worker.send({"type": "session_refuse", "session": name, "state": {"step": 7}})
        assigned = await new.accept()
        assert trio.current_time() - start < 0.1
        assert (assigned["state"], assigned["next_seq"]) == ({"step": 7}, 2)
        assert assigned["open_streams"] == [{"stream": "a", "attempt": 1, "data": "Once "}]
        assert (await new.expect("message"))["data"] == "tell me"
        await new.send({**piece, "seq": 2, "data": "upon", "end": True})
        texts = [await client.expect("message") for _ in range(2)]
        assert [text["data"] for text in texts] == ["Once ", "upon"]
        assert "attempt" not in texts[1]
        assert cluster.nodes["n1"].hub.sessions[name].failures.count == 0

    play(scene)
