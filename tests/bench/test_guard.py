"""The guard's judge: the median of the pairs, beside what the commit differs from itself. Speed itself is not asserted."""

from pathlib import Path

import pytest

from tests.bench import __main__ as command
from tests.bench import guard
from tests.bench.errors import BenchError
from tests.bench.servers import TREE, Cores


def test_an_equal_tree_is_within_the_limit() -> None:
    """The same figures give no change, no spread, and the least limit."""
    verdict = guard.judge([10.0] * 5, [10.0] * 5)
    assert verdict == (0.0, 0.0, guard.LIMIT)
    assert not verdict.exceeded


@pytest.mark.parametrize(("share", "exceeded"), [(1.04, True), (1.02, False), (0.5, False)])
def test_a_quiet_machine_judges_by_the_least_limit(share: float, exceeded: bool) -> None:
    """Four in a hundred more is too much, two are not, and a tree that costs less is never refused."""
    assert guard.judge([10.0] * 5, [10.0 * share] * 5).exceeded is exceeded


def test_a_noisy_machine_judges_by_its_spread() -> None:
    """Where the commit differs from itself by a tenth, a tenth of change proves nothing, and three tenths do."""
    base = [10.0, 11.0, 10.0, 11.0, 10.0]
    verdict = guard.judge(base, [figure * 1.1 for figure in base])
    assert verdict.change == pytest.approx(0.1)
    assert verdict.limit == pytest.approx(0.19, abs=0.01)
    assert not verdict.exceeded
    assert guard.judge(base, [figure * 1.3 for figure in base]).exceeded


def test_a_slow_drift_is_neither_change_nor_spread() -> None:
    """A machine that has grown twice as slow by the end counts for both trees, and a real change is still seen."""
    base = [10.0 * 1.05**n for n in range(15)]
    verdict = guard.judge(base, [figure * 1.2 for figure in base])
    assert verdict.change == pytest.approx(0.2)
    assert verdict.spread == pytest.approx(0.05)
    assert verdict.exceeded


def test_one_disturbed_pair_decides_nothing() -> None:
    """A run ten times as slow as the others leaves the verdict as it is."""
    assert not guard.judge([10.0] * 5, [10.0, 100.0, 10.0, 10.0, 10.0]).exceeded


@pytest.mark.parametrize(("base", "ours"), [([1.0], [1.0]), ([1.0, 1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_no_verdict_without_figures(base: list[float], ours: list[float]) -> None:
    """Too few pairs, unequal lists and a figure of 0 are errors, and no tree passes by them."""
    with pytest.raises(BenchError):
        guard.judge(base, ours)


def figures(cpu: float, rate: float) -> guard.Figures:
    """Return what one run shows."""
    return {"relay w1": {guard.CPU: cpu, "per s": rate}}


def test_only_cpu_is_judged() -> None:
    """A rate that has halved is shown and refuses nothing; CPU that has grown by a tenth does."""
    rows, exceeded = guard.table([figures(10, 100)] * 3, [figures(10, 50)] * 3)
    assert not exceeded
    assert [row["verdict"] for row in rows] == ["within", "not judged"]
    rows, exceeded = guard.table([figures(10, 100)] * 3, [figures(11, 100)] * 3)
    assert exceeded
    assert [row["verdict"] for row in rows] == ["BEYOND", "not judged"]


@pytest.mark.parametrize("cost", [1.0, 1.5])
def test_the_command_measures_pairs_and_says_so_by_its_status(
    cost: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trees alternate, a failed pair is measured again, and the status is 1 beyond the limit."""
    order: list[bool] = []
    failures = [BenchError("the machine stood still")]

    def measure(_cores: Cores, tree: Path, load: guard.Load) -> guard.Figures:
        assert load is guard.QUICK
        assert (tree / "signald" / "cli.py").is_file()
        if len(order) == 2 and failures:
            raise failures.pop()
        order.append(tree == TREE)
        return figures(10.0 * (cost if tree == TREE else 1.0), 100.0)

    monkeypatch.setattr(guard, "measure", measure)
    monkeypatch.setattr(command, "pinned", lambda: Cores(0, 0, 0))
    arguments = ["guard", "--against", "HEAD", "--quick"]
    if cost > 1.0:
        with pytest.raises(SystemExit, match="1"):
            command.app(arguments)
    else:
        command.app(arguments, result_action="return_value")
    assert order == [False, True, True, False, False, True]
    assert "relay w1" in capsys.readouterr().out


def test_an_unknown_commit_is_an_error() -> None:
    """The message names the commit."""
    with pytest.raises(BenchError, match="no-such-commit"), guard.checkout("no-such-commit"):
        pass


def test_what_is_measured_is_the_tree_that_was_asked_for(tmp_path: Path) -> None:
    """The interpreter takes signald from the checkout's folder, and a folder without one is refused."""
    with guard.checkout("HEAD") as base:
        guard.prepare(base)
    with pytest.raises(BenchError, match="not what would be measured"):
        guard.prepare(tmp_path)
