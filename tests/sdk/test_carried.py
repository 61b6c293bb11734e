"""Tests of what the fronts carry: the ends of handlers, streams, jobs and connections that nothing else would notice."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from signald.sdk.client_core import EVENTS_MAX
from signald.sdk.dialing import DialFailed
from signald.sdk.events import Waiting
from signald.sdk.front.conversation import Events
from signald.sdk.trio import Worker, WorkerJob, WorkerSession
from signald.sdk.trio_carrier import over_stream
from tests.sdk.peer import Accepted, ScriptedPeer
from tests.sdk.test_carrier import serve
from tests.sdk.test_trio_worker import play


async def pieces(connection: Accepted, count: int) -> list[dict[str, Any]]:
    """Return the next messages of a worker, and say that they are stored."""
    said = []
    for _ in range(count):
        said.append(await connection.until("message"))
        await connection.send(type="ack", session="s_1", seq=said[-1]["seq"])
    return said


def test_a_handler_that_waits_for_something_else_is_cancelled_with_its_session() -> None:
    """A session that is lost ends its handler wherever that waits."""
    ended: list[str] = []

    async def handler(session: WorkerSession) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(session.session)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.cut()
        new = await peer.accept()
        await new.reaccept_app(kept={}, lost=["s_1"])
        await trio.sleep(1)
        assert ended == ["s_1"]
        assert worker.sessions == {}

    play(script, handler)


def test_a_stream_that_an_exception_ends_has_failed() -> None:
    """Its last piece says so, with the kind of the exception and no word of it."""

    async def handler(session: WorkerSession) -> None:
        async with session.stream("t") as out:
            await out.write("half")
            raise LookupError("a secret")

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        last = (await pieces(peer.first, 2))[-1]
        assert (last["end"], last["outcome"]) == (True, "failed")
        assert last["error"] == {"code": "error", "message": "LookupError"}

    play(script, handler)


def test_a_stream_that_was_ended_is_not_ended_again() -> None:
    """Leaving its block says nothing more."""

    async def handler(session: WorkerSession) -> None:
        async with session.stream("t") as out:
            await out.write("all")
            await out.end("cancelled")
        await session.send("behind")
        await trio.sleep_forever()

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        said = await pieces(peer.first, 3)
        assert [one.get("end", False) for one in said] == [False, True, False]
        assert (said[1]["outcome"], said[2]["data"]) == ("cancelled", "behind")

    play(script, handler)


def test_another_attempt_ends_the_one_before() -> None:
    """The handler of an attempt that does not count any more is cancelled."""
    ended: list[int] = []

    async def handler(_: WorkerSession) -> None:
        await trio.sleep_forever()

    async def work(job: WorkerJob) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(job.attempt)

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        for attempt in (1, 2):
            await peer.first.send(type="job", session="s_1", job="j_1_1", kind="k", attempt=attempt, data=1)
        await trio.sleep(1)
        assert ended == [1]

    play(script, handler, on_job=work)


def test_a_job_of_another_kind_fails() -> None:
    """A worker that is given one all the same says so: it does not stay running for its client."""

    async def handler(_: WorkerSession) -> None:
        await trio.sleep_forever()

    async def work(_: WorkerJob) -> None:
        raise AssertionError("it is of another kind")

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.send(type="job", session="s_1", job="j_1_1", kind="other", attempt=1, data=1)
        last = (await pieces(peer.first, 1))[-1]
        assert (last["stream"], last["outcome"], last["error"]["code"]) == ("j_1_1", "failed", "kind_not_taken")

    play(script, handler, on_job={"k": work})


def test_events_that_are_not_read_are_bounded() -> None:
    """The oldest are dropped."""
    events = Events()
    for _ in range(EVENTS_MAX + 10):
        events.put(Waiting())
    assert len(list(iter(events.receive_nowait, None))) == EVENTS_MAX


async def test_a_connection_that_is_cut_ends_its_block(autojump_clock: trio.testing.MockClock) -> None:
    """At once, wherever the block waits."""
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery, ours)
        async with over_stream(theirs, "ws://signald.test/v1/client") as carrier:
            carrier.abort()
            await trio.sleep(60)
        nursery.cancel_scope.cancel(reason="done")
    assert trio.current_time() - began < 1


async def test_a_frame_of_megabytes_arrives(autojump_clock: trio.testing.MockClock) -> None:
    """A chat history, or the answer to a worker with many sessions, is one."""
    ours, theirs = trio.testing.memory_stream_pair()
    long = json.dumps("x" * 3_000_000)
    async with trio.open_nursery() as nursery:

        async def say() -> None:
            await (await serve(nursery, ours)).send_message(long)

        nursery.start_soon(say)
        async with over_stream(theirs, "ws://signald.test/v1/client") as carrier:
            assert await carrier.receive() == long
        nursery.cancel_scope.cancel(reason="done")


async def test_a_login_of_a_url_is_not_in_the_request(autojump_clock: trio.testing.MockClock) -> None:
    """The name and the password before a host go into no header of the handshake."""
    ours, theirs = trio.testing.memory_stream_pair()
    request = b""
    async with trio.open_nursery() as nursery:

        async def hang_up() -> None:
            nonlocal request
            request = bytes(await ours.receive_some(65536))
            await ours.aclose()

        nursery.start_soon(hang_up)
        with pytest.raises(DialFailed):
            async with over_stream(theirs, "ws://user:secret@signald.test/v1/client"):
                pass
    assert b"Host: signald.test\r\n" in request
    assert b"secret" not in request
