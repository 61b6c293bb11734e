"""The quick share of the search: plans that have shown something, and seeds on all cores, of which nothing may be wrong.

The long searches stand first: the process that has this file is given another one when two tests of it are left, and that
one has to wait for them.

Nothing here is run twice: a seed or a plan is one job, and each hundredth is done once more by another process, which
must come to the same digest.
"""

import faulthandler
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.sim.runner import Job, Total, run
from tests.sim.scene import Transport
from tests.sim.sometimes import blind

FRAMES = range(1000, 1300)
MESSAGES = range(1, 1901)
FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))
PARTS = 3


def search(transport: Transport, seeds: Iterable[int]) -> Total:
    """Play the seeds; all must keep every promise, and together meet what they are for."""
    faulthandler.cancel_dump_traceback_later()  # it takes minutes, and the runner notices what does not end
    total = run(Job(seed, transport) for seed in seeds)
    assert [str(failure) for failure in total.failures] == []
    assert blind(transport, total.seeds, total.reached) == []
    assert total.checked >= total.seeds // 100
    return total


def test_messages() -> None:
    """No promise is broken where whole messages go, and deploys come one upon the other."""
    search("messages", MESSAGES)


def test_frames() -> None:
    """No promise is broken over the whole stack, bytes and all."""
    search("frames", FRAMES)


@pytest.mark.parametrize("part", range(PARTS))
def test_what_was_found(part: int) -> None:
    """What a plan has shown once, it does not show again."""
    plans = FOUND[part::PARTS]
    assert plans
    total = run(Job(plan=str(path)) for path in plans)
    assert [str(failure) for failure in total.failures] == []
    assert total.seeds == len(plans)
