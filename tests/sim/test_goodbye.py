"""Which connections a node that was told to stop may leave without a close."""

from types import SimpleNamespace
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from signald.config import Config
from signald.core.drain import Phase
from signald.node import Node
from signald.service.drain.ledger import Ledger
from tests.sim.net import SmallWindow
from tests.sim.nodes import SimNode
from tests.sim.plan import draw
from tests.sim.scene import Scene

WINDOW_BYTES = 256
FOURTH_SIGNAL_AT, NEVER = 5.0, float("inf")
CLOSE_AT = 3.0
CLOSED_BY = CLOSE_AT + Config().drain.close_timeout_s


@pytest.mark.parametrize(
    ("reads_at", "closed_at", "wrong"),
    [
        (NEVER, FOURTH_SIGNAL_AT, False),
        (NEVER, FOURTH_SIGNAL_AT - 0.1, True),  # three signals cut no handshake short
        (0.0, FOURTH_SIGNAL_AT, True),  # a goodbye would have gone out
        (FOURTH_SIGNAL_AT - 0.1, FOURTH_SIGNAL_AT, True),  # and as soon as there is room again
    ],
)
async def test_who_may_be_left(reads_at: float, closed_at: float, *, wrong: bool, autojump_clock: MockClock) -> None:
    """bounded: a fourth signal ends a connection without a close, and only one that takes nothing more."""
    node = SimNode("n1", Config(), signalled_at=0.0, cut_at=FOURTH_SIGNAL_AT)
    assert await _found(node, reads_at, closed_at) == ["bounded"] * wrong


@pytest.mark.parametrize(
    ("reads_at", "closed_at", "wrong"),
    [
        (NEVER, CLOSED_BY, False),
        (NEVER, CLOSED_BY - 0.1, True),  # there was time left in which it might have read
        (0.0, CLOSED_BY, True),  # a goodbye would have gone out
        (CLOSED_BY - 0.1, CLOSED_BY, True),  # and as soon as there is room again
    ],
)
async def test_who_outlasts_the_close(
    reads_at: float, closed_at: float, *, wrong: bool, autojump_clock: MockClock
) -> None:
    """bounded: without a fourth signal one that takes nothing more is left when the time for closing handshakes is over."""
    ledger = Ledger("n1")
    ledger.phase(Phase.UNREADY.value, 0.5, 0)
    ledger.phase(Phase.CLOSE.value, CLOSE_AT, 0)
    draining = cast("Node", SimpleNamespace(shutdown=SimpleNamespace(ledger=ledger)))
    node = SimNode("n1", Config(), node=draining, signalled_at=0.0)
    assert await _found(node, reads_at, closed_at) == ["bounded"] * wrong


async def _found(node: SimNode, reads_at: float, closed_at: float) -> list[str]:
    """What is found when `node` closes, at `closed_at`, a connection whose party reads from `reads_at` on."""
    scene = Scene(attrs.evolve(draw(1), net=(SmallWindow(WINDOW_BYTES),)), keep=False)
    scene.nodes.append(node)
    wire = scene.network.connect("c0", node.name, lambda _wire, _data: None, lambda _name, _why: None)

    async def read() -> None:
        await trio.sleep_until(reads_at)
        while await wire.party_end.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.move_on_at(closed_at):
            await wire.node_end.send_all(bytes(WINDOW_BYTES))
            await wire.node_end.send_all(b"said before the goodbye")
            await trio.sleep_forever()
        await wire.node_end.aclose()
        nursery.cancel_scope.cancel(reason="closed")
    scene.check.goodbye.closed(wire, None)
    return [name for name, _ in scene.violations]
