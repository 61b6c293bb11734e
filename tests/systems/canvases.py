"""What people at a canvas must have seen in the end, and how long each of them had no connection.

They are the persons of `programs/canvas.mjs`, which notes a fault where it sees one. Here all persons of one canvas are compared.
"""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from attrs import define, field

from tests.systems.program import Line, Program

SHARED = "shared:"
"""Shapes that all draw at once. No page is told where its own edit stands among others, so these are compared in the store alone."""


def saw(programs: Iterable[Program], what: str) -> list[Line]:
    """Return the lines of one kind of all programs."""
    return [line for program in programs for line in program.saw(what)]


async def finish(programs: Sequence[Program], within_s: float) -> None:
    """Let all persons rest, have each show what it has once all that was said has come to it, and end the programs."""
    for program in programs:
        await program.tell("rest")
    for program in programs:
        await program.has_seen("resting", people_of(program), within_s)
    edits: dict[str, dict[str, int]] = defaultdict(dict)
    for line in saw(programs, "resting"):
        edits[line["canvas"]][line["name"]] = line["edits"]
    for program in programs:
        await program.tell(f"show {json.dumps(edits, separators=(',', ':'))}")
    for program in programs:
        await program.has_seen("final", people_of(program), within_s)
    for program in programs:
        await program.tell()
        await program.end()


def people_of(program: Program) -> int:
    """How many persons a program plays: its arguments are its own path, a URL and a name for each."""
    command = program.process.args
    assert isinstance(command, list)
    return len(command) - 3


def judge(programs: Sequence[Program]) -> None:
    """Nothing is lost, doubled or in another order: edits, shapes and lines of all canvases."""
    faults = saw(programs, "fault")
    assert not faults, f"{len(faults)} faults: {faults[:5]}"
    canvases: dict[str, list[Line]] = defaultdict(list)
    for final in saw(programs, "final"):
        canvases[final["canvas"]].append(final)
    assert canvases, "no person has shown what it has"
    for finals in canvases.values():
        _judge_shapes(finals)
        _judge_chat(finals)


def _judge_shapes(finals: list[Line]) -> None:
    """Each person has the canvas that is stored, and what each has drawn is there as it was drawn last."""
    stored = finals[0]["stored"]
    for final in finals:
        who = final["name"]
        assert final["stored"] == stored, f"{who} was told another canvas"
        own = {key: value for key, value in final["mine"].items() if value is not None}
        drawn = {key: value for key, value in stored.items() if key in final["mine"]}
        assert drawn == own, f"lost of {who}: {_differences(drawn, own)}"
        assert stored.get(f"last:{who}", 0) == final["edits"]
        shown, wanted = _unshared(final["view"]), _unshared(stored)
        assert shown == wanted, f"{who} shows another canvas: {_differences(shown, wanted)}"
        assert final["cursors"] or len(finals) == 1, f"{who} saw no cursor"


def _unshared(shapes: Line) -> Line:
    return {key: value for key, value in shapes.items() if not key.startswith(SHARED)}


def _differences(one: Line, other: Line) -> Sequence[object]:
    return [(key, one.get(key), other.get(key)) for key in one.keys() | other.keys() if one.get(key) != other.get(key)][
        :5
    ]


def _judge_chat(finals: list[Line]) -> None:
    """All have read one chat, in which each line of each person stands once and in its order."""
    longest: list[str] = max((final["chat"] for final in finals), key=len)
    for final in finals:
        chat = final["chat"]
        assert chat == longest[len(longest) - len(chat) :], f"{final['name']} has read another chat"
    for final in finals:
        numbers = [int(found[1]) for line in longest if (found := re.fullmatch(rf"{final['name']} (\d+)", line))]
        said = final["said"]
        # The first lines may be older than what the canvas keeps.
        assert numbers == list(range(said - len(numbers) + 1, said + 1)), f"of {final['name']}: {numbers} of {said}"
        assert numbers


@define
class Gap:
    """One stay without a connection."""

    name: str
    during: str
    """What the operator did when the connection was closed."""
    code: int
    ms: float


@define
class Gaps:
    """All stays of persons without a connection that they did not ask for."""

    all: list[Gap] = field(factory=list)

    @classmethod
    def of(cls, programs: Iterable[Program]) -> "Gaps":
        """Read them from the lines of programs; the last connection of a person may still be away."""
        found: list[Gap] = []
        for program in programs:
            closed: dict[str, Line] = {}
            for line in program.lines:
                if line["saw"] == "closed":
                    closed.setdefault(line["name"], line)
                elif line["saw"] == "restored" and (before := closed.pop(line["name"], None)) and not before["own"]:
                    found.append(Gap(line["name"], before["during"], before["code"], line["gap_ms"]))
        return cls(found)

    def during(self, *doings: str) -> "Gaps":
        """Return those that began while the operator did one of `doings`."""
        return Gaps([gap for gap in self.all if gap.during in doings])

    @property
    def median_s(self) -> float:
        """The middle one; 0 without any."""
        return statistics.median(gap.ms for gap in self.all) / 1000 if self.all else 0.0

    @property
    def longest_s(self) -> float:
        """The longest one."""
        return max((gap.ms for gap in self.all), default=0.0) / 1000

    def __str__(self) -> str:
        return (
            f"{len(self.all)} times without a connection, median {self.median_s:.1f} s, longest {self.longest_s:.1f} s"
        )
