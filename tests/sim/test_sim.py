"""The quick share of the simulation: some seeds, those that have found something, and that a seed is a run."""

import subprocess
import sys

import pytest

from tests.sim.checkers import bridged
from tests.sim.plan import draw
from tests.sim.scene import play

QUICK = range(1000, 1040)

FOUND = {
    2: "what the store had lost counted for ever as waiting for the worker",
    20: "a claim that a slow store was asked for long ago came after its token had been rotated: called theft, revoked",
    71: "two claims of one worker were under way at one node, and the older one took the place of the newer",
    78: "lost messages filled a backlog that nobody could empty",
    231: "the same with the sender at another node",
    289: "a draining node that had not heard of its worker's move told it that its sessions were over",
    361: "a session that waited got a worker of the draining node, and its client was told to go before that worker",
}
"""Seed → what it has shown. The plans change as the simulation grows; what they showed has tests of its own as well."""


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found(seed: int) -> None:
    """What a seed has shown once, it does not show again."""
    assert play(seed).violations == ()


def test_quick_share() -> None:
    """No promise is broken in any of these runs, and what they are for does occur in them."""
    rare: set[str] = set()
    for seed in QUICK:
        outcome = play(seed)
        assert outcome.violations == (), draw(seed).story()
        rare |= outcome.rare.keys()
    wanted = {
        "client handed over",
        "worker handed over",
        "worker replaced",
        "node killed",
        "connection reset",
        "store outage",
        "store: lost reply after apply",
        "deploy during a deploy",
        "client restarted from its state",
    }
    assert wanted <= rare


def test_a_seed_is_a_run() -> None:
    """A seed gives the same events in processes with different hash seeds."""
    program = "from tests.sim.scene import play; print([play(seed).digest for seed in (3, 20, 289)])"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("0", "7")
    }
    assert len(digests) == 1
    assert digests != {""}


def test_bridged() -> None:
    """A gap is excused only if every seq of it was said to be lost."""
    assert bridged(4, 6, [(1, 5), (6, 9)])
    assert not bridged(4, 6, [(1, 4), (6, 9)])
