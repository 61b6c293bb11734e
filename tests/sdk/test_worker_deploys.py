"""Workers that are deployed and killed, as processes of their own on real nodes. The campaign is `python -m tests.sdk.worker_deploys`."""

from pathlib import Path

import pytest
import trio

from tests.real.harness import Settings, open_nodes
from tests.sdk.worker_deploys import SETTINGS, Scene, deploys

pytestmark = pytest.mark.real

CLIENTS = 8


def judge(scene: Scene) -> None:
    """Nothing is missing, doubled or reordered, no worker has a traceback, and answers have come."""
    assert scene.counts.wrong == []
    assert scene.tracebacks() == []
    assert scene.counts.answers >= scene.clients


@pytest.mark.parametrize("front", ["trio", "asyncio"])
async def test_deploys_of_workers_and_of_signald_in_turn(tmp_path: Path, front: str) -> None:
    """In the middle of answers: each client is told `replaced`, its text goes on under the same attempt, and each process ends with 0."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", SETTINGS) as nodes:
        scene = Scene(nodes, front, CLIENTS, pieces=40)
        with trio.fail_after(200):
            await deploys(scene, 1)
    judge(scene)
    assert scene.counts.replaced == CLIENTS
    assert scene.counts.attempts == 1
    assert max(map(len, scene.counts.served)) == 1, "the state of the first worker has come to the second"


@pytest.mark.parametrize("front", ["trio", "asyncio"])
async def test_a_worker_that_is_killed(tmp_path: Path, front: str) -> None:
    """Its sessions are handed out again after `worker.resume_timeout_s`, with what was acked; each text goes on behind what was stored."""
    settings: Settings = {"worker": {"resume_timeout_s": 1.0}}
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", settings) as nodes:
        scene = Scene(nodes, front, CLIENTS, pieces=40)
        with trio.fail_after(200):
            await deploys(scene, 0, kills=1)
    judge(scene)
    assert scene.counts.replaced == CLIENTS
    assert scene.counts.attempts == 1
