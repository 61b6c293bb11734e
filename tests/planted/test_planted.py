"""The planted bugs stay plantable, and the hunt for them hunts."""

import ast

import pytest

from tests.planted.bugs import BUGS, Bug
from tests.planted.plant import ROOT, DoesNotApply, hunt, planted

BY_NAME = {bug.name: bug for bug in BUGS}
INVARIANTS = {
    "exactly-once", "single-owner", "worker-first", "bounded", "paced", "one-hop", "sticky", "token-once", "no-ghost",
    "bounded-memory", "no-orphan-task", "nobody-lost", "nobody-hurts", "liveness", "fair",
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_applies(bug: Bug) -> None:
    """The text of every bug is in its file exactly once, and the file compiles with the bug in it, to something else."""
    source = (ROOT / bug.file).read_text()
    mutated = planted(bug, source)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))


def test_named_once() -> None:
    """Every bug has a name of its own, breaks an invariant there is, and is told in one sentence."""
    assert len(BY_NAME) == len(BUGS) >= 36
    for bug in BUGS:
        assert bug.breaks in INVARIANTS
        assert bug.story.endswith(".")
        assert bug.story.count(".") == 1


def test_outdated_bug() -> None:
    """A bug whose text has gone from the code is an error, and not a bug that is overlooked."""
    with pytest.raises(DoesNotApply):
        planted(BUGS[0], "")


@pytest.mark.parametrize(
    "name", ["claim-keeps-the-epoch", "idle-session-kept", "moved-worker-told-its-sessions-are-over"]
)
def test_caught(name: str) -> None:
    """What breaks at once is caught within a few seeds."""
    found = hunt(BY_NAME[name], 12)
    assert found.caught
