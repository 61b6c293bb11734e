"""What is recalled is shown to the nodes, and the checker of it tells a node that takes it from one that need not know."""

import attrs
import pytest

from signald.service.api.callers import HttpCallers
from signald.service.cluster.revocations import RevocationKeeper
from signald.service.revoked import Revocations
from tests.sim.plan import JWT_SECRET, Plan, Step
from tests.sim.recalls import CallerPlan, Recalls
from tests.sim.scene import Outcome, Transport, play
from tests.sim.small import draw_small

CALLERS = (CallerPlan("client", 0.0, 0.5, True), CallerPlan("worker", 0.0, 0.5, False))
STEPS = (Step(2.0, "recall", 0), Step(2.5, "recall", 1), Step(3.0, "deploy"))


def outcome(transport: Transport = "messages", steps: tuple[Step, ...] = STEPS) -> Outcome:
    """A deploy after two recalls, and no faults."""
    plan: Plan = draw_small(3)
    assert not plan.store_may_lose
    auth: dict[str, object] = {"jwt_secret": JWT_SECRET, "api_token_ttl_s": 6.0}
    plain = attrs.evolve(plan, net=(), store=(), habits=(), speech=None, poison=None, steps=steps, releases=())
    plan = attrs.evolve(
        plain, nodes=2, recalls=Recalls(CALLERS, 6.0), planned_only=False, sections={**plan.sections, "auth": auth}
    )
    return play(plan, transport=transport)


@pytest.mark.parametrize("transport", ["messages", "frames"])
def test_recalled_tokens_are_refused(transport: Transport) -> None:
    """At nodes that were there and at one that was started later; their holders come again with new credentials."""
    played = outcome(transport)
    assert played.violations == ()
    for what in (
        "recalled token refused",
        "recalled token refused by a later node",
        "caller came again after a recall",
    ):
        assert played.rare.get(what), what


def test_a_node_that_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that heeds no revocation breaks the promise."""
    monkeypatch.setattr(Revocations, "refuses", lambda *_: False)
    ((checker, text), *_) = outcome().violations
    assert checker == "no-token-after-recall", text


def test_a_node_that_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither may a node that the store would have told, and that has not asked, within two seconds of the recall."""

    async def deaf(_: RevocationKeeper, *, again: bool) -> None:
        del again

    monkeypatch.setattr(RevocationKeeper, "_read", deaf)
    ((checker, text), *_) = outcome(steps=STEPS[:2]).violations
    assert (checker, "it was stored at" in text or "it knows" in text) == ("no-token-after-recall", True), text


def test_a_node_that_refuses_what_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that refuses each API token recalls nothing: it hurts their holders."""
    monkeypatch.setattr(HttpCallers, "_of_party", lambda self, _: self._of_jwt("", ()))
    ((checker, text), *_) = outcome(steps=()).violations
    assert checker == "no-token-after-recall"
    assert "which is good" in text
