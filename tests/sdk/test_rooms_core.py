"""The rooms of a party by themselves: what is written, what is refused before it is written, and what a service may not do to them."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from signald.core.rooms import Properties, Publication, fold, properties_of
from signald.ids import SeededEntropy
from signald.sdk.bounds import DEFAULT_BOUNDS, Pace
from signald.sdk.core import NEVER, SessionCore
from signald.sdk.decoding import decode_for_client
from signald.sdk.errors import LinkBroken, Unreadable
from signald.sdk.room_core import REJOIN_MAX_S, RoomCore
from signald.sdk.room_events import (
    MembersChanged,
    PublicationRefused,
    RecordsChanged,
    RoomLagged,
    RoomPublication,
    RoomReset,
    RoomUpdate,
)
from signald.sdk.room_members import EVENTS_MAX, MEMBERS_MAX
from signald.sdk.room_outgoing import WAITING_MAX, Outgoing
from signald.sdk.room_records import Change, RoomRecords
from signald.sdk.rooms_core import OfRooms, Rooms
from signald.sdk.writing import Batch
from signald.wire.rooms import ROOMS_MAX

JOINED: dict[str, Any] = {
    "type": "joined", "room": "r", "epoch": "e", "position": 0, "next_seq": 1, "replaying": 0, "recovered": False, "wipe": True,
    "members": [], "members_count": 1,
}  # fmt: skip


class Scene:
    """The rooms of a client, and a service that says what a test wants."""

    def __init__(self, *, pace: Pace | None = None, **options: Any) -> None:
        session = SessionCore(None, SeededEntropy(1))
        session.pace = pace
        self.now = 100.0
        self.rooms = Rooms(session, lambda: DEFAULT_BOUNDS)
        self.room: RoomCore = self.rooms.join("r", **options)
        self.rooms.attach(frozenset())

    def written(self) -> list[dict[str, Any]]:
        """Return what is written now; data of a binary frame stands in `bytes`."""
        batch = Batch()
        self.rooms.write(self.now, batch)
        found = []
        for text, payload in batch.frames:
            end = len(payload) if text else 2 + int.from_bytes(payload[:2], "big")
            head = json.loads(payload if text else payload[2:end])
            found.append(head if text else {**head, "bytes": payload[end:]})
        return found

    def told(self, rest: bytes | None = None, **frame: Any) -> None:
        """Take one frame of the service; `rest` makes it a binary one."""
        head = json.dumps({"room": "r", **frame}).encode()
        payload = head.decode() if rest is None else len(head).to_bytes(2, "big") + head + rest
        message, binary = decode_for_client(payload)
        assert isinstance(message, OfRooms)
        self.rooms.receive(message, binary, len(payload), self.now)

    def joined(self, **changes: Any) -> None:
        """Be in the room."""
        self.told(**{**JOINED, **changes})

    def message(self, position: int, **fields: Any) -> None:
        """Another member publishes."""
        self.told(**{"type": "room_message", "position": position, "member": "s_2", "at_ms": 5, **fields})

    def events(self) -> list[Any]:
        """Take the events."""
        found = []
        while (event := self.room.news.take()) is not None:
            found.append(event)
        return found

    @property
    def shown(self) -> dict[str, Any]:
        """The records as the application sees them."""
        return {name: dict(record) for name, record in self.room.records.items()}


def test_what_is_written() -> None:
    """Each message of a member, in the form of the wire; nothing before it is in the room."""
    scene = Scene(state=True, history=7, presence={"name": "Ada"})
    rooms, room = scene.rooms, scene.room
    rooms.publish(room, {"a": 1}, "chat")
    rooms.publish(room, b"\x00", None)
    rooms.publish(room, b"\x01", "update")
    rooms.change(room, {"p": {"x": 1}}, {"q": {"y": None}}, ("z",))
    assert scene.written() == [{"type": "join", "room": "r", "history": 7, "presence": {"name": "Ada"}, "state": True}]
    assert scene.written() == []
    scene.joined(next_seq=4, position=9)
    head = {"type": "publish", "room": "r"}
    assert scene.written() == [
        {**head, "seq": 4, "kind": "chat", "data": {"a": 1}},
        {**head, "seq": 5, "bytes": b"\x00"},
        {**head, "seq": 6, "kind": "update", "bytes": b"\x01"},
        {**head, "seq": 7, "put": {"p": {"x": 1}}, "patch": {"q": {"y": None}}, "remove": ["z"]},
    ]
    rooms.snapshot(room, 9, b"all")
    room.set_presence(b"2")
    scene.now += 1
    assert scene.written() == [
        {"type": "presence", "room": "r", "presence": 2},
        {"type": "snapshot", "room": "r", "position": 9, "bytes": b"all"},
    ]
    room.leave()
    assert scene.written() == []
    scene.told(type="published", seq=7, position=13)
    assert scene.written() == [{"type": "leave", "room": "r"}]
    scene.told(type="left", reason="left")
    assert (room.ended, rooms.get("r")) == ("left", None)


def _left_while_moving(scene: Scene) -> None:
    """`left` comes on the old connection when the opening message of the new one has named the room."""
    scene.written()
    scene.joined(position=4)
    named = frozenset(str(one["room"]) for one in scene.rooms.positions())
    scene.room.leave()
    assert scene.written() == [{"type": "leave", "room": "r"}]
    scene.told(type="left", reason="left")
    assert (scene.room.ended, set(named)) == ("left", {"r"})
    scene.rooms.attach(named)


def test_a_room_that_was_left_during_a_move_is_left_on_the_new_connection() -> None:
    """The service gives the seat again to a party that names the room, so the party says once more that it leaves."""
    scene = Scene()
    _left_while_moving(scene)
    assert scene.written() == [{"type": "leave", "room": "r"}]
    assert scene.written() == []
    scene.joined(position=4, recovered=True)
    scene.told(type="left", reason="left")
    assert scene.rooms.get("r") is None
    scene.rooms.attach(frozenset())
    assert scene.written() == []


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_room_that_is_joined_again_during_a_move_begins_anew(when: str) -> None:
    """The position that the opening message has named is not that of the new membership, nor is `left` of the old one its end."""
    scene = Scene()
    _left_while_moving(scene)
    if when == "behind":
        assert scene.written() == [{"type": "leave", "room": "r"}]
    scene.room = scene.rooms.join("r", state=True)
    assert scene.written() == [{"type": "join", "room": "r", "state": True}]
    if when == "behind":
        scene.joined(position=5, recovered=True, replaying=1)
        scene.message(5, put={"a": {"x": 1}})
        scene.told(type="left", reason="left")
    scene.joined(position=5, records={"a": {"x": 1}, "b": {"x": 2}}, removed=[])
    assert scene.room.is_in
    assert scene.shown == {"a": {"x": 1}, "b": {"x": 2}}
    assert scene.events() == []


def test_a_room_that_was_joined_since_the_opening_message_is_not_the_one_that_it_names() -> None:
    """The new membership asks with its own options where the answer to the move is that of the old one."""
    scene = Scene()
    scene.written()
    scene.joined(position=4)
    named = frozenset(str(one["room"]) for one in scene.rooms.positions())
    scene.room.leave()
    scene.written()
    scene.told(type="left", reason="left")
    scene.room = scene.rooms.join("r", history=3)
    scene.rooms.attach(named)
    assert scene.written() == [{"type": "join", "room": "r", "history": 3}]


def test_presences_are_thinned_and_said_again() -> None:
    """The latest of those that come within a moment is written; another connection has it again."""
    scene = Scene()
    scene.written()
    scene.joined()
    for number in range(5):
        scene.room.set_presence(b"%d" % number)
        said = scene.written()
        assert said == ([{"type": "presence", "room": "r", "presence": 0}] if number == 0 else [])
    assert scene.rooms.wake_at(scene.now) == pytest.approx(scene.now + 0.05)
    scene.now += 0.05
    assert [one["presence"] for one in scene.written()] == [4]
    assert scene.rooms.positions() == [{"room": "r", "received": 0, "epoch": "e"}]
    scene.rooms.attach(frozenset("r"))
    assert scene.written() == []
    scene.joined(recovered=True)
    scene.now += 0.05
    assert [one["presence"] for one in scene.written()] == [4]


def test_publications_keep_to_the_rate_of_the_session() -> None:
    """What is over it waits, and two rooms take turns."""
    scene = Scene(pace=Pace(20.0, 10))
    other = scene.rooms.join("other")
    scene.written()
    for name in ("r", "other"):
        scene.joined(room=name)
    for number in range(20):
        scene.rooms.publish(scene.room, number, None)
        scene.rooms.publish(other, number, None)
    first = scene.written()
    assert [one["room"] for one in first] == ["r", "other"] * 4 + ["r"]
    wake = scene.rooms.wake_at(scene.now)
    assert scene.now < wake < scene.now + 0.06
    scene.now = wake
    assert len(scene.written()) == 1


def test_what_a_node_would_refuse_is_refused_here() -> None:
    """Nothing of it is published or shown."""
    scene = Scene(state=True)
    rooms, room = scene.rooms, scene.room
    scene.joined(position=3)
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        rooms.publish(room, "x" * 65536, None)
    with pytest.raises(ValueError, match="not JSON"):
        rooms.publish(room, float("nan"), None)
    with pytest.raises(ValueError, match="kind"):
        rooms.publish(room, 1, "k" * 65)
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    rooms.change(room, {"a": {"x": deep[0]}}, {}, ())
    wrong: list[tuple[Any, Any, Any]] = [
        ({"a": {"x": deep}}, {}, ()), ({"a": 1}, {}, ()), ({"": {}}, {}, ()), ({"a" * 129: {}}, {}, ()), ({"a": {1: 2}}, {}, ()),
        ({"a": {"x": {1}}}, {}, ()), ({}, {}, ("\ud800",)), ({}, {}, ()), ({"a": {"\ud800": 1}}, {}, ()), ({"a": {"x": "\ud800"}}, {}, ()),
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises(ValueError, match=r"."):
            rooms.change(room, *each)
    with pytest.raises(ValueError, match="4096 bytes"):
        rooms.presence_of("x" * 4096)
    for position in (0, 4):
        with pytest.raises(ValueError, match="from 1 to 3"):
            rooms.snapshot(room, position, b"")
    with pytest.raises(ValueError, match="a snapshot may have"):
        rooms.snapshot(room, 3, b"x" * 65536)
    assert (len(room.out), set(scene.shown)) == (1, {"a"})
    for number in range(ROOMS_MAX - 1):
        rooms.join(f"room:{number}")
    with pytest.raises(ValueError, match="at most 64 rooms"):
        rooms.join("one")


def test_own_changes_lie_over_others_until_their_place_is_known() -> None:
    """An own change is shown over what comes before it is confirmed; in the end the order of the room decides."""
    scene = Scene(state=True)
    scene.joined(records={"a": {"x": 0, "y": 0}}, position=4)
    scene.rooms.change(scene.room, {}, {"a": {"x": "mine"}}, ())
    scene.rooms.change(scene.room, {"new": {}}, {}, ())
    scene.written()
    scene.message(5, patch={"a": {"x": "theirs", "y": 1}})
    assert scene.shown == {"a": {"x": "mine", "y": 1}, "new": {}}
    scene.message(7, patch={"a": {"x": "later"}}, remove=["new"])  # so 6 is the first of the own
    assert scene.shown == {"a": {"x": "later", "y": 1}, "new": {}}
    scene.told(type="published", seq=2, position=8)
    assert scene.shown == {"a": {"x": "later", "y": 1}, "new": {}}
    assert (scene.room.at, len(scene.room.out), len(scene.room.records)) == (8, 0, 2)
    changed = scene.events()
    assert [event.position for event in changed] == [5, 7]
    assert dict(changed[0].patch["a"]) == {"x": "theirs", "y": 1}
    assert changed[1].removed == ("new",)


def test_each_own_change_of_a_record_goes_by_itself() -> None:
    """The confirmation of one leaves those behind it over what others change."""
    scene = Scene(state=True)
    scene.joined()
    for number in (1, 2, 3):
        scene.rooms.change(scene.room, {}, {"a": {"x": number}}, ())
    scene.written()
    scene.told(type="published", seq=1, position=1)
    scene.message(2, patch={"a": {"x": "theirs", "y": 0}})
    assert scene.shown == {"a": {"x": 3, "y": 0}}
    scene.told(type="room_error", seq=3, code="rate")
    assert scene.shown == {"a": {"x": 2, "y": 0}}
    scene.message(4, patch={"a": {"x": "last"}})
    assert scene.shown == {"a": {"x": "last", "y": 0}}


def test_a_program_that_asks_for_all_is_told_all() -> None:
    """Also where the answer to an earlier join is on the way, which goes on from where the member was."""
    scene = Scene(state=True)
    scene.joined(position=3, records={"a": {}})
    scene.rooms.attach(frozenset("r"))
    scene.room.resync()
    scene.joined(position=3, recovered=True, wipe=False)
    assert scene.events() == [RoomReset(3, lost=False)]


def test_a_refused_publication_is_shown_no_longer() -> None:
    """It takes no position; those around it keep theirs."""
    scene = Scene(state=True)
    scene.joined()
    numbers = [scene.rooms.change(scene.room, {name: {"n": 1}}, {}, ()) for name in "abc"]
    scene.written()
    scene.told(type="room_error", seq=2, code="too_big")
    assert set(scene.shown) == {"a", "c"}
    assert len(scene.room.out) == 3
    scene.message(2, data=0)  # so the first is stored at 1, and of the second nothing more will be said
    assert len(scene.room.out) == 1
    scene.message(4, data=1)
    assert (scene.room.at, len(scene.room.out)) == (4, 0)
    assert scene.events() == [
        PublicationRefused(numbers[1], "too_big"), RoomPublication(2, "s_2", 5, 0), RoomPublication(4, "s_2", 5, 1),
    ]  # fmt: skip


def test_a_gap_is_filled_once() -> None:
    """However often it is told within a moment."""
    scene = Scene()
    scene.joined()
    for number in range(4):
        scene.rooms.publish(scene.room, number, None)
    assert len(scene.written()) == 4
    for seq in (3, 4):
        scene.told(type="room_error", seq=seq, code="gap", expected=2)
    assert [one["seq"] for one in scene.written()] == [2, 3, 4]
    scene.told(type="room_error", seq=4, code="gap", expected=2)
    assert scene.written() == []


def test_a_replay_shows_no_older_record() -> None:
    """The records of the answer stand at its position: what is replayed up to there is told, and changes nothing."""
    scene = Scene(state=True)
    scene.joined(records={"a": {"x": 1}}, position=1)
    scene.rooms.attach(frozenset("r"))
    scene.joined(position=4, replaying=3, recovered=True, wipe=False, records={"a": {"x": 4}, "b": {}}, removed=["c"])
    for position in (2, 3, 4):
        scene.message(position, patch={"a": {"x": position}})
        assert scene.shown == {"a": {"x": 4}, "b": {}}
    scene.message(5, patch={"a": {"x": 5}})
    assert scene.shown["a"] == {"x": 5}
    assert [event.position for event in scene.events()] == [2, 3, 4, 5]


def test_a_node_that_begins_further_back_is_told_nothing_twice() -> None:
    """What the connection before has told meanwhile is not told again, and its records come back to where they were."""
    scene = Scene(state=True)
    scene.joined(position=1)
    scene.message(2, put={"a": {"x": 2}})
    scene.rooms.attach(frozenset("r"))
    scene.joined(position=1, recovered=True, wipe=False)
    scene.message(2, put={"a": {"x": 2}})
    scene.message(3, put={"a": {"x": 3}})
    assert [event.position for event in scene.events()] == [2, 3]
    assert scene.shown == {"a": {"x": 3}}


def test_pages_of_an_answer_that_breaks_off_are_void() -> None:
    """The next answer begins anew."""
    scene = Scene(state=True)
    scene.joined(records={"old": {"x": 1}}, more=True)
    scene.rooms.attach(frozenset())
    scene.written()
    scene.joined(records={"a": {"x": 1}}, more=True)
    assert (scene.room.is_in, scene.shown) == (False, {})
    scene.joined(records={"b": {"x": 1}}, history=[{"position": 1, "member": "s_2", "at_ms": 4, "data_b64": "AA=="}])
    assert (scene.room.is_in, set(scene.shown)) == (True, {"a", "b"})
    assert [event.data for event in scene.room.history if isinstance(event, RoomPublication)] == [b"\x00"]


@pytest.mark.parametrize("epoch", ["e", "f"])
def test_what_is_missed_for_good_is_told(epoch: str) -> None:
    """The same room without the log, or another one: what is kept begins anew, and what was not confirmed is sent again."""
    scene = Scene(state=True, presence=1)
    scene.joined(records={"a": {"x": 1}}, position=5, next_seq=3)
    scene.rooms.publish(scene.room, "lost?", None)
    assert [one["seq"] for one in scene.written()][-1:] == [3]
    scene.rooms.attach(frozenset("r"))
    scene.joined(epoch=epoch, position=9, next_seq=3 if epoch == "e" else 1, records={"b": {}})
    assert scene.events() == [RoomReset(9, lost=epoch == "f")]
    assert (scene.shown, scene.room.at, scene.room.epoch) == ({"b": {}}, 9, epoch)
    assert [one.get("seq") for one in scene.written()] == [None, 3 if epoch == "e" else 1]


@pytest.mark.parametrize("kind", ["update", "yjs"])
def test_the_next_room_has_nothing_of_a_document_that_was_lost(kind: str) -> None:
    """No update that was under way, and no snapshot: each would bring the old document back. The same room is told them again."""
    scene = Scene()
    scene.joined(position=5)
    scene.rooms.publish(scene.room, b"an update", kind)
    scene.rooms.publish(scene.room, b"a picture", "image")
    scene.rooms.publish(scene.room, "words", kind)
    assert len(scene.written()) == 3
    scene.rooms.attach(frozenset("r"))
    scene.joined(position=5, recovered=True)
    assert [one.get("bytes") for one in scene.written()] == [b"an update", b"a picture", None]
    scene.rooms.snapshot(scene.room, 5, b"all of it")
    scene.rooms.attach(frozenset("r"))
    scene.joined(epoch="f", position=7)
    assert [(one["seq"], one.get("bytes")) for one in scene.written()] == [(1, b"a picture"), (2, None)]
    assert scene.room.out.room
    scene.told(type="published", seq=2, position=9)
    assert len(scene.room.out) == 0


def test_a_room_of_another_epoch_has_nothing_of_the_last_one() -> None:
    """Even when the answer says that all was recovered."""
    scene = Scene(state=True)
    scene.joined(position=5, records={"a": {}})
    scene.rooms.attach(frozenset("r"))
    scene.joined(epoch="f", position=5, recovered=True, records={"b": {}})
    assert scene.events() == [RoomReset(5, lost=True)]
    assert set(scene.shown) == {"b"}


def test_the_next_room_has_no_publication_that_the_last_one_refused() -> None:
    """It was told that it is not stored, so it is not stored later."""
    out = Outgoing()
    for _ in range(3):
        out.add(b"t}", None)
        out.next()
    assert out.refuse(2) is not None
    assert out.refuse(2) is None
    assert out.attach(1, same=False) == []
    assert (len(out), out.next(), out.next(), out.next()) == (2, (1, b"t}"), (2, b"t}"), None)


def test_slow_and_unavailable_join_again_with_longer_pauses() -> None:
    """Where the member stands is said; a member that stays for a while begins with the shortest pause again."""
    scene = Scene()
    scene.joined(position=4)
    pauses = []
    for reason in ("slow", "unavailable") * 5:
        scene.told(type="left", reason=reason)
        assert scene.written() == []
        wake = scene.rooms.wake_at(scene.now)
        pauses.append(wake - scene.now)
        scene.now = wake
        assert scene.written() == [{"type": "join", "room": "r", "received": 4, "epoch": "e"}]
        scene.joined(position=4, recovered=True)
    assert pauses == [pytest.approx(min(2.0**n, REJOIN_MAX_S)) for n in range(10)]
    scene.now += 60
    scene.told(type="left", reason="slow")
    assert scene.rooms.wake_at(scene.now) == pytest.approx(scene.now + 0.5)
    scene.told(type="left", reason="forbidden")
    assert (scene.room.ended, scene.rooms.wake_at(scene.now)) == ("forbidden", NEVER)


def test_members_are_told_as_they_come_and_go() -> None:
    """Members that are not named are counted; an unreadable presence spoils nothing."""
    scene = Scene()
    scene.joined(members=[{"member": "s_1", "presence": 1}], members_count=2000)
    scene.told(
        type="room_presence", joined=[{"member": "s_2", "presence": None}], changed=[{"member": "s_1", "presence": 2}]
    )
    scene.told(type="room_presence", joined=[{"member": "s_1", "presence": 2}])
    scene.told(type="room_presence", left=["s_2", "s_9"])
    assert scene.room.members.known == {"s_1": b"2"}
    assert scene.room.members.count == 1999
    assert scene.events() == [
        MembersChanged(("s_2",), ("s_1",), ()), MembersChanged((), ("s_1",), ()), MembersChanged((), (), ("s_2", "s_9")),
    ]  # fmt: skip
    scene.rooms.attach(frozenset("r"))
    scene.joined(recovered=True, members=[{"member": "s_3", "presence": 1}])
    assert scene.events() == [MembersChanged(("s_3",), (), ("s_1",))]
    for first in range(0, MEMBERS_MAX + 1000, 1000):
        scene.told(
            type="room_presence", joined=[{"member": f"m{n}", "presence": "x"} for n in range(first, first + 1000)]
        )
    assert len(scene.room.members.known) == MEMBERS_MAX


def test_an_application_that_lags_is_told_once() -> None:
    """What is dropped is one gap with its number; the records are right all the same, and a new join tells all anew."""
    scene = Scene(state=True)
    scene.joined()
    for position in range(1, EVENTS_MAX + 11):
        scene.message(position, put={"a": {"x": position}})
    events = scene.events()
    assert (len(events), events[-1]) == (EVENTS_MAX + 1, RoomLagged(10, EVENTS_MAX + 10))
    assert scene.shown == {"a": {"x": EVENTS_MAX + 10}}
    scene.message(EVENTS_MAX + 11, data="x" * 60_000)
    assert [event.data for event in scene.events()] == ["x" * 60_000]
    for position in range(EVENTS_MAX + 12, EVENTS_MAX + 120):
        scene.message(position, data="x" * 60_000)
    assert scene.events()[-1] == RoomLagged(108 - 69, EVENTS_MAX + 119)
    scene.room.resync()
    assert scene.written() == [{"type": "join", "room": "r", "state": True}]
    assert scene.rooms.positions() == []
    scene.joined(position=EVENTS_MAX + 119)
    scene.told(b"all", type="snapshot", position=7)
    scene.told(b"one", type="snapshot", position=8, update=True, kind="update")
    assert scene.events() == [
        RoomReset(EVENTS_MAX + 119, lost=False), RoomUpdate(7, b"all", None, snapshot=True), RoomUpdate(8, b"one", "update"),
    ]  # fmt: skip


def test_a_large_snapshot_comes_in_pieces() -> None:
    """They are joined. Those that a cut or a `left` leaves behind are discarded: the next join brings all of them again."""
    scene = Scene()
    scene.joined(position=9)
    scene.told(b"lost", type="snapshot", position=7, more=True)
    scene.told(type="left", reason="slow")
    scene.now += 60
    scene.written()
    scene.joined(position=9)
    assert scene.events() == [RoomReset(9, lost=False)]
    scene.told(b"one, ", type="snapshot", position=7, kind="yjs", more=True)
    assert scene.events() == []
    scene.told(b"two", type="snapshot", position=7, kind="yjs")
    assert scene.events() == [RoomUpdate(7, b"one, two", "yjs", snapshot=True)]


def test_half_a_snapshot_of_a_lost_connection_is_void() -> None:
    """The next one tells all of it."""
    scene = Scene()
    scene.joined(position=5)
    scene.told(b"half", type="snapshot", position=5, more=True)
    scene.rooms.attach(frozenset("r"))
    scene.joined(position=5, epoch="f")
    scene.told(b"whole", type="snapshot", position=5)
    assert [event.data for event in scene.events() if isinstance(event, RoomUpdate)] == [b"whole"]


@pytest.mark.parametrize("lie", ["a hole", "too far", "unsent", "impossible gap", "a hole in the replay"])
def test_a_service_that_contradicts_itself_is_joined_anew(lie: str) -> None:
    """Nothing is shown in a wrong order: the member begins again, and the application is told."""
    scene = Scene(state=True)
    scene.joined(position=5)
    scene.rooms.change(scene.room, {"a": {}}, {}, ())
    scene.written()
    match lie:
        case "a hole":
            scene.message(9, data=1)
        case "too far":
            scene.told(type="published", seq=1, position=9)
        case "unsent":
            scene.told(type="published", seq=4, position=6)
        case "impossible gap":
            scene.told(type="room_error", seq=1, code="gap", expected=9)
        case _:
            scene.rooms.attach(frozenset("r"))
            scene.joined(position=9, replaying=2, recovered=True, wipe=False)
    assert (scene.events(), scene.written()) == ([], [])
    scene.now = scene.rooms.wake_at(scene.now)
    assert 100 < scene.now <= 101
    assert scene.written() == [{"type": "join", "room": "r", "state": True}]
    scene.message(6, data=1)
    scene.joined(position=9, next_seq=2)
    assert scene.events() == [RoomReset(9, lost=False)]
    assert (scene.room.at, len(scene.room.out)) == (9, 0)


def test_a_room_that_is_too_large_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its answer as well as by what follows."""
    monkeypatch.setattr("signald.sdk.room_core.ROOM_BYTES_MAX", 1000)
    scene = Scene(state=True)
    scene.joined(records={"a": {"x": "y" * 500}})
    assert scene.room.is_in
    scene.message(1, put={"b": {"x": "y" * 500}})
    assert scene.room.ended == "too_big"
    scene = Scene(state=True)
    scene.joined(records={"a": {"x": "y" * 500}}, more=True)
    scene.joined(records={"b": {"x": "y" * 500}}, more=True)
    assert (scene.room.ended, scene.rooms.positions()) == ("too_big", [])


def test_values_that_cannot_be_read_harm_themselves_alone() -> None:
    """A number without bound; a record that is none breaks the connection."""
    scene = Scene(state=True)
    answer = json.dumps(JOINED)[:-1] + ', "records": {"a": {"x": 1e999, "y": 2}, "b": {"z": 1}}}'
    message, binary = decode_for_client(answer)
    assert isinstance(message, OfRooms)
    scene.rooms.receive(message, binary, len(answer), scene.now)
    with pytest.raises(Unreadable):
        scene.room.records["a"]["x"]
    assert scene.room.records["a"]["y"] == 2
    assert dict(scene.room.records["b"]) == {"z": 1}
    with pytest.raises(LinkBroken):
        scene.joined(records={"a": 1})


ODD: tuple[Any, ...] = (
    0, 1, 2, 3, 5, 9, -1, 2**53 - 1, 2**60, "r", "", "user:a", None, True, [], ["a"], {}, {"a": {}}, {"a": {"x": None}}, {"a": 1},
    [{"member": "s_1", "presence": 1}], [{"position": 1}], "gap", "slow", "e",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_no_frame_does_more_than_break_the_connection(seed: int) -> None:
    """Odd values in each field, some of which fit: the rooms go on, say nothing that is wrong, and ask for little."""
    rng = random.Random(seed)
    scene = Scene(state=True, history=5)
    frames: list[dict[str, Any]] = [
        {**JOINED, "records": {}, "removed": []},
        {"type": "published", "seq": 1, "position": 1},
        {
            "type": "room_message",
            "position": 1,
            "member": "s_2",
            "at_ms": 1,
            "data": 1,
            "put": {},
            "patch": {},
            "remove": [],
            "seq": 1,
        },
        {"type": "room_error", "seq": 1, "code": "gap", "expected": 1},
        {"type": "room_presence", "joined": [], "changed": [], "left": []},
        {"type": "snapshot", "position": 1, "update": False},
        {"type": "left", "reason": "slow"},
    ]
    joins = 0
    for _ in range(600):
        scene.now += 0.1
        frame = dict(rng.choice(frames))
        for name in rng.sample(sorted(frame), rng.randint(0, 2)):
            if name != "type":
                frame[name] = rng.choice(ODD)
            if rng.random() < 0.2:
                frame.pop(name if name != "type" else "", None)
        with suppress(LinkBroken):
            scene.told(b"x" if rng.random() < 0.1 else None, **frame)
        if scene.room.ended is not None:
            scene.room = scene.rooms.join("r", state=True)
        if rng.random() < 0.3:
            scene.rooms.change(scene.room, {"a": {"x": 1}}, {}, ())
        joins += sum(one["type"] == "join" for one in scene.written())
        assert scene.rooms.wake_at(scene.now) > scene.now
        assert len([dict(record) for record in scene.room.records.values()]) == len(scene.room.records)
        assert len(scene.room.out) <= 600
        for said in scene.rooms.positions():
            assert isinstance(said["received"], int)
            assert said["received"] >= 0
    assert joins < 100


def test_the_end_of_the_session_ends_all() -> None:
    """Own changes are shown no longer, nothing is written, and waiting events can be taken."""
    scene = Scene(state=True)
    scene.joined(records={"a": {}})
    scene.rooms.change(scene.room, {"b": {}}, {}, ())
    scene.message(1, data=1)
    scene.rooms.end("bye")
    assert (scene.room.ended, scene.shown, scene.written(), len(scene.room.out)) == ("bye", {"a": {}}, [], 0)
    scene.message(2, data=2)
    assert [event.data for event in scene.events()] == [1]


def test_the_line_is_bounded() -> None:
    """By number, and by bytes."""
    out = Outgoing()
    for body, count in ((b"t}", WAITING_MAX), (b"t" + b"x" * 65536, 16)):
        while out.room:
            out.add(body, None)
        assert len(out.clear()) == count
    # What is confirmed makes room again.
    while out.room:
        out.add(b"t" + b"x" * 65536, None)
        out.next()
    assert len(out.confirm(1) or ()) == 1
    assert out.room


def test_one_write_takes_no_more_than_its_budget() -> None:
    """A room with much to publish leaves the connection to acks and other sessions in between."""
    scene = Scene()
    scene.joined()
    for _ in range(20):
        scene.rooms.publish(scene.room, "x" * 30_000, None)
    counts = []
    while written := len(scene.written()):
        counts.append(written)
    assert counts == [3] * 6 + [2]


@pytest.mark.parametrize("seed", range(20))
def test_records_are_folded_as_the_store_does(seed: int) -> None:
    """Against the fold of the store, with own changes shown over it and hidden again."""
    rng = random.Random(seed)
    mine = RoomRecords()
    theirs: dict[str, Properties | None] = {}
    ids, keys = "abcd", "xyz"

    def some() -> dict[str, dict[str, Any]]:
        record = {key: rng.choice((None, rng.randint(0, 9))) for key in rng.sample(keys, rng.randint(0, 3))}
        return dict.fromkeys(rng.sample(ids, rng.randint(0, 2)), record)

    for seq in range(1, 100):
        put, patch, remove = some(), some(), tuple(rng.sample(ids, rng.choice((0, 0, 1))))
        puts, patches = ([(name, properties_of(one)) for name, one in each.items()] for each in (put, patch))
        theirs |= fold(Publication(seq, b"", tuple(puts), tuple(patches), remove), theirs.get)
        change = Change({name: dict(one) for name, one in puts}, {name: dict(one) for name, one in patches}, remove)
        before = {name: dict(record) for name, record in mine.items()}
        mine.show(change)
        shown = {name: dict(record) for name, record in mine.items()}
        assert (len(mine), set(mine)) == (len(shown), set(shown))
        mine.hide(change)
        assert {name: dict(record) for name, record in mine.items()} == before
        mine.fold(change)
        truth = {
            name: {key: json.loads(value) for key, value in one} for name, one in theirs.items() if one is not None
        }
        assert {name: dict(record) for name, record in mine.items()} == shown == truth
    assert mine.size == sum(
        len(name) + sum(len(k) + len(v) for k, v in one) for name, one in theirs.items() if one is not None
    )
    mine.wipe()
    assert (mine.size, len(mine)) == (0, 0)


def test_changes_event_names_each_part() -> None:
    """What was put, patched and removed, by id."""
    scene = Scene()
    scene.joined()
    scene.message(1, member="", put={"a": {"x": [1]}}, patch={"b": {"y": None}}, remove=["c"])
    (event,) = scene.events()
    assert isinstance(event, RecordsChanged)
    assert (event.member, event.at_ms, event.removed) == ("", 5, ("c",))
    assert ({name: dict(one) for name, one in event.put.items()}, dict(event.patch["b"])) == (
        {"a": {"x": [1]}},
        {"y": None},
    )
