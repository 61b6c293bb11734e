"""A party of either event loop against a scripted node: it says numbers, hears numbers, and tells what came of it."""

import threading
from asyncio import (
    AbstractEventLoop,
    Server,
    all_tasks,
    current_task,
    gather,
    new_event_loop,
    run_coroutine_threadsafe,
    sleep,
    start_server,
)
from asyncio import Event as AsyncioEvent
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import anyio
from attrs import define, field

from signald.ids import SeededEntropy
from signald.sdk.backoff import Backoff
from signald.sdk.bounds import Bounds
from signald.sdk.errors import Refused, SessionGone
from signald.sdk.party_records import Timing
from tests.vectors.server import Play

QUICK = Backoff(base_s=0.01, cap_s=0.05, going_away_s=0.02, refused_s=0.02)
SHORT = Timing(connect_s=1.0, answer_s=1.0, pong_timeout_s=1.0, write_s=1.0, close_s=0.3, retire_s=0.6)
SMALL = Bounds(inbox_bytes_max=2 * 1024 * 1024)

SAYS = 20
"""Numbers that a party says."""

HANG_S = 45.0
"""A script that takes longer has made the party hang. The longest takes three seconds on a machine with nothing else to do."""


@define
class Told:
    """What a party has come to."""

    heard: list[int] = field(factory=list)
    events: list[str] = field(factory=list)
    error: str | None = None
    hung: bool = True


class Servers(threading.Thread):
    """Scripted nodes in a thread of their own, so that they stay in time whatever a front does."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._loop: AbstractEventLoop = new_event_loop()
        self._over = AsyncioEvent()
        self._servers: list[Server] = []

    def run(self) -> None:
        """Run the loop until `stop`; nothing of it is left."""
        self._loop.run_until_complete(self._live())
        self._loop.close()

    async def _live(self) -> None:
        await self._over.wait()
        for server in self._servers:
            server.close()
        left = [task for task in all_tasks() if task is not current_task()]
        for task in left:
            task.cancel()
        await gather(*left, return_exceptions=True)
        await sleep(0.05)  # transports are closed by callbacks

    def start_script(self, said: dict[str, Any], party: str) -> tuple[Play, str]:
        """Serve a script; return its play and its URL."""

        async def start() -> tuple[Play, str]:
            play = Play(said, party)
            server = await start_server(play.serve, "127.0.0.1", 0)
            self._servers.append(server)
            return play, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        return run_coroutine_threadsafe(start(), self._loop).result()

    def stop(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._over.set)
        self.join(5)


@contextmanager
def servers() -> Iterator[Servers]:
    """Servers for the time of a block."""
    running = Servers()
    running.start()
    try:
        yield running
    finally:
        running.stop()


async def talk(sdk: ModuleType, play: Play, url: str, slow_s: float, least: int) -> Told:
    """Let a party talk to a node until all numbers are here on both sides, or it has ended. `least`: so many numbers do not come."""
    told = Told()
    with anyio.move_on_after(HANG_S):
        try:
            if play.log.party == "client":
                await _client(sdk, play, url, told, slow_s, least)
            else:
                await _worker(sdk, play, url, told, least)
        except (Refused, SessionGone) as error:
            told.error = type(error).__name__
        told.hung = False
    return told


async def _converse(conversation: Any, play: Play, told: Told, least: int) -> None:
    """Say numbers and hear numbers."""
    all_here = anyio.Event()

    async def hear() -> None:
        async for message in conversation:
            told.heard.append(message.data["n"])
            if len(told.heard) >= play.gives - least:
                conversation.ack(message)
                all_here.set()
        all_here.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        for number in range(1, SAYS + 1):
            await conversation.send({"n": number})
            await anyio.sleep(0.005)
        await conversation.flush()
        await all_here.wait()
        await anyio.sleep(0.1)  # a number that comes twice would come now
        tasks.cancel_scope.cancel()


async def _client(sdk: ModuleType, play: Play, url: str, told: Told, slow_s: float, least: int) -> None:
    async with sdk.open_client(url, backoff=QUICK, timing=SHORT, bounds=SMALL, entropy=SeededEntropy(1)) as client:
        try:
            await anyio.sleep(slow_s)
            await _unpacked(_converse, client, play, told, least)
            await client.bye("done")
        finally:
            told.events += [type(event).__name__ for event in iter(client.events.receive_nowait, None)]


async def _worker(sdk: ModuleType, play: Play, url: str, told: Told, least: int) -> None:
    done = anyio.Event()

    async def handler(session: Any) -> None:
        try:
            await _unpacked(_converse, session, play, told, least)
            done.set()
        finally:
            told.events += [type(event).__name__ for event in session.events()]
        await anyio.sleep_forever()

    async def watch(worker: Any, scope: Any) -> None:
        await done.wait()
        scope.cancel()

    async with sdk.open_worker(
        url, handler, instance_id="i", backoff=QUICK, timing=SHORT, bounds=SMALL, entropy=SeededEntropy(1)
    ) as worker:
        failure: list[Exception] = []

        async def wait() -> None:
            try:
                await worker.wait()
            except SessionGone as error:
                failure.append(error)
                done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await done.wait()
            tasks.cancel_scope.cancel()
        if failure:
            raise failure[0]


async def _unpacked(work: Any, *arguments: Any) -> None:
    """Run `work`; the first error of its tasks comes out by itself."""
    try:
        await work(*arguments)
    except BaseExceptionGroup as group:
        known, rest = group.split((Refused, SessionGone))
        if rest is not None or known is None:
            raise
        raise _first(known) from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
