"""A short share of the ten simulated minutes beside a core server in all its moods, and what its judges find."""

import attrs
import pytest

from tests.sim.scene import Scene, play_scene
from tests.sim.ten_minutes import Policy, plan_of, run

MINUTES = 0.7
"""Three deploys, and a kill in a spell."""


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_a_short_share(policy: Policy) -> None:
    """No session waits for the core server, every event is told, and a client comes in as the policy says."""
    summary = run(3, MINUTES, policy)
    assert summary.outcome.violations == ()
    assert summary.outcome.rare["node killed"] == 1
    assert summary.outcome.deploys >= 2
    assert summary.round_trips > 500
    assert summary.told > 20
    assert sum(what.startswith("core server ") for what in summary.outcome.rare) >= 4
    assert ("client let in without a yes" in summary.outcome.rare) is (policy == "open")


def test_an_answer_that_comes_late_is_found() -> None:
    """The time of a round trip is that of the simulation: one network delay is too long for a limit below it."""
    plan = attrs.evolve(plan_of(3, MINUTES, "without"), round_trip_s=0.005)
    outcome = play_scene(Scene(plan, keep=False, transport="messages"))
    assert [checker for checker, _ in outcome.violations] == ["round-trip"]


def test_a_client_without_a_yes_is_found() -> None:
    """What an open policy lets in, a closed one must not."""
    plan = plan_of(3, MINUTES, "open")
    assert plan.core is not None
    # The nodes go by their configuration, and the judge by the plan.
    scene = Scene(attrs.evolve(plan, core=attrs.evolve(plan.core, policy="closed")), keep=False, transport="messages")
    assert [checker for checker, _ in play_scene(scene).violations] == ["event-told"]
