"""Connections in memory: what a test may do to them, and what both ends then see."""

import random

import pytest
import trio
from trio.testing import MockClock

from signald.testing.network import Network, Wire


def connected(network: Network, node: str = "n1") -> Wire:
    """A connection of a party to `node`; what the node writes and how it ends is not looked at."""
    return network.connect("c", node, lambda _wire, _data: None, lambda _wire, _why: None)


async def test_a_connection_carries_bytes_both_ways(autojump_clock: MockClock) -> None:
    """What one end writes the other reads, up to the end of the stream."""
    wire = connected(Network(random.Random(1)))
    await wire.party_end.send_all(b"up")
    await wire.node_end.send_all(b"down")
    assert (await wire.node_end.receive_some(), await wire.party_end.receive_some()) == (b"up", b"down")
    await wire.party_end.aclose()
    assert await wire.node_end.receive_some() == b""


async def test_a_reset_breaks_both_ends(autojump_clock: MockClock) -> None:
    """Data in flight is lost, and both ends get an error."""
    wire = connected(Network(random.Random(1)))
    await wire.party_end.send_all(b"lost")
    wire.reset()
    for end in (wire.party_end, wire.node_end):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()


async def test_a_sender_waits_while_the_window_is_full(autojump_clock: MockClock) -> None:
    """More than the window in flight holds the sender back until the receiver has read."""
    wire = connected(Network(random.Random(1)))
    wire.up.window_bytes = 4
    await wire.party_end.send_all(b"1234")
    with trio.move_on_after(1) as full:
        await wire.party_end.send_all(b"5678")
    assert full.cancelled_caught
    assert await wire.node_end.receive_some() == b"1234"
    await wire.party_end.send_all(b"5678")
    assert await wire.node_end.receive_some() == b"5678"


@pytest.mark.parametrize("refused", [True, False])
async def test_an_isolated_node_is_not_reached(refused: bool, autojump_clock: MockClock) -> None:
    """Open connections stall until it is over; new ones hang as well, or are refused at once."""
    network = Network(random.Random(1))
    before = connected(network)
    network.isolate("n1", 5.0, refused=refused)
    during = connected(network)
    await before.party_end.send_all(b"late")
    if refused:
        with pytest.raises(trio.BrokenResourceError):
            await during.party_end.send_all(b"never")
    assert await before.node_end.receive_some() == b"late"
    assert trio.current_time() >= 5.0
    assert not connected(network, "n2").up.broken


async def test_a_paused_process_neither_reads_nor_writes(autojump_clock: MockClock) -> None:
    """What the node writes during a pause leaves it at the end of the pause."""
    network = Network(random.Random(1))
    wire = connected(network)
    network.gate("n1").pause(3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.node_end.send_all, b"after")
        assert await wire.party_end.receive_some() == b"after"
    assert trio.current_time() == pytest.approx(3.0)
