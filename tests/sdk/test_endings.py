"""Tests of the ends of connections as the front carries them: what is believed, what is still read, and what the other side sees."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from signald.sdk.dialing import DialFailed
from signald.sdk.events import HandedOver
from signald.sdk.front.party import _Ending
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import Timing
from signald.sdk.trio import open_client
from signald.sdk.writing import Frame
from tests.sdk.peer import ScriptedPeer
from tests.sdk.test_asyncio import LIMITS

URL = "ws://signald.test"
STARTED = {
    "type": "session_started", "session": "s_1", "recovery_token": "s_1.first", "token_ttl_ms": 300_000,
    "peer": {"state": "paired", "id": "w_1"}, "next_seq": 1, "limits": LIMITS, "heartbeat_ms": 20_000,
}  # fmt: skip


class Line:
    """A carrier in memory, which comes about once: `heard` is said to the party, and then nothing."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = [STARTED]
        self.more = trio.Event()
        self.scope = trio.CancelScope()
        self.dialled = 0
        self.again = trio.Event()

    async def receive(self) -> str | bytes:
        """Give the party what it is told."""
        if not self.heard:
            await self.more.wait()
            await trio.sleep(1)
        if not self.heard:
            raise CarrierClosed(4001, "moved")
        return json.dumps(self.heard.pop(0))

    async def send(self, frames: Sequence[Frame]) -> None:
        """Take what the party says."""
        await trio.lowlevel.checkpoint()

    async def aclose(self, code: int, reason: str) -> None:
        """Shake hands with a peer that does not."""
        await trio.sleep_forever()

    def abort(self) -> None:
        """Cut: there is nothing to be cut."""

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator["Line"]:
        """Connect, the first time."""
        self.dialled += 1
        if self.dialled > 1:
            self.again.set()
            raise DialFailed(None, "down")
        with self.scope:
            yield self


async def test_the_first_end_of_a_connection_is_believed() -> None:
    """The break behind a close, which each close brings, does not take its code away."""
    ending = _Ending(anyio.CancelScope())
    ending.end(4409, "superseded")
    ending.end(None, "the connection broke")
    assert (ending.code, ending.reason) == (4409, "superseded")


async def test_what_came_before_a_close_is_read_though_the_writer_saw_the_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """exactly-once: the message is on its way to the application, not lost with the connection."""

    class Closing(Line):
        async def send(self, frames: Sequence[Frame]) -> None:
            if b'"message"' in frames[-1][1]:
                self.heard.append({"type": "message", "seq": 1, "data": "before the close"})
                self.more.set()
                raise CarrierClosed(4001, "moved")

    with trio.fail_after(60):
        async with open_client(URL, dial=Closing().dial) as client:
            await client.send("x")
            assert (await anext(client)).data == "before the close"


async def test_a_connection_that_ends_beneath_its_block_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """A carrier that cancels its block says no word; the party connects again."""
    line = Line()
    with trio.fail_after(60):
        async with open_client(URL, dial=line.dial):
            line.scope.cancel(reason="the carrier broke")
            await line.again.wait()


async def test_a_client_that_has_said_bye_closes_each_connection_with_1000(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The one that serves and the one that it has left; the end of the block waits for both."""
    peer = ScriptedPeer()
    codes: dict[str, int] = {}

    async def script() -> None:
        old = await peer.accept()
        await old.start_session()
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        await new.restore_session(accepted=0)
        await new.until("bye")
        await new.send(type="session_ended", reason="done")
        codes["new"] = await new.close_code()
        codes["old"] = await old.close_code()

    began = trio.current_time()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            async with open_client(URL, dial=peer.dial) as client:
                async for event in client.events:
                    if isinstance(event, HandedOver):
                        break
                await client.bye("done")
    assert codes == {"new": 1000, "old": 1000}
    assert trio.current_time() - began < Timing().close_s  # both have answered


@pytest.mark.parametrize("said", [True, False])
async def test_the_end_of_a_block_waits_for_a_closing_handshake_only(
    autojump_clock: trio.testing.MockClock, said: bool
) -> None:
    """A peer that does not answer costs `close_s`; a session that goes on is cut at once, to be resumed."""
    line = Line()
    with trio.fail_after(60):
        async with open_client(URL, dial=line.dial, timing=Timing(close_s=3.0)) as client:
            if said:
                line.heard.append({"type": "session_ended", "reason": "done"})
                line.more.set()
                await client.bye("done")
            left = trio.current_time()
    assert trio.current_time() - left == (3.0 if said else 0.0)
