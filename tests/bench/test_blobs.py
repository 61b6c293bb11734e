"""The benchmark of blobs judges memory and lag of the node, and carries real bytes."""

import os
from pathlib import Path

import pytest

from tests.bench import blobs, loop_lag
from tests.bench.blobs import MIB, Load, Phase, judge, rows_of
from tests.bench.servers import Cores


def seen(memory: int, lag_s: float) -> list[Phase]:
    """What a run has seen, the steady state with 100 MiB and 1 ms."""
    return [Phase("steady", 100 * MIB, [0.001] * 100), Phase("up", memory, [lag_s] * 100), Phase("down")]


def test_the_limits() -> None:
    """What just keeps them is in order, and each is broken by itself."""
    rows, broken = judge(seen(108 * MIB, 0.002))
    assert (broken, [row["measured"] for row in rows]) == (False, [8.0, 2.0])
    for phases in (seen(108 * MIB + 4096, 0.001), seen(100 * MIB, 0.0021)):
        rows, broken = judge(phases)
        assert broken
        assert [row["verdict"] for row in rows].count("BROKEN") == 1


def test_lags_of_a_time(tmp_path: Path) -> None:
    """Samples are read by their time, with the one that tells of the end; one that is being written is none."""
    file = tmp_path / "lag"
    file.write_bytes(b"".join(loop_lag._SAMPLE.pack(at, at / 10) for at in (1.0, 2.0, 3.0)) + b"half")
    assert loop_lag.read(file, 2.0, 3.0) == [0.2, 0.3]
    assert loop_lag.read(file, 2.5, 2.7) == [0.3]
    assert loop_lag.read(file, 2.0, 3.1) is None


@pytest.mark.real
def test_bytes_are_carried_and_the_node_is_watched() -> None:
    """All blobs come back as they were sent, and every figure was taken."""
    core = min(os.sched_getaffinity(0))
    phases = blobs.measure("signald-sqlite", Cores(core, core, core), Load(at_once=3, size=MIB, steady_s=0.5, rounds=1))
    assert [one.name for one in phases] == ["steady", "3 uploads", "3 downloads"]
    assert [len(one.took_s) for one in phases] == [0, 3, 3]
    assert all(one.memory > MIB and one.lags_s and one.round_trips_s for one in phases)
    assert len(rows_of("x", phases, MIB)) == 3
