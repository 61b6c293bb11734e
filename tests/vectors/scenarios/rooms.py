"""Rooms: what a member publishes, what it is told, and how it comes back."""

from typing import Any

from tests.vectors.scenarios.words import (
    LIMITS,
    Step,
    binary,
    call,
    closed,
    goaway,
    got,
    opened,
    restored,
    talking,
    vector,
    wait,
    working,
)

ROOM = "canvas:42"


def joined(at: int, on: int = 1, position: int = 0, **fields: Any) -> Step:
    """The answer to `join`."""
    usual = {
        "room": ROOM,
        "epoch": "e_1",
        "position": position,
        "next_seq": 1,
        "replaying": 0,
        "recovered": False,
        "wipe": True,
        "members": [{"member": "s_1", "presence": None}],
        "members_count": 1,
    }
    return got(at, on, "joined", **{**usual, **fields})


def told(at: int, position: int, data: Any = None, on: int = 1, **fields: Any) -> Step:
    """A publication of another member."""
    said = {} if "put" in fields or "patch" in fields or "remove" in fields else {"data": data}
    return got(
        at, on, "room_message", **{"room": ROOM, "position": position, "member": "s_2", "at_ms": 5, **said, **fields}
    )


def stored(at: int, seq: int, position: int, on: int = 1) -> Step:
    """A confirmation."""
    return got(at, on, "published", room=ROOM, seq=seq, position=position)


def do(at: int, name: str, **fields: Any) -> Step:
    """A call about the room."""
    return call(at, name, room=ROOM, **fields)


def inside(**fields: Any) -> list[Step]:
    """A member with the records of the room."""
    return [*talking(), do(30, "join", state=True), joined(40, **fields)]


ROOMS = [
    vector(
        "publications in one order",
        "Own ones are confirmed, those of others are told; a position that is left out is an own one.",
        [
            inside(records={}),
            do(50, "publish", data="mine", kind="note"),
            told(60, 1, "yours"),
            stored(70, 1, 2),
            do(80, "publish", data="again"),
            do(81, "publish", base64="AQI="),
            told(90, 5, "behind both", kind="k"),
            do(95, "look"),
        ],
    ),
    vector(
        "records",
        "Own changes are shown at once, and lie over what is stored until they are confirmed.",
        [
            inside(records={"a": {"x": 1, "y": 1}}, position=3),
            do(50, "change", patch={"a": {"x": 2}}),
            do(51, "look"),
            told(60, 4, patch={"a": {"x": 9, "y": 9}}),
            do(61, "look"),
            stored(70, 1, 5),
            do(71, "look"),
            told(80, 6, put={"b": {"z": [1]}}, remove=["a"]),
            do(81, "look"),
            do(90, "change", put={"c": {}}, remove=["b"]),
            do(91, "look"),
        ],
    ),
    *[
        vector(
            f"refused: {code}",
            "The others go on, and the change is not shown any more.",
            [
                inside(records={}),
                do(50, "change", put={"a": {"x": 1}}),
                do(51, "publish", data="second"),
                got(60, 1, "room_error", room=ROOM, seq=1, code=code),
                do(61, "look"),
                stored(70, 2, 1),
                do(71, "look"),
            ],
        )
        for code in ("forbidden", "bad_record", "too_big", "room_full")
    ],
    vector(
        "refused for the rate",
        "It goes again, in front of what was published later, as soon as nothing is on its way.",
        [
            inside(records={}),
            do(50, "publish", data="one"),
            do(51, "publish", data="two"),
            got(60, 1, "room_error", room=ROOM, seq=1, code="rate"),
            got(61, 1, "room_error", room=ROOM, seq=2, code="rate"),
            do(62, "publish", data="three"),
            wait(2000),
            stored(2010, 5, 3),
        ],
    ),
    vector(
        "a gap",
        "From `expected` on all is sent again, once for one gap.",
        [
            inside(records={}),
            do(50, "publish", data="one"),
            do(51, "publish", data="two"),
            got(60, 1, "room_error", room=ROOM, seq=2, code="gap", expected=1),
            got(61, 1, "room_error", room=ROOM, seq=2, code="gap", expected=1),
            stored(70, 2, 2),
        ],
    ),
    vector(
        "presence",
        "At most every 50 ms; members come, change and leave.",
        [
            talking(),
            do(30, "join", presence={"name": "Ada"}),
            joined(40, members=[{"member": "s_1", "presence": {"name": "Ada"}}]),
            do(50, "presence", presence=1),
            do(60, "presence", presence=2),
            do(70, "presence", presence=3),
            wait(200),
            got(210, 1, "room_presence", room=ROOM, joined=[{"member": "s_2", "presence": "hi"}]),
            got(220, 1, "room_presence", room=ROOM, changed=[{"member": "s_2", "presence": "ho"}]),
            got(230, 1, "room_presence", room=ROOM, left=["s_2"]),
            do(240, "look"),
            do(250, "presence", presence="x" * 5000),
        ],
    ),
    vector(
        "over a break",
        "The opening message names the room; what was missed follows, and what was not confirmed is sent again.",
        [
            inside(records={}),
            told(50, 1, "one"),
            do(60, "publish", data="mine"),
            do(61, "publish", data="lost on the way"),
            closed(70, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0),
            joined(330, 2, 3, next_seq=2, replaying=2, recovered=True, wipe=False, records={}),
            told(340, 3, "three", on=2),
            stored(350, 2, 4, on=2),
            do(360, "look"),
        ],
    ),
    vector(
        "too far behind",
        "What was missed is not to be had: the room begins anew, and its application is told.",
        [
            inside(records={"a": {"x": 1}}, position=1),
            do(50, "publish", data="mine"),
            closed(70, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0),
            joined(330, 2, 900, recovered=False, records={"b": {"y": 2}}),
            do(340, "look"),
            stored(350, 1, 901, on=2),
        ],
    ),
    vector(
        "another epoch",
        "The store has lost the room: positions count anew, own publications go again but for updates of a lost document.",
        [
            inside(records={"a": {"x": 1}}, position=7, next_seq=4),
            do(50, "publish", base64="AQ==", kind="update"),
            do(51, "publish", data="mine"),
            closed(70, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0),
            joined(330, 2, 0, epoch="e_2", records={}),
            do(340, "look"),
            stored(350, 1, 1, on=2),
        ],
    ),
    vector(
        "positions that contradict each other",
        "The member is out of step: it joins anew after a pause, as if it had nothing.",
        [inside(records={}), told(50, 9, "a hole"), wait(2000), joined(2010, 1, 9, records={}), do(2020, "look")],
    ),
    vector(
        "put out for now",
        "`slow` and `unavailable` ask for another join, after pauses that grow.",
        [
            inside(records={}),
            got(50, 1, "left", room=ROOM, reason="slow"),
            wait(2000),
            joined(2010, 1, records={}, recovered=True, wipe=False),
            got(2020, 1, "left", room=ROOM, reason="unavailable"),
            wait(6000),
            got(6010, 1, "left", room=ROOM, reason="unavailable"),
            wait(20_000),
        ],
    ),
    vector(
        "put out for good",
        "The membership is over, and the session goes on.",
        [
            inside(records={}),
            do(50, "publish", data="mine"),
            got(60, 1, "left", room=ROOM, reason="forbidden"),
            call(70, "send", data="still here"),
        ],
    ),
    vector(
        "not let in",
        "As well, before it began.",
        [talking(), do(30, "join"), got(40, 1, "left", room=ROOM, reason="room_full")],
    ),
    vector(
        "leaving",
        "After all that was published is confirmed; what comes before the answer belongs to the old membership.",
        [
            inside(records={}),
            do(50, "publish", data="last"),
            do(60, "leave"),
            stored(70, 1, 1),
            told(75, 2, "after"),
            got(80, 1, "left", room=ROOM, reason="left"),
            do(90, "join"),
            joined(100, position=2),
        ],
    ),
    vector(
        "an answer in pages",
        "All of it counts when the last page is here.",
        [
            talking(),
            do(30, "join", state=True, history=2),
            joined(40, position=5, records={"a": {"x": 1}}, more=True),
            joined(
                41,
                position=5,
                records={"b": {"y": 2}},
                history=[
                    {"position": 4, "member": "s_2", "at_ms": 1, "data": "four"},
                    {"position": 5, "member": "", "at_ms": 2, "put": {"b": {"y": 2}}},
                ],
            ),
            do(50, "look"),
        ],
    ),
    vector(
        "updates and snapshots",
        "Pieces are put together; a snapshot of the member stands for all up to its position.",
        [
            inside(),
            binary(50, 1, b"\x01\x02", "snapshot", room=ROOM, position=3, more=True),
            binary(51, 1, b"\x03", "snapshot", room=ROOM, position=3),
            binary(52, 1, b"\x04", "snapshot", room=ROOM, position=4, update=True, kind="update"),
            told(60, 1, "one"),
            do(70, "snapshot", position=1, base64="BQY="),
            do(80, "snapshot", position=9, base64="BQY="),
        ],
    ),
    vector(
        "told all anew",
        "`resync` joins as one that has nothing.",
        [inside(records={}), told(50, 1, "one"), do(60, "resync"), joined(70, position=4, records={}), do(80, "look")],
    ),
    vector(
        "the room of the user",
        "signald joins it unasked.",
        [
            talking(),
            joined(40, room="user:ada"),
            got(50, 1, "room_message", room="user:ada", position=1, member="", at_ms=1, data="news"),
            call(60, "look", room="user:ada"),
        ],
        api=True,
    ),
    vector(
        "over a move",
        "What the old node tells last is not shown twice.",
        [
            inside(records={}),
            told(50, 1, "one"),
            goaway(6000, 1, target="ws://b.test"),
            opened(6010, 2),
            told(6020, 2, "two"),
            restored(6030, 2, 0),
            joined(6040, 2, 3, replaying=2, recovered=True, wipe=False, records={}),
            told(6050, 2, "two", on=2),
            told(6051, 3, "three", on=2),
            told(6060, 3, "three", on=1),
            closed(6070, 1, 4001),
        ],
    ),
    vector(
        "what signald would refuse",
        "Errors at the caller.",
        [
            talking(limits={**LIMITS, "message_bytes": 300}),
            call(30, "join", room="a b"),
            do(31, "join"),
            do(32, "join"),
            joined(40),
            do(50, "publish", data="x" * 400),
            do(51, "change"),
            do(52, "change", put={"": {}}),
            do(53, "publish", data=1, kind="k" * 65),
        ],
    ),
    vector(
        "a worker in a room",
        "All of it names the session.",
        [
            working(),
            call(40, "join", session="s_1", room=ROOM),
            joined(50, session="s_1", members=[{"member": "s_1/worker", "presence": None}]),
            call(60, "publish", session="s_1", room=ROOM, data="hello"),
            got(70, 1, "published", room=ROOM, seq=1, position=1, session="s_1"),
            got(80, 1, "session_ended", session="s_1", reason="bye"),
        ],
        party="worker",
    ),
]
