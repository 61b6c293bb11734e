"""The judge of canvases notices what it is there for."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.systems import canvases
from tests.systems.canvases import Gaps
from tests.systems.program import Line, Program


def final(name: str, edits: int, said: int) -> Line:
    """What a person shows at the end, when all is well and each of two has drawn one shape."""
    shapes = {"ann:1": {"x": 1}, "bob:1": {"x": 2}, "last:ann": 2, "last:bob": 2, "shared:0": {"by": "ann"}}
    mine = {f"{name}:1": shapes[f"{name}:1"], f"{name}:2": None, f"last:{name}": 2}
    chat = ["ann 1", "bob 1", "ann 2"]
    return {
        "saw": "final", "name": name, "canvas": "c", "edits": edits, "said": said, "stored": shapes,
        "view": {**shapes, "shared:0": {"by": name}}, "mine": mine, "chat": chat, "cursors": 1,
    }  # fmt: skip


def programs(*lines: Line) -> list[Program]:
    """A program that has said these lines."""
    told = Program("canvas", cast("Any", None), Path(), Path(), str)
    told.lines = [{"during": "deploy", **line} for line in lines]
    for line in told.lines:
        told.saw(line["saw"]).append(line)
    return [told]


ALL_IS_WELL = (final("ann", 2, 2), final("bob", 2, 1))


def test_all_is_well() -> None:
    """Each shows the canvas that is stored, but for a shape that all draw, and one has read the chat from a later line on."""
    late = {**ALL_IS_WELL[1], "chat": ["bob 1", "ann 2"]}
    canvases.judge(programs(ALL_IS_WELL[0], late))


SLIPS: dict[str, Callable[[Line], object]] = {
    "a shape is lost": lambda one: one["stored"].pop("bob:1"),
    "an older shape is stored": lambda one: one["stored"].update({"bob:1": {"x": 1}}),
    "what was removed is back": lambda one: one["stored"].update({"bob:2": {"x": 1}}),
    "another canvas is shown": lambda one: one["view"].update({"ann:1": {"x": 9}}),
    "an edit is lost": lambda one: one.update(edits=3),
    "a line is lost": lambda one: one.update(said=2),
    "a line stands twice": lambda one: one["chat"].append("bob 1"),
    "the lines stand in another order": lambda one: one["chat"].reverse(),
    "no cursor was seen": lambda one: one.update(cursors=0),
}


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("of_all", [True, False], ids=["for all", "for one"])
def test_a_slip_is_noticed(slip: str, of_all: bool) -> None:
    """Whether one person has seen it or all have."""
    ann, bob = copy.deepcopy(ALL_IS_WELL)
    SLIPS[slip](bob)
    if of_all and slip not in ("an edit is lost", "a line is lost"):
        SLIPS[slip](ann)
    with pytest.raises(AssertionError):
        canvases.judge(programs(ann, bob))


def test_a_fault_of_a_page_is_a_fault() -> None:
    """So is a run in which no page has shown anything."""
    with pytest.raises(AssertionError, match="1 faults"):
        canvases.judge(programs(*ALL_IS_WELL, {"saw": "fault", "what": "edits"}))
    with pytest.raises(AssertionError, match="no person"):
        canvases.judge(programs())


def test_gaps_are_counted_by_what_the_operator_did_when_they_began() -> None:
    """A page that is reloaded has no gap, and one that fails to come back at first has one."""
    closed = {"saw": "closed", "name": "ann", "code": 1001, "own": False}
    gaps = Gaps.of(
        programs(
            {**closed, "during": "deploy"},
            {"saw": "restored", "name": "ann", "gap_ms": 300, "during": "between"},
            {**closed, "during": "kill", "code": 1006},
            {**closed, "name": "bob", "own": True},
            {"saw": "restored", "name": "bob", "gap_ms": 50},
            {"saw": "restored", "name": "ann", "gap_ms": 900},
        )
    )
    assert [(gap.during, gap.code, gap.ms) for gap in gaps.all] == [("deploy", 1001, 300), ("kill", 1006, 900)]
    assert gaps.during("deploy").longest_s == gaps.during("deploy").median_s == 0.3
    assert gaps.during("rollback").longest_s == gaps.during("rollback").median_s == 0
