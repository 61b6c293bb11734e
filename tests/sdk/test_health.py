"""D6 of the DeepStream guide on the SDK: a node's health is asked for before each reconnection, where the application says so."""

from collections.abc import Sequence
from itertools import pairwise
from ssl import SSLContext

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.trio import Backoff, Health, SessionGone, WorkerSession, open_worker, run_worker
from tests.sdk.peer import ScriptedPeer

DEVICE = Backoff.device(Health())


class Pages:
    """A host whose health has one status after the other; 0 is no answer."""

    def __init__(self, statuses: Sequence[int]) -> None:
        self.asked: list[tuple[float, str]] = []
        self._statuses = list(statuses)

    async def open_stream(self, _url: str, _context: SSLContext | None) -> trio.abc.Stream:
        """Take one request, and answer it at once or never."""
        status = self._statuses.pop(0)
        ours, theirs = trio.testing.memory_stream_pair()
        if status:
            await theirs.send_all(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        self._kept = theirs
        request = trio.current_time()
        self.asked.append((request, "/deepstream/health"))
        return ours


async def nothing(session: WorkerSession) -> None:
    """Serve no session."""


def away(code: int, statuses: Sequence[int], backoff: Backoff = DEVICE) -> tuple[float, list[float], Pages]:
    """Close a worker with `code`; return after how long it comes back, and when it asked for health meanwhile."""
    pages = Pages(statuses)

    async def main() -> tuple[float, list[float]]:
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:

            async def script() -> None:
                first = await peer.accept()
                await first.accept_app()
                await first.close(code)

            nursery.start_soon(script)
            async with open_worker(
                "ws://signald.test", nothing, instance_id="pod-1", dial=peer.dial,
                open_stream=pages.open_stream, backoff=backoff, entropy=SeededEntropy(1),
            ):  # fmt: skip
                began = trio.current_time()
                again = await peer.accept()
                back = trio.current_time() - began
                await again.reaccept_app(kept={}, lost=[])
            return back, [at - began for at, _ in pages.asked]

    back, asked = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return back, asked, pages


def test_a_device_waits_asks_and_comes_back() -> None:
    """5 s behind 1001 and 10 s behind 1013, at most a second more; then one question."""
    for code, wait_s in ((1001, 5.0), (1013, 10.0)):
        back, asked, _ = away(code, [200])
        assert len(asked) == 1
        assert wait_s <= asked[0] <= back <= wait_s + 1.5


def test_while_the_node_shuts_down_it_is_asked_every_thirty_seconds() -> None:
    """503, and no answer within five seconds, are failed tries; the connection comes with the first good one."""
    back, asked, _ = away(1001, [503, 0, 200])
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert len(asked) == 3
    assert 30 <= gaps[0] <= 31.5
    assert 35 <= gaps[1] <= 36.5
    assert asked[-1] <= back <= asked[-1] + 0.5


def test_a_host_without_the_page_is_healthy() -> None:
    """404 tells that a server is there: the handshake says the rest."""
    _, asked, _ = away(1001, [404])
    assert len(asked) == 1


def test_a_move_asks_nothing_and_waits_for_nothing() -> None:
    """Behind a goaway a successor is ready, also where the old connection breaks before the new one stands; later breaks ask again."""
    pages = Pages([200])

    async def main() -> None:
        peer = ScriptedPeer()
        moved_s = 0.0

        async def script() -> None:
            nonlocal moved_s
            first = await peer.accept()
            await first.accept_app()
            await trio.sleep(10)
            await first.send(type="goaway", reason="drain", not_before_ms=2000, deadline_ms=25_000)
            await trio.sleep(1)
            await first.cut()
            began = trio.current_time()
            second = await peer.accept()
            await second.reaccept_app(kept={}, lost=[])
            moved_s = trio.current_time() - began
            assert pages.asked == []
            await trio.sleep(10)
            await second.cut()
            await (await peer.accept()).reaccept_app(kept={}, lost=[], token="w_1.third")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            async with open_worker(
                "ws://signald.test", nothing, instance_id="pod-1", dial=peer.dial,
                open_stream=pages.open_stream, backoff=DEVICE, entropy=SeededEntropy(1),
            ):  # fmt: skip
                await trio.sleep(30)
        assert moved_s < 0.1
        assert len(pages.asked) == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_without_being_told_nothing_is_asked() -> None:
    """The default is a handshake at once."""
    _, asked, _ = away(1001, [], Backoff.device())
    assert not asked


def test_a_device_gives_up_after_ten_tries() -> None:
    """Questions without a good answer count as tries."""
    pages = Pages([503] * 20)

    async def main() -> None:
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:

            async def script() -> None:
                first = await peer.accept()
                await first.accept_app()
                await first.close(1001)

            nursery.start_soon(script)
            with pytest.raises(SessionGone, match="10 tries"):
                await run_worker(
                    "ws://signald.test", nothing, instance_id="pod-1", dial=peer.dial,
                    open_stream=pages.open_stream, backoff=DEVICE, entropy=SeededEntropy(1),
                )  # fmt: skip

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(pages.asked) == 10
