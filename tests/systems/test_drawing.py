"""The judge of a room sees what must not be: each fault that it is there for, one at a time."""

from collections.abc import Callable
from typing import Any

import pytest

from signald.sdk.room_events import Record
from signald.sdk.trio import MembersChanged, RecordsChanged, RoomLagged, RoomPublication, RoomReset
from tests.systems.drawing import Sight, judge

PUT = {"a": {"x": 1, "y": 2}}


def sights() -> list[Sight]:
    """Two members: one says a line and puts a record, the other one changes that; the first is seen to leave by neither."""
    one, two = Sight("one", "s_1"), Sight("two", "s_2")
    one.said = [{"data": "hello"}, {"put": PUT}]
    two.said = [{"patch": {"a": {"y": None, "z": 3}}}]
    two.take(RoomPublication(1, "s_1", 0, "hello"))
    two.take(RecordsChanged(2, "s_1", 0, {"a": Record({"x": b"1", "y": b"2"})}, {}, ()))
    one.take(RecordsChanged(3, "s_2", 0, {}, {"a": Record({"y": b"null", "z": b"3"})}, ()))
    one.records = {"a": {"x": 1, "z": 3}}
    two.records = {"a": {"x": 1, "z": 3}}
    return [one, two]


def test_what_all_have_seen_is_in_order() -> None:
    """The records are the fold of what was said."""
    assert judge(sights(), 3) == {"a": {"x": 1, "z": 3}}


def test_a_hole_that_was_told_is_none() -> None:
    """What a member was told that it would not be shown is not missed."""
    one, two = sights()
    late = Sight("late", "s_3", records=one.records)
    late.take(RoomReset(3, lost=False))
    judge([one, two, late], 3)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda one, _: one.shown.clear(), id="missed"),
        pytest.param(lambda one, _: one.said.pop(), id="twice in the room"),
        pytest.param(lambda one, _: one.said.append({"data": "lost"}), id="lost"),
        pytest.param(lambda one, _: one.said.reverse(), id="out of order"),
        pytest.param(lambda one, _: one.records["a"].update(x=2), id="another record"),
        pytest.param(lambda one, _: one.records.clear(), id="no record"),
        pytest.param(lambda one, _: one.take(MembersChanged(left=("s_2",))), id="seen leaving"),
        pytest.param(lambda one, _: [one.take(MembersChanged(joined=("s_2",))) for _ in "12"], id="seen joining twice"),
        pytest.param(lambda _, two: two.take(RoomPublication(2, "s_1", 0, "again")), id="a position behind"),
        pytest.param(lambda _, two: two.take(RoomLagged(1, 3)), id="lagged"),
        pytest.param(lambda _, two: two.take(RoomReset(3, lost=True)), id="the room is lost"),
        pytest.param(
            lambda one, _: one.find([{"position": 2, "member": "s_1", "put": {"a": {"x": 2}}}]), id="another log"
        ),
    ],
)
def test_each_fault_is_seen(fault: Callable[[Sight, Sight], Any]) -> None:
    """One change of what was seen is enough."""
    one, two = sights()
    fault(one, two)
    with pytest.raises(AssertionError):
        judge([one, two], 3)
