"""Tests of a worker's own sockets that are moved before they are cut, in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.trio import Backoff, HandoverSocket, UpstreamGone, handover_socket

TRIES = Backoff(base_s=0.25, cap_s=20.0, tries_max=4)


class Broken(Exception):
    """What the scripted socket raises when it is cut."""


class Socket:
    """One scripted connection: it answers each message with its number and the message."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: list[Any] = []
        self.closed_at: float | None = None
        self._put, self._items = trio.open_memory_channel[Any](100)

    async def send(self, data: Any) -> None:
        """Take a message, and answer it."""
        self.sent.append(data)
        self.say((self.number, data))

    def say(self, item: Any) -> None:
        """Have something come."""
        self._put.send_nowait(item)

    def end(self) -> None:
        """Close it from the other side."""
        self._put.close()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = await anext(self._items)
        if isinstance(item, Exception):
            raise item
        return item


class Service:
    """Opens scripted sockets; the next `down` of them fail."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.down = 0
        self.tried_at: list[float] = []

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Socket]:
        """Open one."""
        self.tried_at.append(trio.current_time())
        await trio.sleep(0.1)
        if self.down:
            self.down -= 1
            raise OSError("refused")
        socket = Socket(len(self.sockets))
        self.sockets.append(socket)
        try:
            yield socket
        finally:
            socket.closed_at = trio.current_time()


def played(script: Callable[[Service, HandoverSocket[Socket]], Awaitable[None]], **options: Any) -> Service:
    """Run a script against a service."""
    service = Service()

    async def main() -> None:
        with trio.fail_after(20_000):
            async with handover_socket(service.connect, backoff=TRIES, entropy=SeededEntropy(1), **options) as socket:
                await script(service, socket)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return service


def test_what_is_sent_is_answered() -> None:
    """The first send waits for the first socket."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        assert await anext(socket) == (0, "a")
        assert not socket.due

    service = played(script)
    assert service.sockets[0].closed_at == 0.1  # the block closes it


def test_a_notice_moves_it_at_the_next_boundary() -> None:
    """Until then the old one serves; the new one is open before anything is sent there, and the old one is read to its end."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        socket.going_away(30.0)
        await trio.sleep(5)
        due = [socket.due]
        await socket.send("b")
        socket.boundary()
        await socket.send("c")  # the next one is not open yet
        await trio.sleep(1)
        assert [*due, socket.due] == [True, False]
        await socket.send("d")
        await trio.sleep(0.1)
        service.sockets[0].say("late")
        assert [await anext(socket) for _ in range(5)] == [(0, "a"), (0, "b"), (0, "c"), (1, "d"), "late"]
        await trio.sleep(20)

    service = played(script)
    assert [one.sent for one in service.sockets] == [["a", "b", "c"], ["d"]]
    assert service.sockets[0].closed_at == pytest.approx(5.1 + 0.1 + 10.0)


def test_without_a_boundary_it_moves_when_a_third_of_the_notice_is_left() -> None:
    """The service says thirty seconds: after twenty it moves in any case."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        socket.going_away(30.0)
        await trio.sleep(19.8)
        assert len(service.tried_at) == 1
        await trio.sleep(0.5)
        assert socket.opened == 2

    assert played(script).tried_at[1] == pytest.approx(20.1)


def test_a_boundary_without_need_moves_nothing() -> None:
    """A program may call it after every turn."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        for _ in range(10):
            socket.boundary()
            await trio.sleep(10)
        assert socket.opened == 1

    played(script)


def test_a_service_with_a_clock_and_no_notice_is_left_before_its_end() -> None:
    """Of sockets that live for an hour none is cut: each is left in its last minute."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        await trio.sleep(3 * 3600)
        assert socket.opened == 4

    tried = played(script, age_s=3600.0).tried_at
    assert [second - first for first, second in pairwise(tried)] == [pytest.approx(3580.1)] * 3


def test_a_socket_that_breaks_is_replaced_and_nothing_is_sent_twice() -> None:
    """What was sent on the broken one is the application's to say again."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        assert await anext(socket) == (0, "a")
        await trio.sleep(10)
        service.sockets[0].say(Broken("cut"))
        await trio.sleep(0.05)
        await socket.send("b")
        assert await anext(socket) == (1, "b")

    assert [one.sent for one in played(script).sockets] == [["a"], ["b"]]


@pytest.mark.parametrize("how", ["refused", "closed at once"])
def test_a_service_that_does_not_come_back_is_given_up(how: str) -> None:
    """After as many tries as the backoff has, sends and reads raise; the tries come ever slower."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        async def close_each() -> None:
            while True:
                for one in service.sockets:
                    one.end()
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            if how == "refused":
                service.down = 100
            else:
                nursery.start_soon(close_each)
            with pytest.raises(UpstreamGone):
                await anext(socket)
            with pytest.raises(UpstreamGone):
                await socket.send("a")
            nursery.cancel_scope.cancel()

    assert len(played(script).tried_at) == 4


def test_a_move_that_fails_leaves_the_old_socket_serving() -> None:
    """Two connects are refused: what is sent goes to the old one, and the third takes over."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        service.down = 2
        socket.going_away(300.0)
        socket.boundary()
        await trio.sleep(0.15)
        await socket.send("b")
        await trio.sleep(5)
        await socket.send("c")

    service = played(script)
    assert [one.sent for one in service.sockets] == [["a", "b"], ["c"]]
    assert len(service.tried_at) == 4


def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """It is not wrapped in a group."""

    async def script(service: Service, socket: HandoverSocket[Socket]) -> None:
        await socket.send("a")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        played(script)
