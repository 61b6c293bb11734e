"""Rooms of the SDK against whole nodes in one virtual time: who sees what, through moves, cuts and the loss of nodes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.network import Carrier
from signald.sdk.room_events import (
    MembersChanged,
    PublicationRefused,
    RecordsChanged,
    RoomEvent,
    RoomPublication,
    RoomReset,
    RoomUpdate,
)
from signald.sdk.trio import Client, Room, RoomGone, WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from tests.service.rooms.test_members import post
from tests.service.test_credentials import AUTH, token


class Lines(Balancer):
    """A balancer whose connections can be cut."""

    def __init__(self, cluster: Cluster, target: str) -> None:
        super().__init__(cluster, target)
        self._carriers: set[Carrier] = set()

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Carrier]:
        """As the base."""
        async with super().dial(url) as carrier:
            self._carriers.add(carrier)
            try:
                yield carrier
            finally:
                self._carriers.discard(carrier)

    def cut(self) -> None:
        """Break all connections."""
        for carrier in self._carriers:
            carrier.abort()


@asynccontextmanager
async def client_of(balancer: Balancer, seed: int, **more: Any) -> AsyncIterator[Client]:
    """A client that is here for rooms alone."""
    options = {"pair": False, "dial": balancer.dial, "entropy": SeededEntropy(seed), **more}
    async with open_client("ws://lb", **options) as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - in virtual time a poll costs nothing
            await trio.sleep(0.05)


def data_of(events: list[RoomEvent]) -> list[Any]:
    """Return what was published, other than records."""
    return [event.data for event in events if isinstance(event, RoomPublication)]


async def listen(room: Room, seen: list[RoomEvent]) -> None:
    """Keep the events of a room."""
    async for event in room:
        seen.append(event)  # noqa: PERF401 - each at its time


def test_said_seen_and_left() -> None:
    """JSON and bytes come once, to others only, with their kind; presences and departures are told; the history has all of it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        seen: list[RoomEvent] = []
        async with client_of(balancer, 1) as ada, client_of(balancer, 2) as bob, trio.open_nursery() as nursery:
            async with bob.room("chat", presence={"name": "Bob"}) as there:
                nursery.start_soon(listen, there, seen)
                async with ada.room("chat", presence={"name": "Ada"}) as here:
                    assert here.members == {ada.session: {"name": "Ada"}, bob.session: {"name": "Bob"}}
                    assert (here.members_count, here.epoch) == (2, there.epoch)
                    await here.publish({"text": "hello"}, kind="chat")
                    await here.publish(b"\x00\xff")
                    here.set_presence({"name": "Ada", "cursor": [1, 2]})
                    assert here.members[here.member] == {"name": "Ada", "cursor": [1, 2]}
                    await here.flush()
                    await until(lambda: there.members.get(ada.session, {}).get("cursor") == [1, 2])
                    assert (here.position, there.position, here.unconfirmed) == (2, 2, 0)
                await until(lambda: there.members_count == 1)
                async with ada.room("chat", history=10) as again:
                    assert data_of(again.history) == [{"text": "hello"}, b"\x00\xff"]  # type: ignore[arg-type]
                    assert again.position == 2
                await until(lambda: there.members_count == 1)
            await until(lambda: there.ended is not None)
            with pytest.raises(RoomGone, match="left"):
                await there.publish(1)
        assert data_of(seen) == [{"text": "hello"}, b"\x00\xff"]
        said = next(event for event in seen if isinstance(event, RoomPublication))
        assert (said.position, said.member, said.kind, said.binary) == (1, ada.session, "chat", False)
        come = [event for event in seen if isinstance(event, MembersChanged) and (event.joined or event.left)]
        assert [(event.joined, event.left) for event in come] == [((ada.session,), ()), ((), (ada.session,))] * 2

    play(scene)


def test_records_end_alike_and_own_changes_show_at_once() -> None:
    """Two members and a worker change the same records; a late one gets them all."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n0", "n1"):
            await cluster.start(name)
        first, second = Balancer(cluster, "n0"), Balancer(cluster, "n1")
        seen: list[RoomEvent] = []

        async def work(session: WorkerSession) -> None:
            async with session.room("canvas:1", state=True) as room:
                await room.put("w", {"by": room.member.removesuffix("/worker")})
                await room.flush()
                await trio.sleep_forever()

        async with (
            client_of(first, 1, pair=True) as ada,
            client_of(second, 2) as bob,
            open_worker("ws://lb", work, instance_id="w", dial=second.dial, entropy=SeededEntropy(3)),
            ada.room("canvas:1", state=True) as here,
            bob.room("canvas:1", state=True) as there,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(listen, there, seen)
            await until(lambda: f"{ada.session}/worker" in here.members)
            await here.change(put={"a": {"x": 1, "y": [1, {"z": None}]}, "b": {"x": 1}})
            assert dict(here.records["a"]) == {"x": 1, "y": [1, {"z": None}]}
            await there.patch("a", {"x": 2, "y": None})
            await here.patch("a", {"x": 3})
            await here.remove("b")
            assert "b" not in here.records
            await here.flush()
            await there.flush()
            await until(lambda: here.position == there.position == 5)
            assert here.records == there.records
            assert {name: dict(record) for name, record in here.records.items()} == {
                "a": dict(there.records["a"]),
                "w": {"by": ada.session},
            }
            async with client_of(first, 4) as eve, eve.room("canvas:1", state=True) as late:
                assert late.records == here.records
                assert (late.position, len(late.records)) == (5, 2)
            changes = [event for event in seen if isinstance(event, RecordsChanged)]
            assert {event.member for event in changes} <= {ada.session, f"{ada.session}/worker"}
            await here.change(put={"c": {str(n): "x" * 600 for n in range(100)}})
            with pytest.raises(ValueError, match="at most 65536 bytes"):
                await here.change(put={"c": {str(n): "x" * 700 for n in range(100)}})
            with pytest.raises(ValueError, match="nothing is changed"):
                await here.change()
            nursery.cancel_scope.cancel(reason="all is seen")

    play(scene)


@pytest.mark.parametrize("how", ["drain", "cut", "kill"])
def test_each_publication_once_through_a_deploy(how: str) -> None:
    """Members publish all the time while their node is drained, their connections are cut, or the node is killed."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n0", "n1"):
            await cluster.start(name)
        balancer, stop, over = Lines(cluster, "n0"), trio.Event(), trio.Event()
        seen: dict[str, list[RoomEvent]] = {}
        said: dict[str, list[int]] = {}
        rooms: list[Room] = []

        async def talk(seed: int) -> None:
            async with (
                client_of(balancer, seed) as client,
                client.room("canvas:7", state=True, presence=seed) as room,
                trio.open_nursery() as nursery,
            ):
                rooms.append(room)
                nursery.start_soon(listen, room, seen.setdefault(client.session, []))
                mine = said[client.session] = []
                while not stop.is_set():
                    mine.append(len(mine) + 1)
                    await room.publish([client.session, mine[-1]])
                    await room.patch("count", {client.session: mine[-1]})
                    await trio.sleep(0.1)
                await room.flush()
                await over.wait()
                nursery.cancel_scope.cancel(reason="all is seen")

        async with trio.open_nursery() as nursery:
            for seed in range(4):
                nursery.start_soon(talk, seed)
            await trio.sleep(3)
            balancer.target = "n1"
            if how == "drain":
                cluster.nodes["n0"].shutdown.signal()
            elif how == "kill":
                cluster.kill("n0")
            else:
                for _ in range(4):
                    balancer.cut()
                    await trio.sleep(0.7)
            await trio.sleep(20)
            stop.set()
            last = sum(2 * len(numbers) for numbers in said.values())
            await until(lambda: {room.position for room in rooms} == {last})
            counts = [dict(room.records["count"]) for room in rooms]
            present = [sorted(room.members.values()) for room in rooms]
            over.set()
        for session, events in seen.items():
            assert not [event for event in events if isinstance(event, RoomReset | PublicationRefused)]
            for other, numbers in said.items():
                heard = [
                    event.data[1] for event in events if isinstance(event, RoomPublication) and event.member == other
                ]
                assert heard == ([] if other == session else numbers[len(numbers) - len(heard) :])
                assert other == session or len(heard) >= len(numbers) - 5
        assert counts == [{name: numbers[-1] for name, numbers in said.items()}] * 4
        assert present == [[0, 1, 2, 3]] * 4

    play(scene)


def test_the_room_of_the_user() -> None:
    """A client with `api` and a subject is in it unasked, and misses nothing over a cut."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0", auth=AUTH)
        balancer = Lines(cluster, "n0")
        seen: list[RoomEvent] = []
        async with client_of(balancer, 1, api=True, auth=token(3600, sub="ada")) as ada, trio.open_nursery() as nursery:
            await until(lambda: ada.user_room is not None)
            room = ada.user_room
            assert room is not None
            assert room.name == "user:ada"
            nursery.start_soon(listen, room, seen)
            for number in range(6):
                await post(cluster, "n0", "user:ada", b"%d" % number)
                await trio.sleep(0.5)
                if number in (1, 3):
                    balancer.cut()
            await until(lambda: len(seen) == 6)
            assert ada.user_room is room
            assert (data_of(seen), ada.connections) == ([0, 1, 2, 3, 4, 5], 3)
            nursery.cancel_scope.cancel(reason="all is seen")

    play(scene)


def test_a_document_of_opaque_updates() -> None:
    """Each member has all updates, in one order, by whichever way they come; a snapshot stands for those before it."""

    def read(document: list[bytes], event: RoomEvent) -> None:
        match event:
            case RoomUpdate(data=data, snapshot=True):
                document[:] = data.split(b",")
            case RoomUpdate(data=data) | RoomPublication(data=data, kind="update"):
                document.append(data)

    async def keep(room: Room, document: list[bytes]) -> None:
        async for event in room:
            read(document, event)

    async def scene(cluster: Cluster) -> None:
        for name in ("n0", "n1"):
            await cluster.start(name)
        first, second = Lines(cluster, "n0"), Lines(cluster, "n1")
        documents: list[list[bytes]] = [[], [], []]
        async with (
            client_of(first, 1) as ada,
            client_of(second, 2) as bob,
            client_of(second, 3) as eve,
            ada.room("doc") as here,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(keep, here, documents[0])
            for number in range(3):
                await here.publish(b"a%d" % number, kind="update")
                documents[0].append(b"a%d" % number)
            await here.flush()
            async with bob.room("doc") as there:
                nursery.start_soon(keep, there, documents[1])
                await here.publish(b"a3", kind="update")
                documents[0].append(b"a3")
                await here.flush()
                await until(lambda: len(documents[1]) == 4)
                second.cut()
                await there.publish(b"b0", kind="update")
                documents[1].append(b"b0")
                await there.flush()
                await until(lambda: documents[0] == documents[1])
                here.snapshot(5, b",".join(documents[0]))
                await here.publish(b"a4", kind="update")
                documents[0].append(b"a4")
                async with eve.room("doc") as late:
                    nursery.start_soon(keep, late, documents[2])
                    await until(lambda: documents[0] == documents[1] == documents[2])
                    late.resync()
                    await trio.sleep(1)
                    assert documents[2] == [b"a0", b"a1", b"a2", b"a3", b"b0", b"a4"]
            nursery.cancel_scope.cancel(reason="all is seen")

    play(scene)


def test_what_is_not_allowed() -> None:
    """A room that the party may not enter, one that it may only read, and names that are none."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0", auth=AUTH)
        balancer = Balancer(cluster, "n0")
        claim = {"view:*": ["join"], "talk": ["join", "publish"]}
        async with client_of(balancer, 1, auth=token(3600, rooms=claim)) as ada:
            with pytest.raises(RoomGone) as gone:
                async with ada.room("secret"):
                    pass
            assert (gone.value.room, gone.value.reason) == ("secret", "forbidden")
            for wrong in ("", "a b", "x" * 129, "~", "~é"):
                if wrong != "~":
                    with pytest.raises(ValueError, match="the name of a room"):
                        async with ada.room(wrong):
                            pass
            async with ada.room("view:1", state=True) as room, ada.room("talk") as talk:
                number = await room.put("a", {"x": 1})
                assert "a" in room.records
                assert await anext(room) == PublicationRefused(number, "forbidden")
                assert "a" not in room.records
                await room.flush()
                with pytest.raises(ValueError, match="already in"):
                    async with ada.room("talk"):
                        pass
                await talk.publish(1)
                await talk.flush()
                assert talk.position == 1

    play(scene)
