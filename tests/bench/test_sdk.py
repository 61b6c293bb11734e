"""The benchmark of the SDK measures three clients beside each other, and holds them to the bare one."""

import pytest

from tests.bench.sdk import KINDS, rows, run
from tests.bench.sdk_party import Slices
from tests.bench.servers import Cores


def test_ratios_are_to_the_bare_client() -> None:
    """Medians of all slices, in the units of their columns."""
    took = {
        kind: {"trip": [factor * 1e-4] * 3, "reconnect": [factor * 1e-3, 9.0, factor * 1e-3]}
        for factor, kind in enumerate(KINDS, 1)
    }
    found = rows(took)
    assert [round(float(row["trips x bare"] or 0), 3) for row in found] == [1, 2, 3]
    assert [round(float(row["reconnects x bare"] or 0), 3) for row in found] == [1, 2, 3]
    assert [round(float(row["round trip, CPU µs"] or 0)) for row in found] == [100, 200, 300]
    assert [round(float(row["reconnect, CPU ms"] or 0), 3) for row in found] == [1, 2, 3]


@pytest.mark.real
def test_three_clients_take_turns() -> None:
    """A short run has a row with time for each client."""
    found = run(Cores(load=0, server=0, redis=0), 1, Slices(1, 20, 2))
    assert [row["client"] for row in found] == list(KINDS)
    assert all(float(row["round trip, CPU µs"] or 0) > 0 and float(row["reconnect, CPU ms"] or 0) > 0 for row in found)
