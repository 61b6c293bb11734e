"""Turns: pieces that come at once are worked on one in each turn of the event loop, in their order."""

import trio

from signald.http.api.turns import Turns


async def test_one_piece_in_a_turn() -> None:
    """However many are ready, no turn of the loop has two of them, and none is overtaken."""
    turns, now, done = Turns(), [0], []

    class Count(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            now[0] += 1

    async def work(number: int) -> None:
        for _ in range(3):
            await turns.wait()
            done.append((now[0], number))

    instrument = Count()
    trio.lowlevel.add_instrument(instrument)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(work, number)
    trio.lowlevel.remove_instrument(instrument)
    assert len(done) == 60
    assert len({turn for turn, _ in done}) == 60
    first = [number for _, number in done[:20]]
    assert sorted(first) == list(range(20))
    assert [number for _, number in done] == first * 3


async def test_who_is_cancelled_holds_nobody_up() -> None:
    """A piece whose connection goes while it waits gives its turn on."""
    turns = Turns()
    done = 0

    async def work() -> None:
        nonlocal done
        await turns.wait()
        done += 1

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as going:
                for _ in range(5):
                    going.start_soon(work)
                await trio.lowlevel.checkpoint()
                scope.cancel()
        nursery.start_soon(work)
    assert 1 <= done <= 3
    assert turns.waiting == 0
