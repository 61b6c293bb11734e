"""The benchmark of streams judges the shape of an answer by what the node has counted, and carries real streams."""

import os

import pytest

from tests.bench import __main__ as command
from tests.bench import streams
from tests.bench.servers import Cores
from tests.bench.streams import Counters, judge


def counted(appends: int, frames: int, operations: int) -> Counters:
    """What a node has counted for an answer."""
    return Counters(appends, appends, frames, operations, 0.1, 0.1)


def test_the_limits_of_an_answer() -> None:
    """An answer that just keeps them is in order; a single append, frame or operation more is not."""
    rows, broken = judge(9000, counted(1800, 450, 450))
    assert (broken, [row["measured"] for row in rows]) == (False, [5.0, 4.0, 4.0])
    for more in (counted(1801, 450, 450), counted(1800, 451, 450), counted(1800, 450, 451)):
        rows, broken = judge(9000, more)
        assert broken
        assert [row["verdict"] for row in rows].count("BROKEN") == 1


def test_an_answer_without_acks_breaks_the_limits() -> None:
    """What was not counted at all was not measured."""
    assert judge(9000, counted(1500, 0, 300))[1]
    assert judge(9000, counted(0, 0, 0))[1]


def test_a_broken_shape_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1, and the table says which limit is broken."""
    monkeypatch.setattr(command, "pinned", lambda: Cores(0, 0, 0))
    monkeypatch.setattr(streams, "throughput", lambda *_: [])
    monkeypatch.setattr(streams, "answer", lambda *_: counted(1500, 1500, 300))
    with pytest.raises(SystemExit) as ended:
        command.streams(servers=("signald-memory",))
    assert ended.value.code == 1
    assert "BROKEN" in capsys.readouterr().out
    monkeypatch.setattr(streams, "answer", lambda *_: counted(1500, 300, 300))
    command.streams(servers=("signald-memory",))
    assert "BROKEN" not in capsys.readouterr().out


@pytest.mark.real
def test_pieces_are_delivered_and_an_answer_is_counted() -> None:
    """All three ways of saying pieces have figures, and both ways of an answer have come whole and were counted."""
    core = min(os.sched_getaffinity(0))
    cores = Cores(core, core, core)
    rows = streams.throughput("signald-memory", cores, sessions=2, seconds=0.2, slices=1)
    assert [row["what"] for row in rows] == ["messages", "single", "rolled up"]
    assert all(float(row["pieces/s"] or 0) > 0 for row in rows)
    answers, limits, _ = streams.shape("signald-memory", cores, tokens=150, rate=300.0)
    assert answers[0]["messages"] == 150
    assert 0 < int(answers[1]["appends"] or 0) < 150
    assert all(row["measured"] is not None for row in limits)
