"""The simulation itself: a seed is a run, plans outlive what seeds mean, and what breaks a run is told by its seed."""

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from tests.sim.checkers import bridged
from tests.sim.plan import Step, draw
from tests.sim.runner import Job, run
from tests.sim.saved import Saved, load, save
from tests.sim.scene import play
from tests.sim.shrink import shrink, simpler_than
from tests.sim.small import draw_small
from tests.sim.sometimes import blind


@pytest.mark.long
def test_a_seed_is_a_run() -> None:
    """A seed gives the same events in processes with different hash seeds."""
    program = "from tests.sim.scene import play; print([play(seed).digest for seed in (3, 20, 43, 289)])"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("0", "7", "4000000000")
    }
    assert len(digests) == 1
    assert digests != {""}


def test_bridged() -> None:
    """A gap is excused only if every seq of it was said to be lost."""
    assert bridged(4, 6, [(1, 5), (6, 9)])
    assert not bridged(4, 6, [(1, 4), (6, 9)])


@pytest.mark.parametrize("seed", range(1, 60, 7))
def test_saved_plan(seed: int, tmp_path: Path) -> None:
    """A plan comes back from its file as it was written, whatever is in it."""
    for number, plan in enumerate((draw(seed), draw_small(seed))):
        path = tmp_path / f"{number}.json"
        save(Saved(plan, "messages", "nothing"), path)
        assert load(path) == Saved(plan, "messages", "nothing")


def broken_plan(path: Path) -> Path:
    """Write a small plan with an unknown step, at which the operator fails."""
    plan = attrs.evolve(draw_small(3), steps=(Step(1.0, "deploy"), Step(2.0, "unheard_of")))
    save(Saved(plan, "messages", ""), path)
    return path


@pytest.mark.long
def test_failures_are_told_by_their_job(tmp_path: Path) -> None:
    """A run that breaks a promise, a process that dies and one that hangs are failures of the job, and others go on."""
    bad = Job(plan=str(broken_plan(tmp_path / "bad.json")))
    dies = Job(plan=str(tmp_path / "missing.json"))
    total = run([bad, dies, Job(3, "messages")])
    assert total.seeds == 3
    assert {(failure.job, failure.checker) for failure in total.failures} == {(bad, "no-crash"), (dies, "crashed")}
    assert total.checked == 1
    slow = Job(1000, "frames")
    assert [failure.checker for failure in run([slow], hangs_s=0.01).failures] == ["hung"]


@pytest.mark.long
def test_a_run_ends_at_its_first_failure(tmp_path: Path) -> None:
    """Nothing new is begun after a failure when the run is to stop there, and the failure is told at once."""
    bad = Job(plan=str(broken_plan(tmp_path / "bad.json")))
    heard: list[Job] = []
    total = run([bad] * 40, stop=True, tell=lambda failure: heard.append(failure.job))
    assert 1 <= total.seeds < 40
    assert heard == [bad] * len(total.failures)


def test_shrunk(tmp_path: Path) -> None:
    """What is left of a plan still breaks the same promise, and nothing that does not take part in it is left."""
    plan = load(broken_plan(tmp_path / "bad.json")).plan
    smaller = shrink(plan, "messages", tries=60, tell=lambda _: None)
    assert [step.what for step in smaller.steps] == ["unheard_of"]
    assert play(smaller, transport="messages").violations[0][0] == "no-crash"


def test_nothing_shrinks_below_nothing() -> None:
    """No smaller plan has a client with less than no messages."""
    silent = attrs.evolve(draw(1).clients[0], messages=0, pad=0)
    assert all(simpler.messages == 0 and simpler.pad == 0 for _, simpler in simpler_than(silent))


def test_blind() -> None:
    """A search that has not met what it is for says so, and one of too few seeds to meet it does not."""
    assert len(blind("frames", 5, {})) == 0
    assert any("client handed over" in text for text in blind("frames", 50, {}))
    assert blind("frames", 20, {"client handed over": 2}) != blind("frames", 20, {})
