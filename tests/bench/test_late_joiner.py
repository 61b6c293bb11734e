"""The benchmark of late joiners judges the picture, memory and relay, and members that join get a whole room."""

import os

import pytest

from tests.bench import late_joiner
from tests.bench.blobs import MIB, Phase
from tests.bench.errors import BenchError
from tests.bench.late_joiner import Answer, Load, judge, rows_of, wrong
from tests.bench.servers import Cores


def seen(memory: int, relayed_s: float) -> list[Phase]:
    """What a run has seen, the steady state with 100 MiB and 1 ms."""
    steady, joining = Phase("steady", 100 * MIB), Phase("joins", memory)
    steady.relayed_s, joining.relayed_s = [0.001] * 100, [relayed_s] * 100
    return [steady, joining]


def test_the_limits() -> None:
    """What just keeps them is in order, and each is broken by itself."""
    rows, broken = judge(seen(116 * MIB, 0.0015), 0)
    assert (broken, [row["measured"] for row in rows]) == (False, [0.0, 16.0, 1.5])
    for phases, pictures in (
        (seen(116 * MIB + 4096, 0.001), 0),
        (seen(100 * MIB, 0.0016), 0),
        (seen(100 * MIB, 0.001), 1),
    ):
        rows, broken = judge(phases, pictures)
        assert broken
        assert [row["verdict"] for row in rows].count("BROKEN") == 1


def test_a_picture() -> None:
    """Its pages are joined; records of another position make it wrong, and so do pages of two positions or a record on two pages."""
    first, second = (
        b'{"type":"joined","position":3,"epoch":"e","records":{"a":{"x":1}}}',
        b'{"type":"joined","position":3,"epoch":"e","records":{"b":{"x":2}}}',
    )
    answer = Answer([first, second])
    assert answer.read() == (3, {"a": {"x": 1}, "b": {"x": 2}})
    assert wrong([answer], lambda _: {"a": {"x": 1}, "b": {"x": 2}}) == 0
    assert wrong([answer], lambda _: {"a": {"x": 1}}) == 1
    for bad in (first.replace(b":3", b":4"), first):
        with pytest.raises(BenchError):
            Answer([first, bad]).read()


@pytest.mark.real
def test_a_small_room_is_joined_and_the_node_is_watched() -> None:
    """Each answer is one picture of a room that goes on, in several pages, and every figure was taken."""
    core = min(os.sched_getaffinity(0))
    load = Load(records=300, record_bytes=600, sessions=3, joins=3, steady_s=0.5)
    phases, answers, drawer = late_joiner.measure("signald-sqlite", Cores(core, core, core), load)
    assert [one.name for one in phases] == ["steady", "joins"]
    assert all(one.memory > MIB and one.lags_s and one.round_trips_s and one.relayed_s for one in phases)
    assert all(len(one.frames) > 1 and len(one.read()[1]) == 300 for one in answers)
    assert (len(answers), wrong(answers, drawer.records_at)) == (3, 0)
    assert len(rows_of("x", phases, answers)) == 2
