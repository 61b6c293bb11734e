"""A short share of the search that `python -m tests.real.hostile_address` makes: one address plays every trick at once."""

from pathlib import Path

import pytest

from tests.real.hostile_address import LIMIT_BYTES, SESSIONS_MAX, measure

pytestmark = pytest.mark.real


async def test_one_address_keeps_nobody_out(tmp_path: Path) -> None:
    """Newcomers from another address are paired, /livez answers, and memory and store stay below their bounds."""
    figures = await measure(tmp_path, 16.0)
    # How fast is judged by the script, on a machine that has nothing else to do.
    assert figures.paired
    assert not figures.failed
    assert figures.alive
    assert figures.rss < LIMIT_BYTES
    assert figures.sessions <= SESSIONS_MAX
