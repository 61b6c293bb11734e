"""All the points at which a process may die, and what comes of each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import attrs

from tests.crash.scene import Ending, run
from tests.crash.scripts import SCENARIOS
from tests.crash.steps import KINDS, Crash, Kind


@attrs.frozen
class Point:
    """One crash."""

    scenario: str
    victim: str
    kind: Kind
    step: int

    def __str__(self) -> str:
        return f"--scenario {self.scenario} --victim {self.victim} --kind {self.kind} --step {self.step}"


@attrs.frozen
class Verdict:
    """What came of it."""

    point: Point
    struck: bool
    violations: tuple[tuple[str, str], ...]


def _play(point: Point, *, keep: bool) -> Ending:
    scenario = SCENARIOS[point.scenario]
    return run(
        scenario.script, scenario.plan(), scenario.victims[point.victim], Crash(point.kind, point.step), keep=keep
    )


@cache
def _whole(scenario: str, victim: str) -> Ending:
    """A run in which no process dies."""
    return _play(Point(scenario, victim, "await", 0), keep=False)


def steps_of(scenario: str, victim: str) -> dict[Kind, int]:
    """How many steps of each kind a victim takes when no process dies."""
    return _whole(scenario, victim).steps


def points_around(scenario: str, victim: str, operation: str, batches: int) -> Iterator[Point]:
    """Every point of the first `batches` batches of the store in which a victim has an operation of this name."""
    found = [(step, names.split()) for step, names in _whole(scenario, victim).batches.items()]
    for step, names in [one for one in found if operation in one[1]][:batches]:
        for further in range(len(names) + 1):
            yield Point(scenario, victim, "store", step + further)


def points(scenario: str, victim: str, every: Mapping[Kind, int], kinds: Sequence[Kind] = KINDS) -> Iterator[Point]:
    """Every point of a victim, or of some kinds only every so many."""
    counts = steps_of(scenario, victim)
    for kind in kinds:
        for step in range(1, counts.get(kind, 0) + 1, every[kind]):
            yield Point(scenario, victim, kind, step)


def run_point(point: Point) -> Verdict:
    """Kill there, and judge."""
    ending = _play(point, keep=False)
    violations = ending.violations
    if not ending.struck:
        violations = (("blind", f"only {ending.steps} steps"), *violations)
    return Verdict(point, ending.struck, violations)


def story(point: Point, around: int | None) -> str:
    """What happened `around` the crash, so many lines before and after, or all of it."""
    ending = _play(point, keep=True)
    low = 0 if around is None else max(0, ending.struck_at_line - around)
    high = len(ending.lines) if around is None else ending.struck_at_line + around
    broken = [f"BROKEN {checker}: {text}" for checker, text in ending.violations]
    return "\n".join([str(point), *ending.lines[low:high], *broken])
