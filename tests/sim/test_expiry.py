"""Whose session may expire while its client is attached to a node that lives."""

from types import SimpleNamespace
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from signald.config import Config
from signald.node import Node
from signald.store.registry.ops import NodeInfo
from tests.sim.nodes import SimNode
from tests.sim.plan import Step, draw
from tests.sim.scene import Scene
from tests.sim.store_checkers import Expiry
from tests.sim.stores import SlowStore

SLOW = SlowStore(share=1.0, up_to_s=1.5)
TTL_S = 2.0
CLOCK_SET_AT, CLOCK_SET_MS = 1.0, 3_600_000


@pytest.mark.parametrize(
    ("renewals", "judged_at", "slow", "dead"),
    [
        ([(5.0, 5.0), (6.0, 8.7)], 8.8, True, True),  # over when the store took it
        ([(5.0, 7.1), (7.1, 8.2)], 8.3, True, True),  # it was over, and some node has not seen that it is back
        ([(5.0, 7.1), (7.1, 8.2)], 9.0, True, False),  # by now they have
        ([(5.0, 5.0), (6.0, 6.9)], 7.5, True, False),  # it was renewed in time
        ([(5.0, 7.1), (7.1, 8.2), (7.1, 8.25)], 8.3, True, True),  # asked again, the same renews nothing
        ([(5.0, 5.0), (6.0, 8.7)], 8.8, False, False),  # a store that is not slow explains nothing
        ([(0.5, 3.5)], 3.6, True, False),  # the time of the request is unknown
    ],
)
async def test_who_counts_as_dead(
    renewals: list[tuple[float, float]], judged_at: float, *, slow: bool, dead: bool, autojump_clock: MockClock
) -> None:
    """nobody-lost: a slow store ends a lease by the time its renewal was asked for, and only while no other node may know better."""
    step = Step(at=CLOCK_SET_AT, what="clock_step", number=0, seconds=CLOCK_SET_MS / 1000, how="")
    scene = Scene(attrs.evolve(draw(1), store=(SLOW,) * slow, steps=(step,)), keep=False)
    began = trio.current_time()

    def store_ms(at: float) -> int:
        return round(at * 1000) + CLOCK_SET_MS * (at >= CLOCK_SET_AT)

    store = SimpleNamespace(now_ms=lambda: store_ms(trio.current_time() - began))
    node = SimNode("n1", Config(), node=cast("Node", SimpleNamespace(hub=SimpleNamespace(store=store))))
    node.ready.set()
    scene.nodes.append(node)
    expiry = Expiry(scene)
    scene.trouble.clock_set_at = began + CLOCK_SET_AT
    for asked_at, applied_at in renewals:
        await trio.sleep_until(began + applied_at)
        expiry._renewed(NodeInfo("n1", "", "ready", 0, 0, renewed_ms=store_ms(asked_at)))
    await trio.sleep_until(began + judged_at)
    assert expiry._counts_as_dead("n1", TTL_S) is dead
