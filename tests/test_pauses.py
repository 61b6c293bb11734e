"""Pauses of this process: what was sent meanwhile is not charged to its sender, and no deadline expires by them."""

import json
import os
import signal
import subprocess
import sys

import pytest
import trio
import trio.testing

from signald.net.connection import Connection
from signald.net.handshake import Handshake
from signald.net.transport import StreamTransport
from signald.pauses import CATCH_UP_S, PAUSE_S, Pauses
from signald.service.rate_limit import RateLimit
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.net.settings import settings_of

PAUSE = 30.0


def pause(cluster: Cluster, seconds: float = PAUSE) -> None:
    """Let the node sleep for a while: clocks go on, and no task runs."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)
    cluster.nodes["a"].hub.pauses.note(seconds)


def test_messages_that_waited_are_no_flood() -> None:
    """A client that keeps to its rate has all messages of a long pause stored at once, none refused."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits={"messages_per_s": 10.0, "messages_burst": 20})
        client, _, _, _, _ = await cluster.pair("a")
        await trio.sleep(5.0)
        pause(cluster)
        for seq in range(1, 301):
            await client.send({"type": "message", "seq": seq, "data": seq})
        acked = 0
        while acked < 300:
            frame = await client.receive()
            assert frame["type"] == "ack", frame
            acked = frame["seq"]
        for seq in range(301, 400):
            await client.send({"type": "message", "seq": seq, "data": seq})
        assert (await client.expect("error"))["code"] == "rate"

    play(scene)


def test_an_opening_message_that_waited_is_taken() -> None:
    """A connection whose opening message came during a pause longer than `timeouts.hello_s` is not turned away."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        client: Peer = await cluster.dial("a", "/v1/client")
        await trio.sleep(4.0)
        pause(cluster)
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.ask({"type": "connect"}, "session_started"))["type"] == "session_started"
        late = await cluster.dial("a", "/v1/client")
        await trio.sleep(5.1)
        assert await late.refused() == ("hello_timeout", 4408)

    play(scene)


def test_a_worker_that_answered_in_a_pause_keeps_its_session() -> None:
    """The time to accept a session does not run while the node pauses."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        worker, _ = await cluster.worker("a")
        client, _ = await cluster.client("a")
        assigned = await worker.expect("session_assigned")
        pause(cluster)
        await trio.sleep(3.0)
        await worker.send({"type": "session_accept", "session": assigned["session"]})
        while (await client.expect("peer"))["state"] != "paired":
            pass
        assert "session_ended" not in [frame["type"] for frame in worker.aside]

    play(scene)


async def test_a_pong_that_waited_counts(mock_clock: trio.testing.MockClock) -> None:
    """A peer that was asked before a pause has its whole time after it; then it is closed with 4408."""
    pauses = Pauses()
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        connection = Connection(
            StreamTransport(theirs, nursery.start_soon),
            Handshake("/v1/client", "/v1/client", (), None, None, None, b""),
            id=1,
            remote="memory",
            settings=settings_of(ping_interval_s=10.0, pong_timeout_s=10.0),
            spawn=nursery.start_soon,
            pauses=pauses,
        )
        nursery.start_soon(connection.wait_finished)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(11.0)
        connection.tick(trio.current_time())
        mock_clock.jump(60.0)
        pauses.note(60.0)
        connection.tick(trio.current_time())
        mock_clock.jump(9.0)
        connection.tick(trio.current_time())
        closing = [connection.closing]
        mock_clock.jump(2.0)
        connection.tick(trio.current_time())
        assert [*closing, connection.closing] == [False, True]
        await ours.aclose()
        nursery.cancel_scope.cancel(reason="seen")


def test_what_is_owed_is_owed_for_a_while() -> None:
    """After a pause a rate allows for what was sent in it, and is as before some seconds later."""
    rate = RateLimit(10.0, 20, 0.0)
    rate.refill(30.0)
    assert rate.tokens == 20.0
    rate = RateLimit(10.0, 20, 0.0)
    rate.refill(30.0, 30.0)
    assert sum(rate.take() for _ in range(1000)) == 320
    rate.refill(30.0 + CATCH_UP_S + 10.0)
    assert rate.tokens == 20.0


SLEEPER = """
import json, trio
from signald.pauses import Pauses

async def main():
    pauses = Pauses()
    trio.lowlevel.add_instrument(pauses)
    with pauses.within(3.0) as scope:
        print("ready", flush=True)
        await trio.sleep(2.0)
        await trio.sleep(0.1)
    print(json.dumps([pauses.total_s, scope.cancelled_caught]), flush=True)

trio.run(main)
"""


@pytest.mark.long
async def test_a_stopped_process_notices() -> None:
    """After SIGSTOP and SIGCONT the pause is known before any deadline is judged."""
    async with await trio.open_file(os.devnull):
        process = await trio.lowlevel.open_process([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert (await process.stdout.receive_some()).strip() == b"ready"
    process.send_signal(signal.SIGSTOP)
    await trio.sleep(5.0)
    process.send_signal(signal.SIGCONT)
    said = b""
    while chunk := await process.stdout.receive_some():
        said += chunk
    await process.wait()
    total_s, cancelled = json.loads(said)
    assert total_s >= PAUSE_S
    assert not cancelled
