"""Tests of a worker that leaves, in virtual time: what it says to signald, in which order, and what it waits for."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.trio import Handler, Leave, Mode, Worker, WorkerJob, WorkerSession, open_worker
from tests.sdk.peer import Accepted, ScriptedPeer
from tests.sdk.test_trio_worker import echo, play

QUICK = Leave(graceful_s=20.0, urgent_s=5.0)


async def leaving(connection: Accepted) -> None:
    """Read what a worker says first when it leaves."""
    said = await connection.until("app_state")
    assert (said["leaving"], said["successor"]) == (True, True)


async def drained(worker: Worker, leave: Leave = QUICK, *, began: trio.Event | None = None) -> float:
    """Leave; return how long it took."""
    start = trio.current_time()
    if began is not None:
        began.set()
    await worker.drain(leave, "deploy")
    return trio.current_time() - start


async def close_after_bye(connection: Accepted) -> list[dict[str, Any]]:
    """Read until the worker says bye, and confirm it; return what it has said before."""
    said = []
    while (message := await connection.receive())["type"] != "bye" or "session" in message:
        said.append(message)
    await connection.close(1000)
    return said


def played(
    script: Callable[[Accepted, Worker], Awaitable[None]], handler: Handler = echo, **options: Any
) -> dict[str, float]:
    """Have a worker leave beside a script of its only connection; returns how long it took."""
    took: dict[str, float] = {}

    async def both(peer: ScriptedPeer, worker: Worker) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script, peer.first, worker)
            await trio.sleep(1)
            took["s"] = await drained(worker, options.get("leave", QUICK))

    play(both, handler, **{name: value for name, value in options.items() if name != "leave"})
    return took


def test_a_worker_without_sessions_leaves_at_once() -> None:
    """It says that it leaves, says bye, and has left when signald closes."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await leaving(connection)
        assert await close_after_bye(connection) == []

    assert played(script)["s"] < 0.1


def test_each_session_waits_for_room_elsewhere_and_a_message_boundary() -> None:
    """What has no room elsewhere stays; what has is given back with what was kept, behind its last answer and its ack."""

    async def handler(session: WorkerSession) -> None:
        session.keep({"of": session.session})
        await echo(session)

    async def script(connection: Accepted, worker: Worker) -> None:
        for name in ("s_1", "s_2"):
            await connection.assign(name)
        await leaving(connection)
        await connection.send(type="successor", sessions=[])
        await trio.sleep(3)
        assert sorted(worker.sessions) == ["s_1", "s_2"]
        await connection.send(type="message", session="s_1", seq=1, data="one")
        assert (await connection.until("message"))["data"] == "one"  # it still works
        await connection.send(type="ack", session="s_1", seq=1)
        await connection.send(type="successor", sessions=["s_1"])
        refused = await connection.until("session_refuse")
        assert (refused["session"], refused["state"]) == ("s_1", {"of": "s_1"})
        await trio.sleep(1)
        assert sorted(worker.sessions) == ["s_2"]
        await connection.send(type="successor", sessions=["s_2"])
        said = await close_after_bye(connection)
        assert [one["session"] for one in said if one["type"] == "session_refuse"] == ["s_2"]

    assert 4 <= played(script, handler)["s"] < 5


def test_a_session_is_given_back_when_what_it_said_is_stored() -> None:
    """Without the ack of its last message it stays: the release comes behind."""

    async def script(connection: Accepted, worker: Worker) -> None:
        await connection.assign("s_1")
        await connection.send(type="message", session="s_1", seq=1, data="one")
        await connection.until("message")
        await leaving(connection)
        await connection.send(type="successor", sessions=["s_1"])
        await trio.sleep(2)
        assert list(worker.sessions) == ["s_1"]
        await connection.send(type="ack", session="s_1", seq=1)
        said = await close_after_bye(connection)
        assert [one["type"] for one in said if one["type"] not in ("ack", "ping")] == ["session_refuse"]

    played(script)


def test_no_new_session_is_taken() -> None:
    """An assignment that was under way is refused."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await leaving(connection)
        assert (await connection.assign("s_2"))["type"] == "session_refuse"
        await connection.send(type="successor", sessions=["s_1"])
        await close_after_bye(connection)

    played(script)


def test_a_node_that_tells_nothing_is_not_waited_for() -> None:
    """An earlier release knows no `successor`: after two seconds sessions are handed over all the same."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await leaving(connection)
        await close_after_bye(connection)

    assert 2 <= played(script)["s"] < 3


def test_without_a_successor_it_waits_says_so_and_gives_back_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The log names how many wait; at the deadline they go into the line."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await leaving(connection)
        await connection.send(type="successor", sessions=[])
        said = await close_after_bye(connection)
        assert said[-1]["type"] == "session_refuse"

    with caplog.at_level(logging.WARNING, "signald.sdk"):
        assert 20 <= played(script)["s"] < 21
    waits = [record.message for record in caplog.records if "waiting for a successor" in record.message]
    assert len(waits) == 4
    assert waits[0] == "no other worker has room for 1 of 1 sessions: waiting for a successor, 20 s at most"


@pytest.mark.parametrize(("mode", "least_s", "most_s"), [(Mode.URGENT, 5, 6), (Mode.IMMEDIATE, 0, 0.1)])
def test_quicker_modes_wait_less_for_an_answer_that_takes_long(mode: Mode, least_s: float, most_s: float) -> None:
    """Urgent waits a few seconds, immediate not at all; what has gathered of the stream is said before the release."""

    async def handler(session: WorkerSession) -> None:
        async for _ in session:
            async with session.stream(roll_up_s=100.0) as out:
                await out.write("once ")
                await trio.sleep(0.1)
                await out.write("upon")
                await trio.sleep_forever()

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await connection.send(type="message", session="s_1", seq=1, data="tell")
        assert (await connection.until("message"))["data"] == "once "
        await connection.send(type="ack", session="s_1", seq=1)
        await leaving(connection)
        await connection.send(type="successor", sessions=["s_1"])
        said = await close_after_bye(connection)
        assert [one["type"] for one in said] == ["message", "session_refuse"]
        assert said[0]["data"] == "upon"
        assert "end" not in said[0]

    took = played(script, handler, leave=Leave(mode))["s"]
    assert least_s <= took < most_s


def test_a_second_request_makes_it_quicker() -> None:
    """A graceful departure that is asked again, immediately, is over then."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        connection = peer.first
        await connection.assign("s_1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_after_bye, connection)
            nursery.start_soon(worker.drain, QUICK)
            await trio.sleep(1)
            await connection.send(type="successor", sessions=[])
            await trio.sleep(2)
            start = trio.current_time()
            await worker.drain(Leave(Mode.IMMEDIATE))
            assert trio.current_time() - start < 0.1

    play(script)


def test_a_stream_that_the_next_worker_can_go_on_with_is_handed_over_between_two_pieces() -> None:
    """What was written is said and stored, the stream stays open, and the message that is answered stays unacked."""

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            async with session.stream(f"a{message.seq}", go_on=True) as out:
                for number in range(len(out.said), 100):
                    await out.write(str(number % 10))
                    await trio.sleep(0.5)

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await connection.send(type="message", session="s_1", seq=1, data="count")
        text = ""
        while (message := await connection.receive())["type"] != "session_refuse":
            if message["type"] == "message":
                assert (message["stream"], message.get("end")) == ("a1", None)
                text += message["data"]
                await connection.send(type="ack", session="s_1", seq=message["seq"])
            elif message["type"] == "app_state":
                await connection.send(type="successor", sessions=["s_1"])
            else:
                assert message["type"] != "ack"
        assert text == "0123456789"[: len(text)]
        assert len(text) in (3, 4)
        await close_after_bye(connection)

    assert played(script, handler)["s"] < 1


@pytest.mark.parametrize(("truncated", "attempt", "begins"), [(False, 3, "34"), (True, 4, "01")])
def test_a_stream_goes_on_where_it_was_left(truncated: bool, attempt: int, begins: str) -> None:
    """Under the same attempt, behind its text; where the beginning of the text is lost, anew under the next one."""

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            async with session.stream(f"a{message.seq}", go_on=True) as out:
                for number in range(len(out.said), len(out.said) + 2):
                    await out.write(str(number))

    async def script(peer: ScriptedPeer, _worker: Worker) -> None:
        found = {"stream": "a1", "attempt": 3, "kind": "tokens", "data": "012", "truncated": truncated}
        await peer.first.assign("s_1", next_seq=9, open_streams=[found])
        await peer.first.send(type="message", session="s_1", seq=1, data="count")
        text = ""
        while not (piece := await peer.first.until("message")).get("end"):
            assert (piece["attempt"], piece["kind"]) == (attempt, "tokens")
            text += piece["data"]
        assert text + piece["data"] == begins

    play(script, handler)


def test_jobs_are_finished_first_and_given_back_at_the_end() -> None:
    """A session at a message boundary waits for its job; when the time is over the job goes along."""

    async def work(job: WorkerJob) -> str:
        await trio.sleep(job.data)
        return "done"

    async def script(connection: Accepted, worker: Worker) -> None:
        for number, name in enumerate(("s_72if3zcujm3wtrdm6guhfnz6", "s_82if3zcujm3wtrdm6guhfnz6")):
            await connection.assign(name)
            job = f"j_{name[2:]}_1"
            await connection.send(type="job", session=name, job=job, kind="x", attempt=1, data=[3, 300][number])
        await leaving(connection)
        await connection.send(type="successor", sessions=list(worker.sessions))
        done = await connection.until("message")
        assert (done["data"], done["end"]) == ("done", True)
        await connection.send(type="ack", session=done["session"], seq=done["seq"])
        assert (await connection.until("session_refuse"))["session"] == done["session"]
        assert len(worker.sessions) == 1
        said = await close_after_bye(connection)
        assert [one["type"] for one in said] == ["session_refuse"]

    assert 20 <= played(script, on_job=work)["s"] < 21


def test_a_stream_of_another_task_is_finished_first() -> None:
    """The handler waits for messages while it says a text: the session goes when the text is whole."""

    async def handler(session: WorkerSession) -> None:
        async def tell() -> None:
            async with session.stream("story") as out:
                for _ in range(4):
                    await out.write("x")
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            await echo(session)

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        said: list[dict[str, Any]] = []
        while (message := await connection.receive())["type"] != "session_refuse":
            if message["type"] == "message":
                said.append(message)
                await connection.send(type="ack", session="s_1", seq=message["seq"])
            elif message["type"] == "app_state":
                await connection.send(type="successor", sessions=["s_1"])
        assert said[-1]["end"]
        await close_after_bye(connection)

    assert 2 <= played(script, handler)["s"] < 4


def test_a_handler_hands_over_itself() -> None:
    """It is told by `leaving`, leaves a state, and nothing behind `hand_over` runs."""
    behind: list[str] = []

    async def handler(session: Any) -> None:
        await session.leaving.wait()
        await session.send("a moment")
        await session.hand_over({"step": 7})
        behind.append("not cancelled")

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await leaving(connection)
        await connection.send(type="successor", sessions=["s_1"])
        assert (await connection.until("message"))["data"] == "a moment"
        await connection.send(type="ack", session="s_1", seq=1)
        assert (await connection.until("session_refuse"))["state"] == {"step": 7}
        await close_after_bye(connection)

    played(script, handler)
    assert behind == []


def test_a_handler_may_hand_over_while_its_worker_stays(caplog: pytest.LogCaptureFixture) -> None:
    """The next worker gets the state as well. The log says that signald counts it, and says nothing where the worker leaves."""

    async def handler(session: WorkerSession) -> None:
        async for _ in session:
            await session.hand_over({"step": 7})

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        for name in ("s_1", "s_2"):
            await peer.first.assign(name)
        await peer.first.send(type="message", session="s_1", seq=1, data="one")
        assert (await peer.first.until("session_refuse"))["state"] == {"step": 7}
        await trio.sleep(0.1)
        assert list(worker.sessions) == ["s_2"]
        worker.ask_for_successor()
        await peer.first.send(type="message", session="s_2", seq=1, data="one")
        assert (await peer.first.until("session_refuse"))["session"] == "s_2"

    with caplog.at_level(logging.WARNING, "signald.sdk"):
        play(script, handler, capacity=2)
    assert [record.getMessage() for record in caplog.records] == [
        "session s_1 is handed over by its handler, and the worker stays: a failed hand-out"
    ]


def test_a_state_that_signald_would_refuse_is_an_error_and_the_session_goes_on() -> None:
    """Too long, or not JSON: ValueError, and nothing is given back."""
    errors: list[str] = []

    async def handler(session: WorkerSession) -> None:
        for state in ("x" * 40_000, {1, 2}):
            try:
                await session.hand_over(state)
            except ValueError as error:
                errors.append(str(error))
        await echo(session)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        await trio.sleep(1)
        assert len(errors) == 2
        assert list(worker.sessions) == ["s_1"]

    play(script, handler)


def test_what_was_handed_over_on_a_connection_that_broke_is_handed_over_again() -> None:
    """The resume names it; behind the answer come `app_state` with `leaving`, what was not stored, and the release with its state."""

    async def handler(session: WorkerSession) -> None:
        session.keep("kept")
        await session.send("last words")
        await trio.sleep_forever()

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        old = peer.first
        await old.assign("s_1")
        await old.until("message")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.drain, Leave(Mode.IMMEDIATE))
            await old.until("session_refuse")
            await old.cut()
            new = await peer.accept()
            opening = await new.reaccept_app(kept={"s_1": 0}, lost=[])
            assert [one["session"] for one in opening["sessions"]] == ["s_1"]
            said = await close_after_bye(new)
            assert [one["type"] for one in said] == ["app_state", "message", "session_refuse"]
            assert said[0]["leaving"]
            assert (said[1]["data"], said[2]["state"]) == ("last words", "kept")

    play(script, handler)


def test_what_signald_has_given_to_another_worker_is_not_handed_over_again() -> None:
    """The resume names it, the answer does not: nothing more is said of it."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        old = peer.first
        await old.assign("s_1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.drain, Leave(Mode.IMMEDIATE))
            await old.until("session_refuse")
            await old.cut()
            new = await peer.accept()
            await new.reaccept_app(kept={}, lost=["s_1"])
            assert await close_after_bye(new) == []

    play(script)


def test_a_bye_that_nobody_confirms_ends_all_the_same() -> None:
    """After five seconds the worker has left, whatever signald does."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await leaving(connection)
        await connection.until("bye")

    assert 5 <= played(script)["s"] < 5.5


def test_a_handler_that_cleans_up_for_too_long_holds_nothing_up() -> None:
    """Two seconds after the release the worker goes on."""

    async def handler(session: WorkerSession) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await leaving(connection)
        await close_after_bye(connection)

    assert 2 <= played(script, handler, leave=Leave(Mode.IMMEDIATE))["s"] < 2.5


def test_a_session_that_ends_while_it_is_handed_over_is_over() -> None:
    """The client's bye comes between: the handler ends as always, and nothing is given back."""

    async def script(connection: Accepted, _worker: Worker) -> None:
        await connection.assign("s_1")
        await connection.send(type="message", session="s_1", seq=1, data="one")
        await connection.until("message")
        await leaving(connection)
        await connection.send(type="successor", sessions=["s_1"])
        await trio.sleep(1)
        await connection.send(type="session_ended", session="s_1", reason="bye")
        said = await close_after_bye(connection)
        assert [one for one in said if one["type"] == "session_refuse"] == []

    assert played(script)["s"] < 1.5


async def test_leave_still_waits_for_the_sessions_to_end(autojump_clock: trio.testing.MockClock) -> None:
    """`Worker.leave` hands nothing over: it takes no more sessions and waits."""
    peer = ScriptedPeer()

    async def serve() -> None:
        connection = await peer.accept()
        await connection.accept_app()
        await connection.assign("s_1")
        assert (await connection.until("app_state"))["leaving"]
        await trio.sleep(15)
        await connection.send(type="session_ended", session="s_1", reason="bye")
        await close_after_bye(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_worker(
            "ws://n", echo, instance_id="w", dial=peer.dial, entropy=SeededEntropy(1), capacity=3
        ) as worker:
            await trio.sleep(1)
            await worker.leave()
            assert trio.current_time() >= 15
