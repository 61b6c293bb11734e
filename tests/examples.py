"""How many examples a property is given, in every day's run and in a long one."""

from hypothesis import settings

USUAL = 100
"""What Hypothesis gives a property that says nothing."""


def examples(usual: int) -> int:
    """As many as `usual` in the run of every day, and as many times more as the Hypothesis profile asks for."""
    return max(1, usual * settings().max_examples // USUAL)
