"""Members of several rooms at nodes that are drained and killed, over connections that are cut, all at random. In virtual time."""

import random
from typing import Any

import pytest
import trio

from signald.sdk.room_events import PublicationRefused, RoomEvent, RoomPublication, RoomReset
from signald.sdk.trio import Room
from signald.testing.cluster import Cluster, play
from tests.sdk.test_trio_rooms_cluster import Lines, client_of, listen, until

ROOMS = ("a", "b", "c")
MEMBERS = 4


class Crowd:
    """Clients that publish in all rooms, and what each has seen."""

    def __init__(self, lines: Lines, rng: random.Random) -> None:
        self.lines = lines
        self.rng = rng
        self.rooms: dict[tuple[str, str], Room] = {}
        """(client, room) → the room as it sees it."""
        self.seen: dict[tuple[str, str], list[RoomEvent]] = {}
        self.said: dict[tuple[str, str], int] = {}
        self.stop, self.over = trio.Event(), trio.Event()

    async def client(self, number: int, task_status: trio.TaskStatus[None]) -> None:
        """One client, in all rooms."""
        async with client_of(self.lines, number) as client, trio.open_nursery() as nursery:
            for name in ROOMS:
                nursery.start_soon(self._member, client.session, client.room(name, state=True, presence=number), number)
            task_status.started()

    async def _member(self, session: str, entering: Any, number: int) -> None:
        async with entering as room, trio.open_nursery() as nursery:
            key = (session, room.name)
            self.rooms[key], self.seen[key], self.said[key] = room, [], 0
            nursery.start_soon(listen, room, self.seen[key])
            while not self.stop.is_set():
                self.said[key] += 1
                await room.publish([session, self.said[key]])
                await self._draw(room, number, self.said[key])
                await trio.sleep(self.rng.random() * 0.5)
            await room.patch("end", {session: True})
            await room.flush()
            await self.over.wait()
            nursery.cancel_scope.cancel(reason="all is seen")

    async def _draw(self, room: Room, number: int, turn: int) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            await room.patch(rng.choice("xyz"), {room.member: turn})
        if rng.random() < 0.1:
            await room.remove(rng.choice("xyz"))
        if rng.random() < 0.3:
            room.set_presence([number, turn])

    def even(self) -> bool:
        """Tell whether each member has all of its rooms."""
        positions = {(name, room.position) for (_, name), room in self.rooms.items()}
        return len(positions) == len(ROOMS) and all(
            room.unconfirmed == 0 and len(room.records.get("end", {})) == MEMBERS for room in self.rooms.values()
        )

    def judge(self) -> None:
        """What each has seen is what each other has said, once and in order; all see the same."""
        for name in ROOMS:
            mine = [room for (_, at), room in self.rooms.items() if at == name]
            records = [{key: dict(record) for key, record in room.records.items()} for room in mine]
            assert records == [records[0]] * MEMBERS
            assert [room.members for room in mine] == [mine[0].members] * MEMBERS
        for (session, name), events in self.seen.items():
            assert not [event for event in events if isinstance(event, RoomReset | PublicationRefused)]
            for (other, at), last in self.said.items():
                if at == name:
                    heard = [
                        event.data[1]
                        for event in events
                        if isinstance(event, RoomPublication) and event.member == other
                    ]
                    assert heard == ([] if other == session else list(range(last - len(heard) + 1, last + 1)))
                    assert other == session or len(heard) > last - 10


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_all_see_the_same(seed: int) -> None:
    """Nothing is lost, doubled, reordered or refused, and the members are told of each other as they are."""
    rng = random.Random(seed)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        lines, last = Lines(cluster, "n0"), 0
        crowd = Crowd(lines, rng)
        async with trio.open_nursery() as nursery:
            for number in range(MEMBERS):
                await nursery.start(crowd.client, number)
            for _ in range(6):
                await trio.sleep(rng.random() * 4)
                blow = rng.choice(("cut", "drain", "kill"))
                if blow == "cut":
                    lines.cut()
                    continue
                await cluster.start(f"n{last + 1}")
                lines.target = f"n{last + 1}"
                if blow == "drain":
                    cluster.nodes[f"n{last}"].shutdown.signal()
                else:
                    cluster.kill(f"n{last}")
                last += 1
            await trio.sleep(15)
            crowd.stop.set()
            await until(crowd.even)
            await trio.sleep(1)
            crowd.judge()
            crowd.over.set()

    play(scene, seed)
