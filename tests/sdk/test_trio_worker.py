"""Tests of the worker's front on Trio, against a scripted signald over memory streams."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.events import HandedOver, Resumed
from signald.sdk.trio import Handler, SessionGone, Worker, WorkerSession, open_worker, run_worker
from tests.sdk.peer import ScriptedPeer

URL = "ws://signald.test"


async def echo(session: WorkerSession) -> None:
    """Answer every message with itself."""
    async for message in session:
        await session.send(message.data)


def play(
    script: Callable[[ScriptedPeer, Worker], Awaitable[None]], handler: Handler = echo, **options: Any
) -> ScriptedPeer:
    """Run a server's script, which ends the test, against a worker, in virtual time."""

    async def main() -> ScriptedPeer:
        peer = ScriptedPeer()
        options.setdefault("capacity", 10)
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                registered = trio.Event()

                async def accept() -> None:
                    peer.first = await peer.accept()
                    await peer.first.accept_app()
                    registered.set()

                nursery.start_soon(accept)
                async with open_worker(
                    URL, handler, instance_id="pod-1", dial=peer.dial, entropy=SeededEntropy(1), **options
                ) as worker:
                    await registered.wait()
                    await script(peer, worker)
        return peer

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_worker_answers_its_sessions() -> None:
    """Each assigned session is accepted and has a handler; its answers start at `next_seq`."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        connection = peer.first
        assert (await connection.assign("s_1"))["type"] == "session_accept"
        assert (await connection.assign("s_2", next_seq=8))["type"] == "session_accept"
        await connection.send(type="message", session="s_1", seq=1, data="one")
        await connection.send(type="message", session="s_2", seq=5, data="five")
        assert await connection.until("message") == {"type": "message", "session": "s_1", "seq": 1, "data": "one"}
        assert await connection.until("message") == {"type": "message", "session": "s_2", "seq": 8, "data": "five"}
        assert sorted(worker.sessions) == ["s_1", "s_2"]

    play(script)


def test_a_handler_learns_who_its_client_is_and_what_was_said() -> None:
    """`meta` and `chat_history` of the assignment reach the handler."""
    told: list[Any] = []

    async def handler(session: WorkerSession) -> None:
        told.append((session.session, session.meta, session.chat_history))
        async for _ in session:
            pass

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        history = [{"from": "client", "seq": 1, "data": "hi"}]
        await peer.first.assign("s_1", client={"meta": {"name": "alice"}}, chat_history=history)
        await trio.sleep(1)
        assert told == [("s_1", {"name": "alice"}, history)]

    play(script, handler)


def test_acks_of_one_write_are_one() -> None:
    """Of ten messages finished in one go, one cumulative ack is written."""

    async def handler(session: WorkerSession) -> None:
        async for _ in session:
            pass

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        for seq in range(1, 11):
            await peer.first.send(type="message", session="s_1", seq=seq, data=seq)
        acks = []
        with trio.move_on_after(5):
            while True:
                acks.append((await peer.first.until("ack"))["seq"])
        assert acks[-1] == 10
        assert len(acks) < 10

    play(script, handler)


def test_a_resumed_worker_goes_on_with_what_it_kept_and_drops_what_it_lost() -> None:
    """The same handlers go on after a resume; the handler of a lost session is cancelled."""
    ended: list[str] = []

    async def handler(session: WorkerSession) -> None:
        try:
            await echo(session)
        finally:
            ended.append(session.session)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        old = peer.first
        await old.assign("s_1")
        await old.assign("s_2")
        await old.send(type="message", session="s_1", seq=1, data="one")
        await old.until("message")
        await old.cut()
        new = await peer.accept()
        opening = await new.reaccept_app(kept={"s_1": 0}, lost=["s_2"])
        assert (opening["recovery_token"], opening["attempt"]) == ("w_1.first", 2)
        assert opening["sessions"] == [
            {"session": "s_1", "received": 1, "acked": 0},
            {"session": "s_2", "received": 0, "acked": 0},
        ]
        assert (await new.until("message"))["data"] == "one"
        await new.send(type="ack", session="s_1", seq=1)
        await new.send(type="message", session="s_1", seq=1, data="one")
        await new.send(type="message", session="s_1", seq=2, data="two")
        assert (await new.until("message"))["data"] == "two"
        assert ended == ["s_2"]
        assert list(worker.sessions) == ["s_1"]
        assert worker.connections == 2

    play(script, handler)


def test_goaway_moves_a_worker_while_it_serves() -> None:
    """The worker resumes elsewhere with all its sessions; what was unacked is sent again there, once."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        old = peer.first
        await old.assign("s_1")
        await old.send(type="message", session="s_1", seq=1, data="one")
        await old.until("message")
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        await old.send(type="message", session="s_1", seq=2, data="two")
        assert (await old.until("message"))["data"] == "two"
        await new.reaccept_app(kept={"s_1": 1}, lost=[])
        again = await new.until("message")
        assert (again["seq"], again["data"]) == (2, "two")
        await old.close(4001, "moved")
        await new.send(type="message", session="s_1", seq=3, data="three")
        assert (await new.until("message"))["data"] == "three"
        assert worker.events.receive_nowait() == HandedOver(None)

    assert len(play(script).dials) == 2


def test_a_left_connection_that_nobody_closes_is_closed_by_the_worker() -> None:
    """Ten seconds after a move, a connection that signald did not close is given up."""

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        await new.reaccept_app(kept={}, lost=[])
        moved_at = trio.current_time()
        await peer.first.close_code()
        assert 10 <= trio.current_time() - moved_at <= 13
        assert (await new.assign("s_1"))["type"] == "session_accept"

    play(script)


def test_a_worker_that_cannot_resume_registers_anew() -> None:
    """4404: the handlers are cancelled and the worker registers without a token, as if for the first time."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.cut()
        second = await peer.accept()
        assert (await second.receive())["reconnection"] is True
        await second.close(4404)
        third = await peer.accept()
        opening = await third.accept_app()
        assert "recovery_token" not in opening
        assert worker.sessions == {}
        assert (await third.assign("s_1"))["type"] == "session_accept"

    play(script)


def test_a_handler_that_raises_gives_its_session_back() -> None:
    """Its message stays unacked, signald is told, and the other sessions go on."""

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            if message.data == "poison":
                raise RuntimeError("cannot")
            await session.send(message.data)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        connection = peer.first
        await connection.assign("s_1")
        await connection.assign("s_2")
        await connection.send(type="message", session="s_1", seq=1, data="poison")
        refusal = await connection.receive()
        assert refusal == {"type": "session_refuse", "session": "s_1", "reason": "handler failed"}
        await connection.send(type="message", session="s_2", seq=1, data="fine")
        assert (await connection.until("message"))["data"] == "fine"
        assert list(worker.sessions) == ["s_2"]

    play(script, handler)


def test_a_handler_that_raises_at_a_message_has_finished_with_those_before() -> None:
    """What it has said and acked without a pause goes ahead of the refusal: the next worker is not given again what is done."""
    begin = {f"s_{number}": trio.Event() for number in range(8)}  # in half of them the writer is the first to run

    async def handler(session: WorkerSession) -> None:
        await begin[session.session].wait()
        async for message in session:
            if message.data == "poison":
                raise RuntimeError("cannot")
            await session.send(message.data)

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        for name, event in begin.items():
            await peer.first.assign(name)
            for seq, data in ((1, "one"), (2, "two"), (3, "poison")):
                await peer.first.send(type="message", session=name, seq=seq, data=data)
            await trio.sleep(0.1)
            event.set()
            said = [await peer.first.receive() for _ in range(4)]
            assert sorted((one["type"], one.get("seq")) for one in said[:3]) == [
                ("ack", 2), ("message", 1), ("message", 2),
            ]  # fmt: skip
            assert said[3]["type"] == "session_refuse"

    play(script, handler)


def test_a_handler_that_returns_ends_its_session() -> None:
    """`bye` leaves after the last answer was stored."""

    async def handler(session: WorkerSession) -> None:
        await session.send("only this")

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.until("message")
        await peer.first.send(type="ack", session="s_1", seq=1)
        assert await peer.first.receive() == {"type": "bye", "reason": "handler returned", "session": "s_1"}
        await peer.first.send(type="session_ended", session="s_1", reason="handler returned")
        await trio.sleep(1)
        assert worker.sessions == {}

    play(script, handler)


def test_a_session_that_ends_ends_its_iteration() -> None:
    """After `session_ended` the handler's loop finishes what it has and stops."""
    heard: list[Any] = []

    async def handler(session: WorkerSession) -> None:
        heard.extend([message.data async for message in session])
        heard.append(session.ended)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.send(type="message", session="s_1", seq=1, data="one")
        await peer.first.send(type="session_ended", session="s_1", reason="bye")
        await trio.sleep(1)
        assert heard == ["one", "bye"]
        assert worker.sessions == {}

    play(script, handler)


def test_more_sessions_than_the_capacity_are_refused() -> None:
    """A worker never takes more than it said it can."""

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        assert (await peer.first.assign("s_1"))["type"] == "session_accept"
        assert (await peer.first.assign("s_2"))["type"] == "session_refuse"

    play(script, capacity=1)


def test_a_terminated_worker_cleans_up_answers_and_returns() -> None:
    """`terminate_app` runs the callback, is answered with OK, and `run_worker` returns after the close."""
    called: list[str] = []

    async def on_terminate(reason: str) -> None:
        await trio.sleep(1)
        called.append(reason)

    async def main() -> None:
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:

            async def script() -> None:
                connection = await peer.accept()
                await connection.accept_app()
                await connection.send(type="terminate_app", request_id="r1", reason="drain", deadline_ms=5000)
                answer = await connection.until("app_terminated")
                assert answer == {"type": "app_terminated", "request_id": "r1", "status": "OK", "message": ""}
                await connection.close(1000)

            nursery.start_soon(script)
            await run_worker(URL, echo, instance_id="pod-1", on_terminate=on_terminate, dial=peer.dial)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert called == ["drain"]


def test_a_leaving_worker_finishes_its_sessions_first() -> None:
    """`leave` asks for no more sessions, waits for those there are, says bye, and returns after the close."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.leave, "deploy of the worker")
            assert (await peer.first.until("app_state"))["leaving"] is True
            assert (await peer.first.assign("s_2"))["type"] == "session_refuse"
            await peer.first.send(type="session_ended", session="s_1", reason="done")
            assert await peer.first.until("bye") == {"type": "bye", "reason": "deploy of the worker"}
            await peer.first.close(1000)

    play(script)


def test_a_superseded_worker_stops() -> None:
    """4409: another process holds this worker; this one ends and does not come back."""

    async def main() -> None:
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:

            async def script() -> None:
                connection = await peer.accept()
                await connection.accept_app()
                await connection.close(4409)

            nursery.start_soon(script)
            with pytest.raises(SessionGone):
                await run_worker(URL, echo, instance_id="pod-1", dial=peer.dial)
        assert len(peer.dials) == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_refused_message_of_one_session_does_not_hold_up_another() -> None:
    """`backlog` pauses the session it names, and that one only."""

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        connection = peer.first
        await connection.assign("s_1")
        await connection.assign("s_2")
        await connection.send(type="message", session="s_1", seq=1, data="a")
        await connection.until("message")
        await connection.send(
            type="error", code="backlog", message="full", session="s_1", expected=1, retry_after_ms=1000, fatal=False
        )
        await connection.send(type="message", session="s_2", seq=1, data="b")
        assert (await connection.until("message"))["session"] == "s_2"
        assert trio.current_time() < 1
        assert (await connection.until("message"))["session"] == "s_1"
        assert trio.current_time() >= 1

    play(script)


def test_a_worker_tells_that_it_resumed() -> None:
    """A plain break shows as Disconnected, then Resumed."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.cut()
        await (await peer.accept()).reaccept_app(kept={}, lost=[])
        await trio.sleep(0.1)
        worker.events.receive_nowait()
        assert worker.events.receive_nowait() == Resumed()

    play(script)


def test_an_answer_carries_the_epoch_of_its_assignment() -> None:
    """Acceptances and refusals name the question they answer; a service that gives no epoch gets none back."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        accept = {"type": "session_accept", "session": "s_1"}
        assert await peer.first.assign("s_1") == accept
        await peer.first.send(type="session_ended", session="s_1", reason="not accepted in time")
        assert await peer.first.assign("s_1", epoch=3) == {**accept, "epoch": 3}
        worker._core.release(worker._core.sessions["s_1"].core, "tired", trio.current_time())
        assert await peer.first.until("session_refuse") == {
            "type": "session_refuse", "session": "s_1", "reason": "tired", "epoch": 3,
        }  # fmt: skip
        assert await peer.first.assign("s_1", epoch=5) == {**accept, "epoch": 5}

    play(script)


def test_an_acceptance_that_may_be_lost_is_said_again() -> None:
    """Until signald shows that it knows, `session_accept` follows every resume, and a `not_accepted`, with what did not count."""

    async def script(peer: ScriptedPeer, _: Worker) -> None:
        await peer.first.assign("s_1")
        await peer.first.cut()
        new = await peer.accept()
        await new.reaccept_app(kept={"s_1": 0}, lost=[])
        assert await new.until("session_accept") == {"type": "session_accept", "session": "s_1"}
        await new.send(type="message", session="s_1", seq=1, data="one")
        assert (await new.until("message"))["seq"] == 1
        await new.send(type="error", code="not_accepted", message="", session="s_1", fatal=False)
        assert (await new.until("session_accept"))["session"] == "s_1"
        assert (await new.until("ack"))["seq"] == 1
        assert (await new.until("message"))["seq"] == 1
        await new.send(type="ack", session="s_1", seq=1)
        await new.cut()
        third = await peer.accept()
        await third.reaccept_app(kept={"s_1": 1}, lost=[])
        assert (await third.receive())["type"] == "ack"

    play(script)


def test_what_the_old_node_has_forgotten_during_a_move_is_not_lost() -> None:
    """`unknown_session` on a connection that is being left says nothing: the session goes on at the new place."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        old = peer.first
        await old.assign("s_1")
        await old.send(type="message", session="s_1", seq=1, data="one")
        await old.until("message")
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        await old.send(type="error", code="unknown_session", message="", session="s_1", fatal=False)
        await trio.sleep(0.1)
        await new.reaccept_app(kept={"s_1": 0}, lost=[])
        assert (await new.until("message"))["data"] == "one"
        await new.send(type="error", code="unknown_session", message="", session="s_1", fatal=False)
        await trio.sleep(0.1)
        assert worker.sessions == {}

    play(script)


def test_a_session_given_while_a_move_is_under_way_is_refused() -> None:
    """The message that resumes elsewhere does not name it, so another worker had better take it."""

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        assert (await peer.first.assign("s_1"))["type"] == "session_refuse"
        await new.reaccept_app(kept={}, lost=[])
        assert (await new.assign("s_2"))["type"] == "session_accept"
        assert list(worker.sessions) == ["s_2"]

    play(script)
