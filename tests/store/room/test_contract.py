"""What every store must do about a room, one rule of `signald/store/room/ops.py` after the other."""

from typing import Any

import pytest
from msgspec.structs import replace

from signald.core.rooms import (
    DEPARTED_MAX,
    ENTRY_BYTES,
    KEYS_MAX,
    REFUSALS_MAX,
    Entry,
    Fault,
    Member,
    Offer,
    Publication,
    Record,
    is_dense,
    is_picture,
)
from signald.store.base import CLOCK_SET_MS, WAKE_ROOM, Behind, Done, Fenced, Refused
from signald.store.registry.agenda.ops import Due, Schedule, Settle, TakeDue
from signald.store.room.ops import (
    DropMembers,
    Joined,
    LeaveRoom,
    LookRoom,
    NoRoom,
    NotMember,
    Posted,
    PresenceOld,
    PresenceSet,
    Published,
    ReadRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    RoomHistory,
    RoomLooked,
    RoomOver,
    RoomRead,
    RoomSwept,
    SetPresence,
    SnapshotRoom,
    SweepRoom,
)
from tests.store.ops import BOUNDS, NOW_MS, ROOM, SESSION, join_room, post, publication, publish, token
from tests.store.scenes import NO_WAKES
from tests.store.worlds import World

OTHER = "s_2"
WAKE = WAKE_ROOM + ROOM.encode()
KEEP_MS = BOUNDS.keep_ms
FIRST = Joined("e1", 0, 0, 0, 0, 1, 1, 1, False, True, ())
RED = (("color", b'"red"'), ("x", b"1"))


async def look(world: World, after: int = 0, turn: int = 0, limit: int = 100) -> RoomLooked:
    """Read what is new for a node, which is the same at both."""
    found = await world.ask(LookRoom(ROOM, after, turn, limit, NOW_MS), at="a")
    assert isinstance(found, RoomLooked)
    assert await world.ask(LookRoom(ROOM, after, turn, limit, NOW_MS), at="b") == found
    return found


async def bodies(world: World, after: int = 0) -> list[tuple[int, str, bytes]]:
    """Return what the log has, by position."""
    return [(entry.position, entry.member, entry.publication.body) for entry in (await look(world, after)).entries]


async def records(world: World, after: int = 0) -> dict[str, tuple[int, Any]]:
    """Read all records and removals behind `after` in pages of two, which are one picture."""
    found: dict[str, tuple[int, Any]] = {}
    cursor = after
    begun = (await world.ask(ReadRoomState(ROOM, cursor, 2, NOW_MS))).position
    while True:
        page = await world.ask(ReadRoomState(ROOM, cursor, 2, NOW_MS))
        found |= {name: (record.position, record.properties) for name, record in page.records}
        if page.upto == page.position:
            assert is_picture(after, begun, page.horizon)
            return found
        assert page.upto > cursor
        cursor = page.upto


async def read(world: World) -> RoomRead:
    """Read what the room has."""
    found = await world.ask(ReadRoom(ROOM, 100, NOW_MS))
    assert isinstance(found, RoomRead)
    return found


class TestJoinRoom:
    """A member takes its seat."""

    async def test_first(self, world: World) -> None:
        """The first join makes the room, with the epoch that it brings."""
        assert await world.ask(ReadRoom(ROOM, 9, NOW_MS)) == NoRoom()
        assert await world.ask(join_room(presence=b'{"n":1}')) == FIRST
        assert await read(world) == RoomRead("e1", 0, 0, 0, 0, 0, 0, 1, (Member(SESSION, b'{"n":1}', True),), ("a",))
        assert await world.woken() == NO_WAKES

    async def test_another_room(self, world: World) -> None:
        """Rooms have nothing in common."""
        await world.do(join_room(), publish(publication()))
        assert await world.ask(join_room(room="canvas:2", new_epoch="e2")) == replace(FIRST, epoch="e2")
        assert await world.ask(LookRoom("canvas:2", 0, 0, 9, NOW_MS)) == RoomLooked(
            "e2", 0, 0, (), 0, 1, True, (Member(SESSION, b"", True),), (), 1
        )

    async def test_repeated(self, world: World) -> None:
        """The same nonce gets the same seat; what came between stays."""
        join = join_room(presence=b"1")
        assert await world.do(join, join) == [FIRST, FIRST]
        await world.do(SetPresence(ROOM, SESSION, "a", 1, b"2"), publish(publication()))
        again = await world.ask(join)
        assert again == replace(FIRST, position=1, turn=2, next_seq=2)
        assert (await look(world)).members == (Member(SESSION, b"2", True),)

    async def test_others_are_woken(self, world: World) -> None:
        """Each node with members is woken once, and the caller is not; a node without members hears nothing."""
        await world.ask(join_room())
        assert await world.ask(join_room(OTHER, node="b"), at="b") == replace(FIRST, turn=2, members=2)
        assert await world.woken(at="b") == {"a": [WAKE], "b": []}
        await world.do(LeaveRoom(ROOM, OTHER, "b", 1, KEEP_MS, NOW_MS), at="b")
        assert await world.woken(at="b") == {"a": [WAKE], "b": []}
        await world.ask(publish(publication()))
        assert await world.woken() == NO_WAKES

    async def test_handover(self, world: World) -> None:
        """A member moves with its seat: it goes on with its seqs, and no other member is told."""
        await world.do(join_room(presence=b"1"), join_room(OTHER), publish(publication()))
        before = await look(world)
        moved = join_room(node="b", epoch=2, nonce="move", known_epoch="e1", received=1)
        assert await world.ask(moved, at="b") == Joined("e1", 1, 0, 0, 0, 2, 2, 2, True, False, ())
        assert await world.woken(at="b") == NO_WAKES
        assert await look(world) == before
        assert await look(world, 1, 2) == replace(before, entries=(), members=(), whole=False)
        assert (await read(world)).nodes == ("a", "b")
        assert await world.ask(publish(publication(2))) == Fenced(2)
        assert await world.ask(publish(publication(2), node="b", epoch=2), at="b") == Published(2, 2, (), 0)
        assert await world.woken(at="b") == {"a": [WAKE], "b": []}

    async def test_handover_with_a_presence(self, world: World) -> None:
        """What a member says of itself when it comes back is told when it is another."""
        await world.do(join_room(presence=b"1"), join_room(OTHER))
        await world.ask(join_room(epoch=2, nonce="n2", presence=b"1"))
        assert (await look(world, 0, 2)).members == ()
        await world.ask(join_room(epoch=3, nonce="n3", presence=b"3"))
        assert (await look(world, 0, 2)).members == (Member(SESSION, b"3", False),)

    async def test_superseded(self, world: World) -> None:
        """An older connection takes no seat, and neither does another node under the same one."""
        await world.ask(join_room(epoch=3))
        assert await world.ask(join_room(epoch=2, nonce="late")) == Fenced(3)
        assert await world.ask(join_room(epoch=3, node="b", nonce="other"), at="b") == Fenced(3)
        assert await world.ask(join_room(epoch=3, nonce="again")) == FIRST

    async def test_full(self, world: World) -> None:
        """A room has so many members, and one that is there already comes in."""
        await world.do(*[join_room(f"s_{n}", nonce=f"n{n}") for n in range(BOUNDS.members_max)])
        assert await world.ask(join_room("s_more")) == Refused("room_full")
        assert isinstance(await world.ask(join_room("s_0", epoch=2, nonce="move")), Joined)
        await world.ask(LeaveRoom(ROOM, "s_1", "a", 1, KEEP_MS, NOW_MS))
        assert isinstance(await world.ask(join_room("s_more")), Joined)

    async def test_full_from_the_beginning(self, world: World) -> None:
        """A refused member makes no room."""
        assert await world.ask(join_room(bounds=replace(BOUNDS, members_max=0))) == Refused("room_full")
        assert await world.ask(ReadRoom(ROOM, 9, NOW_MS)) == NoRoom()

    @pytest.mark.parametrize(
        ("known", "received", "recovered"),
        [("e1", 12, True), ("e1", 2, True), ("e1", 1, False), ("e1", 13, False), ("e0", 12, False), ("", 12, False)],
    )
    async def test_all_or_nothing(self, world: World, known: str, received: int, recovered: bool) -> None:
        """A member that comes back gets each publication that it has missed, or is told that not all are kept."""
        await world.do(join_room(), publish(*[publication(seq) for seq in range(1, 13)]))
        joined = await world.ask(join_room(OTHER, known_epoch=known, received=received))
        assert (joined.position, joined.floor, joined.recovered, joined.wipe) == (12, 2, recovered, not recovered)
        if recovered:
            assert is_dense((await look(world, received)).entries, received, 12)

    async def test_last_publications_lost(self, world: World) -> None:
        """A node has told more than the room has: the room gets another epoch, once, and the other members are woken."""
        other = join_room(OTHER, node="b", nonce="other")
        await world.do(join_room(), other, publish(publication(), publication(2)))
        await world.woken()
        again = join_room(epoch=2, nonce="n2", new_epoch="e2", known_epoch="e1", received=2, told=2)
        assert (await world.ask(again)).epoch == "e1", "it has come so far"
        again = replace(again, epoch=3, nonce="n3", received=3, told=3)
        lost = Joined("e2", 2, 0, 0, 0, 2, 2, 3, False, True, ())
        assert await world.do(again, again) == [lost, lost]
        assert await world.woken() == {"a": [], "b": [WAKE]}
        late = join_room(OTHER, node="b", epoch=2, nonce="n4", new_epoch="e3", known_epoch="e1", received=2, told=3)
        assert await world.ask(late) == replace(lost, next_seq=1), "it is another room already"
        fenced = join_room(OTHER, epoch=1, nonce="n5", new_epoch="e4", known_epoch="e2", told=9)
        assert await world.ask(fenced) == Fenced(2)
        assert (await look(world)).epoch == "e2"

    async def test_removals_forgotten(self, world: World) -> None:
        """A member that may not hear of each removal gets all records instead."""
        names = [f"r{n}" for n in range(5)]
        puts = publication(1, put=dict.fromkeys(names, RED))
        removes = [publication(2 + n, remove=(name,)) for n, name in enumerate(names)]
        await world.do(join_room(), publish(puts, *removes))
        assert (await read(world)).horizon == 3
        early, late = await world.do(
            join_room(OTHER, known_epoch="e1", received=2), join_room("s_3", known_epoch="e1", received=3)
        )
        assert (early.recovered, early.wipe, late.recovered, late.wipe) == (True, True, True, False)


class TestLeaveRoom:
    """A member gives its seat up."""

    async def test_left(self, world: World) -> None:
        """It is told once; a repetition changes nothing, and neither does one that was never there."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        await world.woken()
        leave = LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS)
        assert await world.do(leave, leave, replace(leave, member="s_9"), replace(leave, room="none")) == [Done()] * 4
        assert await world.woken() == {"a": [], "b": [WAKE]}
        found = await look(world, 0, 2)
        assert (found.turn, found.departed, found.members, found.members_count) == (3, (SESSION,), (), 1)
        assert await world.ask(publish(publication())) == NotMember()

    async def test_superseded(self, world: World) -> None:
        """A late departure of an older connection takes no seat."""
        await world.do(join_room(), join_room(node="b", epoch=2, nonce="move"))
        assert await world.ask(LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS)) == Fenced(2)
        assert (await look(world)).members_count == 1
        assert (await read(world)).nodes == ("b",)

    async def test_comes_back(self, world: World) -> None:
        """One that has left and is back is a member that has joined, with seqs of its own."""
        await world.do(join_room(), join_room(OTHER), publish(publication(1), publication(2)))
        await world.ask(LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS))
        assert (await world.ask(join_room(nonce="again"))).next_seq == 1
        found = await look(world, 0, 2)
        assert (found.members, found.departed) == ((Member(SESSION, b"", True),), ())
        assert await world.ask(publish(publication(1))) == Published(1, 3, (), 0)

    async def test_many(self, world: World) -> None:
        """A node that is further behind than departures are remembered reads all members."""
        await world.ask(join_room())
        for number in range(DEPARTED_MAX + 1):
            await world.do(join_room(OTHER, nonce=f"n{number}"), LeaveRoom(ROOM, OTHER, "a", 1, KEEP_MS, NOW_MS))
        whole, part = await look(world, 0, 2), await look(world, 0, 3)
        assert (whole.whole, whole.members, whole.departed) == (True, (Member(SESSION, b"", True),), ())
        assert (part.whole, part.members, part.departed) == (False, (), (OTHER,))


class TestDropMembers:
    """A session ends."""

    async def test_both_parties(self, world: World) -> None:
        """Both parties of the session are gone, wherever they are, and no other."""
        worker = SESSION + "/worker"
        await world.do(join_room(), join_room(worker, node="b", epoch=9), join_room(OTHER, node="b"))
        await world.woken()
        drop = DropMembers(ROOM, SESSION, "a", KEEP_MS, NOW_MS)
        assert await world.do(drop, drop) == [Done()] * 2
        assert await world.woken() == {"a": [], "b": [WAKE]}
        found = await look(world, 0, 3)
        assert (found.departed, found.members_count) == ((SESSION, worker), 1)
        assert (await read(world)).nodes == ("b",)


class TestPublish:
    """A member says something."""

    async def test_in_order(self, world: World) -> None:
        """Positions are dense over all publishers; each node with members is woken once."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        await world.woken()
        assert await world.ask(publish(publication(1), publication(2))) == Published(2, 2, (), 0)
        assert await world.woken() == {"a": [], "b": [WAKE]}
        assert await world.ask(publish(publication(1, b"b"), member=OTHER, node="b")) == Published(1, 3, (), 0)
        assert await world.ask(publish(publication(3))) == Published(3, 4, (), 0)
        assert await bodies(world) == [(1, SESSION, b"m1"), (2, SESSION, b"m2"), (3, OTHER, b"b"), (4, SESSION, b"m3")]
        assert (await look(world, 2, 2, 1)).entries == (Entry(3, OTHER, NOW_MS, publication(1, b"b")),)
        assert (await look(world, 2, 2, 1)).upto == 3

    async def test_repeated(self, world: World) -> None:
        """What is repeated is there once, also when more follows."""
        await world.ask(join_room())
        op = publish(publication(1), publication(2))
        assert await world.do(op, op) == [Published(2, 2, (), 0)] * 2
        await world.woken()
        assert await world.ask(publish(publication(1, b"other"), publication(2), publication(3))) == Published(
            3, 3, (), 0
        )
        assert [body for _, _, body in await bodies(world)] == [b"m1", b"m2", b"m3"]

    async def test_gap(self, world: World) -> None:
        """What is before a gap is taken, and nothing behind it."""
        await world.ask(join_room())
        assert await world.ask(publish(publication(2))) == Published(0, 0, (), 1)
        assert await world.ask(publish(publication(1), publication(3))) == Published(1, 1, (), 2)
        assert await world.ask(publish(publication(2), publication(3))) == Published(3, 3, (), 0)

    async def test_refused(self, world: World) -> None:
        """A refused publication uses up its seq, takes no position, and stops none behind it; the answer is the same again."""
        await world.ask(join_room())
        op = publish(*[publication(seq) for seq in (1, 2, 3)], faults={2: "bad_record"})
        assert await world.do(op, op) == [Published(3, 2, ((2, "bad_record"),), 0)] * 2
        assert await bodies(world) == [(1, SESSION, b"m1"), (2, SESSION, b"m3")]
        joined = await world.ask(join_room(epoch=2, nonce="again"))
        assert (joined.next_seq, joined.refused) == (4, ((2, "bad_record"),))

    async def test_one_step_is_as_several(self, world: World) -> None:
        """Publications of all kinds in one step leave the room as those of a step each do: log, records, removals, seat and bounds."""
        bounds = replace(BOUNDS, history_messages_max=3, tombstones_max=1)
        many = (
            publication(1), publication(2, put={"s": RED, "t": RED}), publication(3), publication(4, remove=("s",)), publication(5),
            publication(6, remove=("t",)), publication(7, put={"t": RED}), publication(8), publication(9), publication(10, remove=("t",)),
            publication(11), publication(12),
        )  # fmt: skip
        faults: dict[int, Fault] = {3: "rate", 9: "forbidden"}
        found = []
        for room, steps in (("one", [many]), ("several", [(each,) for each in many])):
            await world.ask(join_room(room=room))
            answers = [await world.ask(publish(*said, room=room, bounds=bounds, faults=faults)) for said in steps]
            assert (answers[-1].seq, answers[-1].position) == (12, 10)
            found.append(
                await world.do(
                    LookRoom(room, 7, 0, 99, NOW_MS),
                    ReadRoom(room, 99, NOW_MS),
                    ReadRoomState(room, 0, 99, NOW_MS),
                    join_room(room=room, epoch=2, nonce="again"),
                )
            )
        assert found[0] == found[1]
        assert (found[0][1].position, found[0][1].floor) == (10, 7)

    async def test_all_refused(self, world: World) -> None:
        """When nothing is stored, no node is woken."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        await world.woken()
        assert await world.ask(publish(publication(1), faults={1: "forbidden"})) == Published(
            1, 0, ((1, "forbidden"),), 0
        )
        assert await world.woken() == NO_WAKES

    async def test_refusals_remembered(self, world: World) -> None:
        """Only the last refusals are remembered."""
        await world.ask(join_room())
        seqs = range(1, REFUSALS_MAX + 3)
        await world.ask(publish(*map(publication, seqs), faults=dict.fromkeys(seqs, "rate")))
        joined = await world.ask(join_room(epoch=2, nonce="again"))
        assert [seq for seq, _ in joined.refused] == list(seqs)[2:]

    async def test_fenced(self, world: World) -> None:
        """An older connection, another node, and one that the store has not heard of publish nothing."""
        await world.ask(join_room(epoch=2))
        assert await world.do(
            publish(publication()), publish(publication(), node="b", epoch=2), publish(publication(), epoch=3)
        ) == [Fenced(2), Fenced(2), Behind(2)]
        assert (
            await world.do(publish(publication(), member=OTHER), publish(publication(), room="none"))
            == [NotMember()] * 2
        )
        assert await bodies(world) == []

    async def test_history_bounds(self, world: World) -> None:
        """The oldest go, by number or by bytes, and the last stays however large it is."""
        await world.do(join_room(), publish(*[publication(seq) for seq in range(1, 13)]))
        assert [position for position, _, _ in await bodies(world)] == list(range(3, 13))
        await world.ask(publish(publication(13, b"x" * 500)))
        kept = [position for position, _, _ in await bodies(world)]
        assert kept == list(range(7, 14))
        assert BOUNDS.history_bytes_max >= 500 + ENTRY_BYTES + 6 * (ENTRY_BYTES + 3)
        await world.ask(publish(publication(14, b"x" * 2000)))
        assert (await look(world)).floor == 13
        assert [position for position, _, _ in await bodies(world)] == [14]


class TestRecords:
    """What becomes of records."""

    async def test_fold(self, world: World) -> None:
        """Put, patch, remove, in this order; properties keep their place; `null` removes one."""
        await world.ask(join_room())
        said = publication(
            1, put={"a": RED, "b": RED}, patch={"a": (("x", b"2"), ("y", b"3")), "c": (("z", b"[1]"), ("q", b"null"))},
            remove=("b", "none"),
        )  # fmt: skip
        assert await world.ask(publish(said)) == Published(1, 1, (), 0)
        assert await records(world) == {
            "a": (1, (("color", b'"red"'), ("x", b"2"), ("y", b"3"))),
            "c": (1, (("z", b"[1]"),)),
        }
        await world.ask(publish(publication(2, patch={"a": (("x", b"null"),)}), publication(3, put={"c": ()})))
        assert await records(world) == {"a": (2, (("color", b'"red"'), ("y", b"3"))), "c": (3, ())}
        assert (await look(world)).entries[0].publication == said
        assert (await read(world)).records == 2
        assert (await read(world)).bytes == len("ac" + "color" + '"red"' + "y3")

    async def test_last_writer(self, world: World) -> None:
        """Two members change one record: each property is as its last writer said."""
        await world.do(join_room(), join_room(OTHER))
        await world.do(
            publish(publication(1, put={"a": RED})),
            publish(publication(1, patch={"a": (("x", b"7"),)}), member=OTHER),
            publish(publication(2, patch={"a": (("color", b'"blue"'),)})),
        )
        assert await records(world) == {"a": (3, (("color", b'"blue"'), ("x", b"7")))}

    async def test_removed(self, world: World) -> None:
        """A removal is told behind its position; a record that is put again is one."""
        await world.ask(join_room())
        await world.ask(publish(publication(1, put={"a": RED, "b": RED}), publication(2, remove=("a",))))
        assert await records(world) == {"a": (2, None), "b": (1, RED)}
        assert await records(world, 1) == {"a": (2, None)}
        await world.ask(publish(publication(3, patch={"a": (("x", b"1"),)})))
        assert await records(world, 1) == {"a": (3, (("x", b"1"),))}

    async def test_tombstones_bounded(self, world: World) -> None:
        """The oldest removals are forgotten, which the horizon says."""
        await world.ask(join_room())
        for number in range(5):
            names = {f"r{number}": RED}
            await world.ask(
                publish(publication(1 + 2 * number, put=names), publication(2 + 2 * number, remove=tuple(names)))
            )
        assert await records(world, 4) == {f"r{number}": (2 + 2 * number, None) for number in (2, 3, 4)}
        assert (await read(world)).horizon == 4

    async def test_tombstones_of_a_lowered_bound(self, world: World) -> None:
        """A removal above the bound is forgotten with the first publication, though the next one brings its record back."""
        await world.ask(join_room())
        await world.ask(publish(publication(1, put={"a": RED, "b": RED}), publication(2, remove=("a",))))
        await world.ask(publish(publication(3, remove=("b",))))
        bounds = replace(BOUNDS, tombstones_max=1)
        await world.ask(publish(publication(4), publication(5, put={"a": RED}), bounds=bounds))
        assert (await read(world)).horizon == 2
        assert await records(world, 3) == {"a": (5, RED)}

    async def test_pages(self, world: World) -> None:
        """Records that change between two pages move to a later one, and the picture is whole; a page ends with a position."""
        await world.do(join_room(), publish(*[publication(n, put={f"r{n}": RED}) for n in (1, 2, 3)]))
        await world.ask(publish(publication(4, put={"x": RED, "y": RED})))
        first = await world.ask(ReadRoomState(ROOM, 0, 2, NOW_MS))
        assert ([name for name, _ in first.records], first.upto, first.position) == (["r1", "r2"], 2, 4)
        await world.ask(publish(publication(5, patch={"r1": (("x", b"5"),)}), publication(6, remove=("r2",))))
        second = await world.ask(ReadRoomState(ROOM, 2, 2, NOW_MS))
        assert ([name for name, _ in second.records], second.upto) == (["r3", "x", "y"], 4)
        third = await world.ask(ReadRoomState(ROOM, 4, 9, NOW_MS))
        assert third.records == (("r1", Record(5, (("color", b'"red"'), ("x", b"5")))), ("r2", Record(6, None)))
        assert (third.upto, third.position) == (6, 6)

    async def test_too_big(self, world: World) -> None:
        """A record that would be too large is refused, and what it was stays."""
        await world.do(join_room(), publish(publication(1, put={"a": RED})))
        large = (("text", b"%99d" % 1),)
        assert await world.ask(
            publish(publication(2, patch={"a": large}), publication(3, put={"b": large}), publication(4))
        ) == Published(4, 2, ((2, "too_big"), (3, "too_big")), 0)
        assert await records(world) == {"a": (1, RED)}

    async def test_full(self, world: World) -> None:
        """A room that is full takes what makes it no fuller."""
        five = {f"r{n}": (("x", b"%60d" % n),) for n in range(5)}
        assert await world.do(join_room(), publish(publication(1, put=five))) == [FIRST, Published(1, 1, (), 0)]
        assert await world.ask(
            publish(
                publication(2, put={"more": ()}),
                publication(3, patch={"r0": (("y", b"%89d" % 0),)}),
                publication(4, put={"r1": (("x", b"1"),)}),
                publication(5, patch={"r0": (("y", b"%20d" % 0),)}),
                publication(6, put={"more": RED}, remove=("r0",)),
            )
        ) == Published(6, 4, ((2, "room_full"), (3, "too_big")), 0)
        assert set(await records(world, 1)) == {"r0", "r1", "more"}

    async def test_full_of_bytes(self, world: World) -> None:
        """The bytes of all records are bounded."""
        bounds = replace(BOUNDS, room_bytes_max=20)
        await world.do(join_room(), publish(publication(1, put={"a": RED}), bounds=bounds))
        assert await world.ask(
            publish(publication(2, put={"b": RED}), publication(3, patch={"a": (("x", b"2"),)}), bounds=bounds)
        ) == Published(3, 2, ((2, "room_full"),), 0)

    async def test_tighter_bounds(self, world: World) -> None:
        """A room that has more than it may now takes what makes it smaller, and what leaves it as large."""
        await world.do(join_room(), publish(publication(1, put={"a": RED, "b": RED})))
        tight = replace(BOUNDS, records_max=1, room_bytes_max=5)
        said = publication(2, patch={"a": (("x", b"2"),)}), publication(3, remove=("a",)), publication(4)
        assert await world.ask(publish(*said, bounds=tight)) == Published(4, 4, (), 0)


class TestPost:
    """A service publishes."""

    async def test_makes_the_room(self, world: World) -> None:
        """It needs no member, and no seq; the room is kept for its time."""
        assert await world.ask(post()) == Posted(1)
        assert await world.ask(post(publication(0, put={"a": RED}))) == Posted(2)
        assert await bodies(world) == [(1, "", b"post"), (2, "", b"")]
        assert await records(world) == {"a": (2, RED)}
        assert await world.ask(ReadRoom(ROOM, 9, NOW_MS + KEEP_MS)) == NoRoom()

    async def test_author(self, world: World) -> None:
        """It may be of a party, which needs no seat, and whose seqs are as before."""
        await world.ask(join_room())
        assert await world.ask(post(member=SESSION)) == Posted(1)
        assert await world.ask(post(member="s_9/worker")) == Posted(2)
        assert await bodies(world) == [(1, SESSION, b"post"), (2, "s_9/worker", b"post")]
        published = await world.ask(publish(publication(1, b"own")))
        assert isinstance(published, Published)
        assert (published.seq, published.position) == (1, 3)

    async def test_key(self, world: World) -> None:
        """A key is used once; without one each call counts."""
        assert await world.do(post(key=token("k")), post(key=token("l")), post(key=token("k")), post(), post()) == [
            Posted(1), Posted(2), Posted(1, replayed=True), Posted(3), Posted(4),
        ]  # fmt: skip

    async def test_key_of_other_content(self, world: World) -> None:
        """A key belongs to the content of its first use, and what is refused for it changes nothing."""
        first, other = (post(key=token("k"), content=token(said)) for said in "ab")
        assert await world.do(first, other, first) == [Posted(1), Refused("key_taken"), Posted(1, replayed=True)]
        assert await bodies(world) == [(1, "", b"post")]

    async def test_makes_none(self, world: World) -> None:
        """A room that has no place in the agenda yet is not made."""
        assert await world.do(post(makes=False), post(), post(makes=False)) == [NoRoom(), Posted(1), Posted(2)]

    async def test_keys_bounded(self, world: World) -> None:
        """The oldest keys are forgotten."""
        await world.do(*[post(key=b"k%d" % number) for number in range(KEYS_MAX + 1)])
        assert await world.do(post(key=b"k1"), post(key=b"k0")) == [Posted(2, replayed=True), Posted(KEYS_MAX + 2)]

    async def test_members_are_woken(self, world: World) -> None:
        """Each node with members hears of it, but the caller."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        await world.woken()
        await world.ask(post(key=token("k"), node="c"))
        assert await world.woken() == {"a": [WAKE], "b": [WAKE]}
        await world.ask(post(key=token("k"), node="c"))
        assert await world.woken() == NO_WAKES

    async def test_refused(self, world: World) -> None:
        """What is refused makes no room, and uses no key."""
        large = publication(0, put={"a": (("x", b"%99d" % 1),)})
        assert await world.ask(post(large, key=token("k"))) == Refused("too_big")
        assert await world.ask(ReadRoom(ROOM, 9, NOW_MS)) == NoRoom()
        assert await world.ask(post(key=token("k"))) == Posted(1)


class TestSetPresence:
    """What others see of a member."""

    async def test_changed(self, world: World) -> None:
        """The latest counts; the same as before is told to no node."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        await world.woken()
        say = SetPresence(ROOM, SESSION, "a", 1, b'{"x":1}')
        assert await world.do(say, say) == [PresenceSet(3)] * 2
        assert await world.woken() == {"a": [], "b": [WAKE]}
        assert await world.ask(say) == PresenceSet(3)
        assert await world.woken() == NO_WAKES
        found = await look(world, 0, 2)
        assert (found.turn, found.whole, found.members) == (3, False, (Member(SESSION, b'{"x":1}', False),))
        assert (await look(world, 0, 1)).members == (Member(OTHER, b"", True), Member(SESSION, b'{"x":1}', False))

    async def test_fenced(self, world: World) -> None:
        """Only the connection that has the seat speaks."""
        await world.ask(join_room(epoch=2))
        assert await world.do(
            SetPresence(ROOM, SESSION, "a", 1, b"1"), SetPresence(ROOM, SESSION, "b", 2, b"1"),
            SetPresence(ROOM, SESSION, "a", 3, b"1"), SetPresence(ROOM, OTHER, "a", 2, b"1"),
        ) == [Fenced(2), Fenced(2), Behind(2), NotMember()]  # fmt: skip

    async def test_late(self, world: World) -> None:
        """An operation that comes once more behind a later one changes nothing, and its node learns the turn of that one."""
        await world.do(join_room(), join_room(OTHER, node="b"))
        first, second = (SetPresence(ROOM, SESSION, "a", 1, said, after) for said, after in ((b"1", 2), (b"2", 3)))
        assert await world.do(first, first, second) == [PresenceSet(3), PresenceSet(3), PresenceSet(4)]
        await world.woken()
        assert await world.do(first, second) == [PresenceOld(4), PresenceSet(4)]
        assert await world.woken() == NO_WAKES
        assert (await look(world, 0, 2)).members == (Member(SESSION, b"2", False),)

    async def test_of_the_future(self, world: World) -> None:
        """A node that knows a later turn than there is, from a room that is lost, reads all."""
        await world.ask(join_room())
        assert (await look(world, 0, 9)).whole
        assert (await look(world, 9, 1)).entries == ()


class TestHistory:
    """Pages of the log."""

    async def test_pages(self, world: World) -> None:
        """The last ones first, oldest first within a page, down to what is kept."""
        await world.do(join_room(), publish(*[publication(seq) for seq in range(1, 13)]))
        pages = []
        before = 0
        while True:
            page = await world.ask(ReadRoomHistory(ROOM, before, 4, NOW_MS))
            pages.append([entry.position for entry in page.entries])
            before = page.next
            if not before:
                break
        assert pages == [[9, 10, 11, 12], [5, 6, 7, 8], [3, 4]]
        assert await world.ask(ReadRoomHistory(ROOM, 2, 4, NOW_MS)) == RoomHistory((), 0)
        assert await world.ask(ReadRoomHistory("none", 0, 4, NOW_MS)) == NoRoom()


def update(seq: int, body: bytes = b"u") -> Publication:
    """An update."""
    return publication(seq, body, update=True)


class TestUpdates:
    """Opaque updates and their snapshot."""

    async def updates(self, world: World, after: int = 0, limit: int = 100) -> tuple[int, bytes, list[int], int]:
        """Read the snapshot and the updates behind it."""
        found = await world.ask(ReadRoomUpdates(ROOM, after, limit, NOW_MS))
        return found.snapshot, found.body, [entry.position for entry in found.updates], found.upto

    async def test_kept_behind_the_snapshot(self, world: World) -> None:
        """An update outlives the log until a snapshot stands for it."""
        bounds = replace(BOUNDS, room_bytes_max=5000)
        said = [update(1), *[publication(seq) for seq in range(2, 14)], update(14)]
        await world.do(join_room(), publish(*said, bounds=bounds))
        assert await self.updates(world) == (0, b"", [1, 14], 14)
        assert await self.updates(world, limit=1) == (0, b"", [1], 1)
        assert await self.updates(world, after=1) == (0, b"", [14], 14)
        assert (await read(world)).bytes == 2 * (ENTRY_BYTES + 1)
        snapshot = SnapshotRoom(ROOM, SESSION, "a", 1, 13, b"S", bounds)
        assert await world.do(snapshot, snapshot) == [Done()] * 2
        assert await self.updates(world) == (13, b"S", [14], 14)
        assert await self.updates(world, after=13) == (13, b"", [14], 14)
        assert (await read(world)).bytes == ENTRY_BYTES + 2
        await world.ask(publish(*[publication(seq) for seq in range(15, 30)]))
        assert await self.updates(world) == (13, b"S", [14], 29)
        assert (await world.ask(join_room(OTHER))).snapshot == 13

    async def test_leaves_the_log_alone(self, world: World) -> None:
        """A log from which only updates go begins behind them at once, though they are kept."""
        bounds = replace(BOUNDS, history_messages_max=2)
        await world.do(join_room(), publish(update(1), update(2), update(3), bounds=bounds))
        assert (await look(world)).floor == 1
        assert [position for position, _, _ in await bodies(world)] == [2, 3]
        assert (await world.ask(join_room(OTHER))).floor == 1
        assert await world.ask(ReadRoomHistory(ROOM, 0, 2, NOW_MS)) == RoomHistory((await look(world)).entries, 0)
        assert await self.updates(world) == (0, b"", [1, 2, 3], 3)

    async def test_still_in_the_log(self, world: World) -> None:
        """An update that a snapshot stands for is shown as long as the log has it."""
        await world.do(join_room(), publish(update(1), update(2)))
        await world.ask(SnapshotRoom(ROOM, SESSION, "a", 1, 2, b"S", BOUNDS))
        assert await self.updates(world) == (2, b"S", [], 2)
        assert [position for position, _, _ in await bodies(world)] == [1, 2]
        await world.ask(publish(*[publication(seq) for seq in range(3, 13)]))
        assert [position for position, _, _ in await bodies(world)] == list(range(3, 13))
        assert await self.updates(world) == (2, b"S", [], 12)

    async def test_refused(self, world: World) -> None:
        """A snapshot of what is to come, of less than there is, or too large, and one of an older connection."""
        await world.do(join_room(epoch=2), publish(update(1), update(2), epoch=2))
        snapshot = SnapshotRoom(ROOM, SESSION, "a", 2, 2, b"S", BOUNDS)
        assert await world.do(
            replace(snapshot, position=3), replace(snapshot, body=b"x" * 401), snapshot, replace(snapshot, position=1),
            replace(snapshot, epoch=1), replace(snapshot, epoch=3), replace(snapshot, member=OTHER),
        ) == [
            Refused("bad_position"), Refused("room_full"), Done(), Refused("stale"), Fenced(2), Behind(2), NotMember(),
        ]  # fmt: skip

    async def test_full(self, world: World) -> None:
        """A room that is full of updates takes no more until a snapshot makes room."""
        await world.ask(join_room())
        said = [update(seq, b"x" * 36) for seq in range(1, 6)]
        assert await world.ask(publish(*said, publication(6))) == Published(6, 5, ((5, "room_full"),), 0)
        await world.ask(SnapshotRoom(ROOM, SESSION, "a", 1, 5, b"S", BOUNDS))
        assert await world.ask(publish(update(7))) == Published(7, 6, (), 0)


class TestLife:
    """How long a room is kept."""

    async def test_without_members(self, world: World) -> None:
        """A room is kept for its time after its last member has left, and then there is another one."""
        await world.do(join_room(), publish(publication(1, put={"a": RED})))
        assert await world.do(join_room(OTHER), SweepRoom(ROOM, NOW_MS + 10**9)) == [
            Joined("e1", 1, 0, 0, 0, 2, 2, 1, False, True, ()),
            RoomSwept(0, 2),
        ]
        await world.ask(DropMembers(ROOM, OTHER, "a", KEEP_MS, NOW_MS))
        assert await world.ask(SweepRoom(ROOM, NOW_MS + 10**9)) == RoomSwept(0, 1)
        await world.ask(LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS))
        over_ms = NOW_MS + KEEP_MS
        assert await world.do(SweepRoom(ROOM, over_ms - 1), ReadRoom(ROOM, 0, over_ms)) == [
            RoomSwept(over_ms),
            NoRoom(),
        ]
        known = join_room(nonce="n2", known_epoch="e1", received=1, new_epoch="e2")
        back = await world.ask(replace(known, now_ms=over_ms - 1))
        assert (back.epoch, back.recovered) == ("e1", True)
        await world.ask(LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS))
        late = await world.ask(replace(known, now_ms=over_ms))
        assert (late.epoch, late.position, late.recovered, late.wipe, late.turn) == ("e2", 0, False, True, 1)
        assert await records(world) == {}

    async def test_nothing_published(self, world: World) -> None:
        """A room in which nothing was published is over with its last member, and says so each time."""
        await world.do(join_room(), join_room(OTHER))
        leave, drop = LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS), DropMembers(ROOM, OTHER, "a", KEEP_MS, NOW_MS)
        assert await world.do(leave, drop, drop, leave) == [Done(), RoomOver(), RoomOver(), RoomOver()]
        assert await world.do(ReadRoom(ROOM, 9, NOW_MS), join_room(makes=False)) == [NoRoom(), NoRoom()]
        assert (await world.ask(join_room(new_epoch="e2", known_epoch="e1"))).epoch == "e2"
        await world.do(publish(publication()), replace(leave, now_ms=NOW_MS + 5))
        assert await world.ask(SweepRoom(ROOM, NOW_MS + 5)) == RoomSwept(NOW_MS + 5 + KEEP_MS)

    async def test_makes_none(self, world: World) -> None:
        """A join that may not make a room gets its seat in one that stands."""
        assert await world.ask(join_room(makes=False)) == NoRoom()
        await world.ask(join_room(OTHER))
        assert (await world.ask(join_room(makes=False))).members == 2

    async def test_swept(self, world: World) -> None:
        """A sweep at the time removes it, and a sweep of no room says never."""
        await world.ask(post())
        assert await world.do(*[SweepRoom(ROOM, NOW_MS + KEEP_MS)] * 2) == [RoomSwept(0)] * 2
        assert await world.ask(ReadRoom(ROOM, 0, NOW_MS)) == NoRoom()

    async def test_in_its_time(self, world: World) -> None:
        """The agenda names a room, whatever its name is, and a node that takes it sweeps it and says when it is due next."""
        room = "user:ann~20b.c-d"
        left_ms, over_ms = NOW_MS + 40, NOW_MS + 40 + KEEP_MS
        await world.do(
            join_room(room=room), publish(publication(), room=room), Schedule("r", (room,), NOW_MS + 30, NOW_MS)
        )
        assert await world.ask(TakeDue("r", "a", "n0", NOW_MS + 29, 1000, 9)) == Due((), NOW_MS + 30)
        (item,) = (await world.ask(TakeDue("r", "a", "n1", NOW_MS + 30, 1000, 9))).items
        assert (item.name, await world.ask(SweepRoom(item.name, NOW_MS + 30))) == (room, RoomSwept(0, 1))
        await world.do(
            DropMembers(room, SESSION, "a", KEEP_MS, left_ms), Settle("r", room, item.ticket, left_ms, 0, 0, left_ms)
        )
        (item,) = (await world.ask(TakeDue("r", "b", "n2", left_ms, 1000, 9), at="b")).items
        swept = await world.ask(SweepRoom(item.name, left_ms), at="b")
        assert swept == RoomSwept(over_ms)
        await world.ask(Settle("r", room, item.ticket, swept.next_ms, 0, 0, left_ms), at="b")
        (item,) = (await world.ask(TakeDue("r", "a", "n3", over_ms, 1000, 9))).items
        assert await world.ask(SweepRoom(item.name, over_ms)) == RoomSwept(0)
        await world.ask(Settle("r", room, item.ticket, 0, 0, 0, over_ms))
        assert await world.do(TakeDue("r", "a", "n4", over_ms, 1000, 9), ReadRoom(room, 9, NOW_MS)) == [
            Due((), 0),
            NoRoom(),
        ]

    async def test_clock_set_back(self, world: World) -> None:
        """A time that began before the clock was set back begins again with a sweep."""
        await world.ask(post())
        now_ms = NOW_MS - 10**9
        assert await world.ask(SweepRoom(ROOM, NOW_MS - CLOCK_SET_MS)) == RoomSwept(NOW_MS + KEEP_MS)
        assert await world.ask(SweepRoom(ROOM, now_ms)) == RoomSwept(now_ms + KEEP_MS)
        assert await world.ask(ReadRoom(ROOM, 0, now_ms + KEEP_MS)) == NoRoom()

    async def test_unknown(self, world: World) -> None:
        """Nothing is read of a room that is not there, and nothing makes one but a join and a post."""
        for _ in range(2):
            assert await world.do(
                LookRoom(ROOM, 0, 0, 9, NOW_MS), ReadRoom(ROOM, 9, NOW_MS), ReadRoomHistory(ROOM, 0, 9, NOW_MS),
                ReadRoomState(ROOM, 0, 9, NOW_MS), ReadRoomUpdates(ROOM, 0, 9, NOW_MS), SweepRoom(ROOM, NOW_MS),
                publish(publication()), SetPresence(ROOM, SESSION, "a", 1, b""), LeaveRoom(ROOM, SESSION, "a", 1, 9, NOW_MS),
                DropMembers(ROOM, SESSION, "a", 9, NOW_MS), SnapshotRoom(ROOM, SESSION, "a", 1, 1, b"", BOUNDS),
            ) == [
                NoRoom(), NoRoom(), NoRoom(), NoRoom(), NoRoom(), RoomSwept(0), NotMember(), NotMember(), Done(), Done(),
                NotMember(),
            ]  # fmt: skip


def test_offers() -> None:
    """An offer is a publication that its node does not refuse, unless it says so."""
    assert Offer(publication()).fault == ""
