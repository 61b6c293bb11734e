"""A short share of the liars for every commit; tests/campaign plays them for as long as it is given."""

import pytest

from tests.hostile.__main__ import PARTS


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", range(1, 11))
def test_nothing_ends_but_the_liars_own(part: str, seed: int) -> None:
    """nobody-hurts: whatever a client, a worker or a node says, honest parties go on over their first connection, without an alarm."""
    PARTS[part](seed)
