"""A node that lies, against both parties: the connection is replaced with backoff, or a documented error ends the party. Nothing else."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import Raw
from trio_websocket import ConnectionClosed

from signald.ids import SeededEntropy
from signald.sdk.backoff import HINT_MAX_S, Schedule, endpoint
from signald.sdk.bounds import Bounds
from signald.sdk.client_core import ClientCore
from signald.sdk.core import SessionCore
from signald.sdk.dialing import DialFailed
from signald.sdk.errors import LinkBroken, Unreadable
from signald.sdk.events import RealtimeReceived
from signald.sdk.front.conversation import EVENTS_BYTES_MAX, Events
from signald.sdk.link import Link
from signald.sdk.notices import SessionEvent, Taken, Terminate
from signald.sdk.party_core import FLOOD_MAX, RETIRING_MAX
from signald.sdk.party_records import DEFAULT_TIMING
from signald.sdk.trio import Backoff, Refused, SessionGone, WorkerJob, WorkerSession, open_client, open_worker
from signald.sdk.trio_carrier import dial
from signald.sdk.worker_core import WorkerCore
from signald.wire.fields import SEQ_MAX
from signald.wire.messages import JOBS_MAX, ErrorMessage, Message
from tests.sdk.peer import Accepted, ScriptedPeer

URL = "ws://signald.test"

STARTED = {
    "type": "session_started", "session": "s_1", "recovery_token": "s_1.t", "token_ttl_ms": 1, "peer": {"state": "waiting", "id": None},
    "next_seq": 1, "limits": {"message_bytes": 65536, "messages_per_s": 20.0, "messages_burst": 100, "backlog_messages": 1000},
    "heartbeat_ms": 20000,
}  # fmt: skip
ACCEPTED = {
    "type": "app_accepted",
    "status": "ok",
    "worker": "w_1",
    "recovery_token": "w_1.t",
    "token_ttl_ms": 1,
    "heartbeat_ms": 20000,
}
BIG = 10**400


def error(code: str, **fields: Any) -> dict[str, Any]:
    """An error as a node says it."""
    return {"type": "error", "code": code, "message": "", **fields}


def goaway(not_before_ms: int, deadline_ms: int, **fields: Any) -> dict[str, Any]:
    """A goaway as a node says it."""
    return {"type": "goaway", "reason": "x", "not_before_ms": not_before_ms, "deadline_ms": deadline_ms, **fields}


def assigned(session: Any, next_seq: int = 1) -> dict[str, Any]:
    """A session as a node gives it."""
    return {"type": "session_assigned", "session": session, "client": {}, "next_seq": next_seq}


def job(name: Any, **fields: Any) -> dict[str, Any]:
    """A job as a node gives it."""
    return {"type": "job", "session": "s_1", "job": name, "kind": "k", "attempt": 1, "data": 1, **fields}


LIES: list[Any] = [
    {"type": "message", "seq": 7, "data": 1}, {"type": "message", "seq": SEQ_MAX + 1, "data": 1}, {"type": "message", "seq": 1},
    {"type": "message", "seq": 1, "data": 1, "kind": "\ud83d"}, '{"type":"message","session":"s_1","seq":1,"data":1e999}',
    '{"type":"realtime","session":"s_1","data":1e999}', {"type": "realtime"}, {"type": "ack", "seq": 99}, {"type": "ack", "seq": -1},
    {"type": "ack", "seq": BIG}, error("rate", retry_after_ms=-5),
    error("rate", retry_after_ms=BIG), error("gap", expected=BIG),
    error("gap", expected=0), error("rate", retry_after_ms=SEQ_MAX),
    error("log_lost", lost_from=1, lost_to=SEQ_MAX, direction="received"),
    error("log_lost", lost_from=-9, lost_to=BIG, direction="received"),
    error("log_lost", lost_from=9, lost_to=1, direction="sent"),
    goaway(-1, -1), goaway(BIG, 1),
    goaway(0, SEQ_MAX, target="ws://h:99999/"),
    goaway(0, 9, target="ws://[/ \x00"),
    {"type": "peer", "state": "odd"}, {"type": "peer", "state": "paired", "id": "w" * 10_000}, {"type": "session_ended", "reason": 7},
    {"type": "receipt", "seq": BIG}, {"type": "receipt", "session": "s_none", "seq": 1}, {"type": "pong", "x": "\ud83d"}, {"type": "new"},
    {"type": "terminate_app", "request_id": "r", "reason": "x", "deadline_ms": BIG}, assigned(1),
    assigned("", 1), assigned("s_2", 0),
    assigned("s_2", BIG), '{"type":"session_assigned","session":"s_2","client":{"meta":1e999},"next_seq":1}',
    '{"type":"session_assigned","session":"s_2","client":{"settings":1e999},"next_seq":1}',
    {"type": "session_assigned", "session": "s_2", "client": {"settings": "x" * 60_000}, "next_seq": 1},
    '{"type":"session_assigned","session":"s_1","client":{},"next_seq":1,"chat_history":[1e999,{"data":1e999},7,[]]}',
    job("j_1_1"), job("j_1_1", attempt=0), job("j_1_1", attempt=BIG), job("j_2_1"), job("j_1_0"), job("j_1_" + "9" * 70), job(""), job(7),
    job("j_1_1", deadline_ms=-SEQ_MAX, kind="\ud83d"), job("j_1_1", session="s_none"),
    '{"type":"job","session":"s_1","job":"j_1_1","kind":"k","attempt":1,"data":1e999}',
    {"type": "job_cancel", "session": "s_1", "job": "j_1_9", "reason": "requested"},
    {"type": "job_cancel", "session": "s_1", "job": "j_1_1", "reason": "odd"},
    {"type": "message", "seq": 1, "data": 1, "stream": "j_1_1", "attempt": SEQ_MAX, "end": True, "outcome": "odd"},
    {"type": "job_state", "job": "j_1_1", "state": "succeeded", "attempt": 1}, {"type": "job_state", "job": "j_1_1", "state": "odd"},
    '{"type":"job_state","job":"j_1_1","state":"failed","attempt":1,"error":1e999,"progress":1e999}',
    {"type": "job_state", "job": "j" * 10_000, "state": "running", "attempt": SEQ_MAX, "error": [7]},
    STARTED, ACCEPTED, "{", "[]", "1e999", "\"", '{"type":1e999}', "[" * 100_000,
    '{"type":"message","seq":1,"data":' + "[" * 100_000 + "]" * 100_000 + "}",
    b"", b"\x00", b"\xff\xff{}", b"\x00\x02{}", b"\x00\x0f" + b'{"type":"ping"}x', b"\x00\x0f" + b'{"type":"ack"}}x',
]  # fmt: skip


async def say(connection: Accepted, lie: Any) -> None:
    """Send one lie, as it is or as JSON."""
    await connection._websocket.send_message(lie if isinstance(lie, str | bytes) else json.dumps(lie))


class Liar:
    """Answers every opening message and then tells its lie, for as long as the party comes back."""

    def __init__(self, peer: ScriptedPeer, lie: Any) -> None:
        self.peer = peer
        self.lie = lie

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve_one, await self.peer.accept())

    async def _serve_one(self, connection: Accepted) -> None:
        with suppress(ConnectionClosed):
            await self._serve(connection)

    async def _serve(self, connection: Accepted) -> None:
        opening = await connection.receive()
        again = opening.get("recovery_token") is not None
        answers = {"connect": STARTED, "app_ready": ACCEPTED}
        if again and opening["type"] == "app_ready":
            kept = [
                {"session": one["session"], "accepted": one["acked"], "replaying": 0} for one in opening["sessions"]
            ]
            resumed = {
                "type": "reconnection_ack",
                "session_restored": True,
                "server_status": "",
                "sessions": kept,
                "lost": [],
            }
            await say(connection, {**ACCEPTED, **resumed})
        elif again:
            accepted = {"type": "session_restored", "accepted": opening["acked"], "replaying": 0}
            await say(connection, {**STARTED, **accepted})
        else:
            await say(connection, answers[opening["type"]])
        if opening["type"] == "app_ready" and not again:
            await connection.assign("s_1")
        await say(connection, self.lie)
        if isinstance(self.lie, dict) and "seq" in self.lie:
            await say(connection, {**self.lie, "session": "s_1"})
        await connection.close_code()


def live(party: Callable[[ScriptedPeer], Awaitable[None]], lie: Any) -> ScriptedPeer:
    """Let a party live with the liar for five minutes of virtual time. Fails when it ends otherwise than by a documented error."""

    async def main() -> ScriptedPeer:
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Liar(peer, lie).run)
            with trio.move_on_after(300):
                await party(peer)
            nursery.cancel_scope.cancel(reason="over")
        return peer

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.long
@pytest.mark.parametrize("lie", LIES, ids=lambda one: str(one)[:50])
def test_a_lie_ends_no_worker(lie: Any) -> None:
    """The worker goes on, its handlers see no more than values that raise, and it comes back with growing waits."""

    async def party(peer: ScriptedPeer) -> None:
        async def handler(session: WorkerSession) -> None:
            with suppress(Unreadable):
                _ = session.meta, [entry["data"] for entry in session.chat_history if isinstance(entry, dict)]
            async for message in session:
                try:
                    await session.send(message.data)
                except Unreadable:
                    continue

        async def work(job: WorkerJob) -> Any:
            await job.progress(1)
            return job.data

        async with open_worker(
            URL, handler, instance_id="i", capacity=9, on_job=work, dial=peer.dial, entropy=SeededEntropy(3)
        ) as worker:
            await worker.wait()

    peer = live(party, lie)
    assert len(peer.dials) < 150


@pytest.mark.long
@pytest.mark.parametrize("lie", LIES, ids=lambda one: str(one)[:50])
def test_a_lie_ends_no_client(lie: Any) -> None:
    """As for a worker."""

    async def party(peer: ScriptedPeer) -> None:
        async with open_client(URL, dial=peer.dial, entropy=SeededEntropy(3), jobs=True) as client:
            await client.send("said")
            with suppress(Unreadable):
                _ = client.job("j_1_1").progress
            async for message in client:
                try:
                    _ = message.data
                except Unreadable:
                    continue

    peer = live(party, lie)
    assert len(peer.dials) < 150


@pytest.mark.parametrize("code", [1000, 1011, 1012, 1013, 4001, 4404, 4410, 4999])
@pytest.mark.parametrize(
    "reason", ["", '{"retry_after_ms":0}', '{"retry_after_ms":1e999}', '{"retry_after_ms":' + "9" * 90 + "}"]
)
def test_connections_that_are_answered_and_closed_are_replaced_ever_more_slowly(code: int, reason: str) -> None:
    """No close, and no hint that comes with it, makes a worker dial in a loop."""

    async def main() -> int:
        peer = ScriptedPeer()

        async def serve() -> None:
            while True:
                connection = await peer.accept()
                with suppress(ConnectionClosed):
                    opening = await connection.receive()
                    if opening["reconnection"]:
                        await connection.close(4404)
                    else:
                        await say(connection, ACCEPTED)
                        await connection.close(code, reason)

        async def handler(_: WorkerSession) -> None:
            raise AssertionError("nothing was assigned")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with trio.move_on_after(300):
                with suppress(SessionGone, Refused):
                    async with open_worker(
                        URL, handler, instance_id="i", dial=peer.dial, entropy=SeededEntropy(3)
                    ) as worker:
                        await worker.wait()
            nursery.cancel_scope.cancel(reason="over")
        return len(peer.dials)

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) < 120


def test_a_node_that_always_goes_away_is_followed_ever_more_slowly() -> None:
    """Each answer is a goaway: moves come once a second, then ever more slowly, and few left connections stay open."""
    lie = goaway(0, 1000)
    most = 0

    async def party(peer: ScriptedPeer) -> None:
        nonlocal most
        async with open_client(URL, dial=peer.dial, entropy=SeededEntropy(3)) as client:
            while True:
                await trio.sleep(0.05)
                most = max(most, len(client._core.retiring))

    assert len(live(party, lie).dials) < 150
    assert most <= RETIRING_MAX + 1


# --- single numbers and totals -----------------------------------------------------------------------------------------


def worker_with(*sessions: str) -> tuple[WorkerCore, Link]:
    """A registered worker with these sessions."""
    core = WorkerCore(["ws://h"], instance_id="i", entropy=SeededEntropy(1), capacity=100)
    link = core.opened("ws://h/v1/worker", 0.0)
    core.receive(link, json.dumps(ACCEPTED), 0.0)
    for name in sessions:
        core.receive(link, json.dumps({"type": "session_assigned", "session": name, "client": {}, "next_seq": 1}), 0.0)
    core.write(link, 0.0)
    core.notices.clear()
    return core, link


@pytest.mark.parametrize("lie", [{"type": "ack", "seq": 5}, {"type": "message", "seq": 9, "data": 1}])
def test_a_number_that_does_not_fit_costs_its_session(lie: dict[str, Any]) -> None:
    """The worker gives back that session with a word; the other one goes on over the same connection."""
    core, link = worker_with("s_1", "s_2")
    if lie["type"] == "message":
        core.receive(link, json.dumps({"type": "message", "session": "s_1", "seq": 1, "data": 1}), 0.0)
    core.receive(link, json.dumps({**lie, "session": "s_1"}), 0.0)
    assert list(core.sessions) == ["s_2"]
    assert [one.session for one in core.notices if isinstance(one, Taken)] == ["s_1"]
    said = [json.loads(payload) for _, payload in core.write(link, 0.0)]
    assert [(one["type"], one["session"]) for one in said] == [("session_refuse", "s_1")]


def test_a_resume_with_one_wrong_number_goes_on_with_the_others() -> None:
    """What signald says it has of one session is beyond what was sent: that one is given back."""
    core, link = worker_with("s_1", "s_2")
    core.sessions["s_1"].core.send("unacked")
    core.lost(link, None, "", 1.0)
    again = core.opened("ws://h/v1/worker", 2.0)
    kept = [{"session": "s_1", "accepted": 99, "replaying": 0}, {"session": "s_2", "accepted": 0, "replaying": 0}]
    strangers = [{"session": f"s_x{number}", "accepted": 0, "replaying": 0} for number in range(10_000)]
    answer = {
        "session_restored": True,
        "server_status": "",
        "sessions": [*kept, *strangers],
        "lost": [f"s_y{n}" for n in range(100_000)],
    }
    core.write(again, 2.0)
    core.receive(again, json.dumps({**ACCEPTED, "type": "reconnection_ack", **answer}), 2.0)
    assert list(core.sessions) == ["s_2"]
    said = [json.loads(payload) for _, payload in core.write(again, 2.0)]
    assert [one["session"] for one in said if one["type"] == "session_refuse"] == ["s_1"]


def test_a_worker_is_terminated_once() -> None:
    """However often it is said; a negative deadline is none."""
    core, link = worker_with()
    for _ in range(1000):
        core.receive(
            link, json.dumps({"type": "terminate_app", "request_id": "r", "reason": "x", "deadline_ms": -5}), 0.0
        )
    assert [one for one in core.notices if isinstance(one, Terminate)] == [Terminate("r", "x", 0)]


def test_jobs_without_end_are_cut() -> None:
    """A node gives a session only so many jobs; an attempt that comes twice is none."""
    core, link = worker_with("s_1")
    for number in range(1, JOBS_MAX + 1):
        core.receive(link, json.dumps(job(f"j_1_{number}")), 0.0)
        core.receive(link, json.dumps(job(f"j_1_{number}")), 0.0)
    assert len(core.notices) == JOBS_MAX
    with pytest.raises(LinkBroken, match="more jobs"):
        core.receive(link, json.dumps(job("j_1_9999")), 0.0)


def test_a_node_that_asks_and_does_not_read_is_cut() -> None:
    """Answers that the service never reads have a bound."""
    core, link = worker_with()
    for number in range(FLOOD_MAX + 1):
        core.receive(link, json.dumps(assigned(f"s_{number}")), 0.0)
    with pytest.raises(LinkBroken, match="reads no answer"):
        core.receive(link, json.dumps(assigned("s_x")), 0.0)


@pytest.mark.parametrize("heartbeat_ms", [-SEQ_MAX, 0, SEQ_MAX])
def test_a_heartbeat_is_neither_a_flood_nor_never(heartbeat_ms: int) -> None:
    """Whatever the node names, a dead connection is found out, and pings are not in a loop."""
    core = ClientCore(["ws://h"], entropy=SeededEntropy(1))
    link = core.opened("ws://h/v1/client", 0.0)
    core.receive(link, json.dumps({**STARTED, "heartbeat_ms": heartbeat_ms}), 0.0)
    assert 0.04 <= core.due(link, 0.0) <= 300.0


@pytest.mark.parametrize("hint", [-SEQ_MAX, 0, SEQ_MAX, 10**90])
def test_a_hint_is_neither_at_once_for_ever_nor_for_good(hint: int) -> None:
    """Failures in a row wait longer, whatever the service asks for; and it asks for an hour at most."""
    plan = Schedule(["ws://h"], "/", Backoff(), SeededEntropy(1))
    waits = []
    for _ in range(20):
        plan.failed(0.0, 1013, hint)
        waits.append(plan.at)
    assert all(0 <= wait <= HINT_MAX_S + 1 for wait in waits)
    assert sum(waits) > 20


def test_a_pause_is_neither_none_nor_for_ever() -> None:
    """Between 5 ms and a minute, whatever the node asks for."""

    core = SessionCore(None, SeededEntropy(1))
    core.send("x")
    for hint in (-SEQ_MAX, 0, SEQ_MAX):
        core.refused(ErrorMessage("rate", "", retry_after_ms=hint), 0.0)
        assert 0.004 < core.wake_at(0.0) <= 62.0


def test_an_inbox_is_bounded_by_bytes() -> None:
    """Long messages fill it before many do; it has room again when they are taken."""

    core = SessionCore(None, SeededEntropy(1), bounds=Bounds(inbox_bytes_max=100))
    core.receive(Message(1, Raw(b'"' + b"x" * 60 + b'"')), None)
    assert not core.full
    core.receive(Message(2, Raw(b'""')), b"y" * 60)
    full = [core.full]
    core.take()
    assert [*full, core.full] == [True, False]


def test_realtime_data_is_bounded_by_bytes() -> None:
    """A peer that sends what its receiver does not read costs a megabyte, and only the oldest of it."""
    events = Events()
    for number in range(1000):
        events.put(RealtimeReceived(number, 64 * 1024))
    waiting = list(iter(events.receive_nowait, None))
    assert len(waiting) == EVENTS_BYTES_MAX // (64 * 1024)
    assert waiting[-1] == RealtimeReceived(999)
    core, link = worker_with("s_1")
    core.receive(link, '{"type":"realtime","session":"s_1","data":"four"}', 0.0)
    (told,) = core.notices
    assert isinstance(told, SessionEvent)
    assert isinstance(told.event, RealtimeReceived)
    assert (told.event.data, told.event.size) == ("four", 6)


@pytest.mark.parametrize(
    "url",
    [
        "ws://h:99999", "ws://h:x", "ws://h:0", "ws://h/a b", "ws://h/\u00e9", "ws://\u00e9", "ws://[", "ws://h\x00", "ws://a..b",
        f"ws://{'h' * 64}",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_dialled_is_refused(url: str) -> None:
    """As a ValueError: what a node names is then no hint, and what the application names is told to it."""
    with pytest.raises(ValueError, match=r"URL|port|IPv6|netloc|Port|no name"):
        endpoint(url, "/v1/client")


@pytest.mark.parametrize("url", ["ws://" + "a" * 70, "ws://a..b", "ws://-"])
def test_a_host_that_is_no_name_is_not_reachable(url: str) -> None:
    """It fails as a dial does."""

    async def main() -> None:
        with pytest.raises(DialFailed):
            async with dial(f"{url}/v1/client", None, DEFAULT_TIMING):
                pass

    trio.run(main)
