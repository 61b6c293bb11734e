"""A short share of the search that `python -m tests.real.hostile_address` makes: one address plays every trick at once."""

from pathlib import Path

import pytest

from tests.real.hostile_address import LIMIT_BYTES, measure

pytestmark = pytest.mark.real

SESSIONS_MAX = 100
"""Of which one address has half: few enough to be reached."""


async def test_one_address_keeps_nobody_out(tmp_path: Path) -> None:
    """Newcomers are paired, /livez answers, memory and store stay below their bounds, and a pause costs a party nothing."""
    figures = await measure(tmp_path, 16.0, SESSIONS_MAX)
    # How fast is judged by the script, on a machine that has nothing else to do.
    assert figures.paired
    assert not figures.failed
    assert figures.alive
    assert figures.rss < LIMIT_BYTES
    assert figures.sessions <= SESSIONS_MAX
    assert figures.steady
    assert not figures.complaint, figures.complaint
