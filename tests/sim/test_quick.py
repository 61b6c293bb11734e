"""The quick share of the search: plans that have shown something, and seeds on all cores, of which nothing may be wrong.

Nothing here is run twice: a seed or a plan is one job, and each hundredth is done once more by another process, which
must come to the same digest.
"""

from collections.abc import Iterable
from pathlib import Path

from tests.sim.runner import Job, Total, run
from tests.sim.scene import Transport
from tests.sim.sometimes import blind

FRAMES = range(1000, 1120)
MESSAGES = range(1, 801)
FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))


def search(transport: Transport, seeds: Iterable[int]) -> Total:
    """Play the seeds; all must keep every promise, and together meet what they are for."""
    total = run(Job(seed, transport) for seed in seeds)
    assert [str(failure) for failure in total.failures] == []
    assert blind(transport, total.seeds, total.reached) == []
    assert total.checked >= total.seeds // 100
    return total


def test_what_was_found() -> None:
    """What a plan has shown once, it does not show again."""
    assert FOUND
    total = run(Job(plan=str(path)) for path in FOUND)
    assert [str(failure) for failure in total.failures] == []
    assert total.seeds == len(FOUND)


def test_frames() -> None:
    """No promise is broken over the whole stack, bytes and all."""
    search("frames", FRAMES)


def test_messages() -> None:
    """No promise is broken where whole messages go, and deploys come one upon the other."""
    search("messages", MESSAGES)
