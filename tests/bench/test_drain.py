"""The figures of the drain benchmark mean what they say."""

from tests.bench.drain import peak_per_s
from tests.bench.report import percentile


def test_the_peak_is_the_most_within_any_second() -> None:
    """The second may begin anywhere, and its end does not belong to it."""
    assert peak_per_s([(0.0, 1), (0.9, 2), (1.0, 4), (1.8, 8), (3.0, 1)]) == 14
    assert peak_per_s([(1.0, 4), (0.0, 8)]) == 8
    assert peak_per_s([]) == 0


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank is taken, and the highest is never exceeded."""
    assert [percentile([3.0, 1.0, 2.0], percent) for percent in (0, 50, 99, 100)] == [1.0, 2.0, 3.0, 3.0]
    assert percentile([], 99) == 0.0
