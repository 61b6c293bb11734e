"""Many sockets are read by one task: what each gets, in which order, and what ends it."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from signald.net.poller import READY_MAX, Poller
from signald.net.pump import Pump
from signald.net.transport import SocketTransport

STUCK_S = 20.0
"""A test takes a few milliseconds; a task that is not woken waits for ever."""

pytestmark = pytest.mark.skipif(not Poller.works, reason="this system has no epoll")  # the poller is not used there


@asynccontextmanager
async def pairs(count: int) -> AsyncIterator[tuple[trio.Nursery, Poller, list[tuple[socket.socket, SocketTransport]]]]:
    """Connections whose near ends one poller can watch, and a nursery for it."""
    with trio.fail_after(STUCK_S):
        async with trio.open_nursery() as nursery:
            poller = Poller(nursery.start_soon)
            made = []
            for _ in range(count):
                far, near = socket.socketpair()
                near.setblocking(False)
                made.append((far, SocketTransport(near, poller)))
            try:
                yield nursery, poller, made
            finally:
                for far, transport in made:
                    transport.close()
                    far.close()


async def settle() -> None:
    """Let the poller have its turns."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_each_connection_gets_its_bytes_in_order() -> None:
    """One task reads for all, and each hears what its own peer has sent, in order."""
    async with pairs(2 * READY_MAX) as (nursery, _, made):
        heard: list[bytes] = [b""] * len(made)

        def hand_on(number: int) -> Callable[[bytes], None]:
            def take(data: bytes) -> None:
                heard[number] += data

            return take

        pumps = [Pump(transport, hand_on(number)) for number, (_, transport) in enumerate(made)]
        for pump in pumps:
            nursery.start_soon(pump.run)
        await settle()
        for text in (b"first ", b"second"):
            for number, (far, _) in enumerate(made):
                far.send(text + str(number).encode())
            await settle()
        assert heard == [f"first {number}second{number}".encode() for number in range(len(made))]
        for pump in pumps:
            pump.end()


async def test_the_end_of_a_peer_is_no_bytes() -> None:
    """A peer that is gone is told once, and the pump goes on until it is ended."""
    async with pairs(1) as (nursery, _, [(far, transport)]):
        heard: list[bytes] = []
        ended = trio.Event()

        async def run() -> None:
            await pump.run()
            ended.set()

        def take(data: bytes) -> None:
            heard.append(data)
            pump.end()

        pump = Pump(transport, take)
        nursery.start_soon(run)
        await settle()
        far.close()
        await ended.wait()
        assert heard == [b""]


async def test_what_a_read_raises_is_raised_where_the_task_sleeps() -> None:
    """A fault of one connection is its own: the other one is read on."""
    async with pairs(2) as (nursery, _, [(bad, broken), (good, whole)]):
        heard: list[bytes] = []

        def fail(_data: bytes) -> None:
            raise ValueError("a fault")

        raised: list[str] = []

        async def run() -> None:
            try:
                await Pump(broken, fail).run()
            except ValueError as error:
                raised.append(str(error))

        pump = Pump(whole, heard.append)
        nursery.start_soon(run)
        nursery.start_soon(pump.run)
        await settle()
        bad.send(b"x")
        await settle()
        good.send(b"y")
        await settle()
        assert (raised, heard) == (["a fault"], [b"y"])
        pump.end()


async def test_a_fault_behind_the_end_is_raised() -> None:
    """A read that ends its connection and then fails is a fault, as any other."""
    async with pairs(1) as (_, _, [(far, transport)]):

        def take(_data: bytes) -> None:
            pump.end()
            raise ValueError("behind the end")

        pump = Pump(transport, take)
        far.send(b"x")
        with pytest.raises(ValueError, match="behind the end"):
            await pump.run()


async def test_a_read_that_ends_another_connection() -> None:
    """Both are ready in the same turn; the first read closes the second, which is then not read."""
    async with pairs(2) as (nursery, _, made):
        heard: list[int] = []

        def take(number: int) -> Callable[[bytes], None]:
            def end_the_other(_data: bytes) -> None:
                heard.append(number)
                made[1 - number][1].close()
                pumps[1 - number].end()

            return end_the_other

        pumps = [Pump(transport, take(number)) for number, (_, transport) in enumerate(made)]
        for pump in pumps:
            nursery.start_soon(pump.run)
        await settle()
        for far, _ in made:
            far.send(b"x")
        await settle()
        assert len(heard) == 1
        pumps[heard[0]].end()


async def test_a_read_that_cancels_its_own_task() -> None:
    """The task ends as cancelled, and what the read raises behind that is logged: it would end all other connections."""
    async with pairs(1) as (nursery, _, [(far, transport)]):
        scope = trio.CancelScope()

        def take(_data: bytes) -> None:
            scope.cancel(reason="of the test")
            raise ValueError("a fault behind it")

        async def run() -> None:
            with scope:
                await Pump(transport, take).run()

        with structlog.testing.capture_logs() as logs:
            nursery.start_soon(run)
            await settle()
            far.send(b"x")
            await settle()
        assert scope.cancelled_caught
        assert [entry["event"] for entry in logs] == ["handler_failed"]


async def test_nothing_is_left_when_there_is_nothing_to_watch() -> None:
    """The task and its epoll go with the last socket, and come back with the next."""
    before = descriptors()
    async with pairs(1) as (nursery, _, [(far, transport)]):
        with_pair = descriptors()
        for _ in range(3):
            heard: list[bytes] = []
            pump = Pump(transport, heard.append)
            nursery.start_soon(pump.run)
            await settle()
            assert (descriptors(), len(nursery.child_tasks)) == (with_pair + 1, 2)
            far.send(b"x")
            await settle()
            assert heard == [b"x"]
            pump.end()
            await settle()
            assert (descriptors(), len(nursery.child_tasks)) == (with_pair, 0)
    assert descriptors() == before


async def test_a_turn_is_bounded_and_leaves_no_socket_out() -> None:
    """Where more are ready than a turn takes, all other tasks have a turn before the rest."""
    async with pairs(4 * READY_MAX) as (nursery, _, made):
        read: list[bytes] = []
        seen = [0]
        pumps = [Pump(transport, read.append) for _, transport in made]
        for pump in pumps:
            nursery.start_soon(pump.run)
        await settle()
        for far, _ in made:
            far.send(b"x")
        while len(read) < len(made):
            await trio.lowlevel.checkpoint()
            seen.append(len(read))
        # Trio's order within a turn is by chance, so one of two turns in a row may go unseen.
        assert max(after - before for before, after in pairwise(seen)) <= 2 * READY_MAX
        for pump in pumps:
            pump.end()
