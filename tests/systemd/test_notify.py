"""The real daemon against a real NOTIFY_SOCKET and LISTEN_FDS."""

import json
import signal
import time
from pathlib import Path

import pytest
import trio
import trio_websocket

from signald.demo.cluster import Node
from signald.testing.wire import Peer
from tests.real.harness import DRAIN, HOST, dial, exit_of, logged, term, until
from tests.systemd.manager import open_manager

pytestmark = pytest.mark.real


def port_of(node: Node) -> int:
    """Where a node that chose its port listens."""
    end = time.monotonic() + 10
    while not (lines := logged(node, "ready")) and time.monotonic() < end:
        time.sleep(0.02)  # a line is written by a thread of the node
    return int(lines[0]["websocket"])


@pytest.mark.parametrize("abstract", [False, True])
async def test_ready_is_said_once_when_it_serves(tmp_path: Path, abstract: bool) -> None:
    """READY=1 is the first word, comes once, and from then on clients can connect; a path or an abstract socket."""
    async with open_manager(tmp_path, abstract=abstract) as manager:
        node = await manager.start()
        await manager.heard("READY", "1")
        async with dial(f"ws://{HOST}:{port_of(node)}", "/v1/client") as peer:
            await peer.ask({"type": "connect"}, "session_started")
            await manager.heard("STATUS", "serving 1 clients, 0 workers")
        assert "READY" in manager.said[0]
        assert manager.said[0]["STATUS"] == "serving 0 clients, 0 workers"
        term(node)
        assert await exit_of(node) == 0
        assert len(manager.messages("READY")) == 1
        assert not manager.messages("WATCHDOG"), "nobody has asked for signs of life"


async def test_nothing_is_ready_without_the_store(tmp_path: Path) -> None:
    """A node whose store does not come up never says READY, and ends with 69."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start(store={"url": "redis://127.0.0.1:1"})
        assert await node.process.wait() == 69
        assert not manager.said


async def test_the_watchdog_is_fed_by_the_loop_that_serves(tmp_path: Path) -> None:
    """WATCHDOG=1 comes at least twice in each period, and stops with the process that is stuck."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start(watchdog_s=2.0)
        await manager.heard("READY")
        began, had = time.monotonic(), len(manager.messages("WATCHDOG"))
        await manager.heard("WATCHDOG", times=had + 5)
        assert time.monotonic() - began > 2.5, "no more often than needed"
        node.send_signal(signal.SIGSTOP)
        await trio.sleep(0.5)  # what was under way arrives
        had = len(manager.messages("WATCHDOG"))
        await trio.sleep(3)
        assert len(manager.messages("WATCHDOG")) == had
        node.send_signal(signal.SIGCONT)
        await manager.heard("WATCHDOG", times=had + 1)


async def test_another_process_is_no_watchdog(tmp_path: Path) -> None:
    """WATCHDOG_PID names the process that is watched; no other says anything."""
    async with open_manager(tmp_path) as manager:
        await manager.start(watchdog_s=0.4, env={"WATCHDOG_PID": "1"})
        await manager.heard("READY")
        await trio.sleep(1)
        assert not manager.messages("WATCHDOG")


async def test_a_drain_asks_for_time_and_says_how_far_it_is(tmp_path: Path) -> None:
    """EXTEND_TIMEOUT_USEC comes at once and every five seconds, STOPPING only at the end; the watchdog is fed throughout."""
    budgets = {**DRAIN, "successor_timeout_s": 8.0, "timeout_s": 18.0, "stop_timeout_s": 30.0}
    async with open_manager(tmp_path) as manager:
        node = await manager.start(watchdog_s=2.0, drain=budgets)
        await manager.heard("READY")
        async with dial(f"ws://{HOST}:{port_of(node)}", "/v1/client") as peer:
            await peer.ask({"type": "connect"}, "session_started")
            term(node)
            began = time.monotonic()
            await manager.heard("EXTEND_TIMEOUT_USEC", "15000000", within_s=7)
            assert manager.messages("EXTEND_TIMEOUT_USEC")[0]["STATUS"] == "draining (successor)"
            had = len(manager.messages("WATCHDOG"))
            await manager.heard("EXTEND_TIMEOUT_USEC", times=2, within_s=10)
            assert time.monotonic() - began > 4
            assert len(manager.messages("WATCHDOG")) > had
            assert not manager.messages("STOPPING"), "a successor may still come"
            assert await peer.closed() == 1012
        assert await exit_of(node) == 0
        await manager.heard("STOPPING", "1")
        assert len(manager.messages("STOPPING")) == 1
        assert "EXTEND_TIMEOUT_USEC" not in manager.said[-1]


async def test_a_drain_that_can_be_called_off_is_not_stopping(tmp_path: Path) -> None:
    """An operator's drain is only a status: STOPPING would be final, and an operator's drain needs no more time."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start()
        await manager.heard("READY")
        await admin(tmp_path / f"{node.name}.sock", "POST", "drain")
        await until(lambda: any("drained" in one["STATUS"] for one in manager.messages("STATUS")), 15)
        await admin(tmp_path / f"{node.name}.sock", "POST", "abort")
        await until(lambda: manager.messages("STATUS")[-1]["STATUS"].startswith("serving"), 15)
        assert not manager.messages("STOPPING")
        assert not manager.messages("EXTEND_TIMEOUT_USEC")


async def admin(path: Path, method: str, what: str) -> tuple[int, dict[str, object]]:
    """Ask the admin API on a Unix socket."""
    said = b""
    async with await trio.open_unix_socket(str(path)) as stream:
        head = f"{method} /v1/admin/{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        await stream.send_all(head.encode())
        while data := await stream.receive_some():
            said += data
    front, _, body = said.partition(b"\r\n\r\n")
    return int(front.split()[1]), json.loads(body)


# --- sockets ------------------------------------------------------------------------------------------------------


async def test_passed_sockets_are_served_instead_of_bound_ones(tmp_path: Path) -> None:
    """The sockets called ws and http are those the node listens on; the configured addresses are not used."""
    async with open_manager(tmp_path) as manager:
        http, ws = manager.pass_socket("http"), manager.pass_socket("ws")
        node = await manager.start(listen={"websocket": f"{HOST}:1", "http": f"{HOST}:2"})
        await manager.heard("READY")
        with trio.fail_after(10):
            while not logged(node, "ready"):  # noqa: ASYNC110 - a line is written by a thread
                await trio.sleep(0.05)
        entry = logged(node, "ready")[0]
        assert (entry["websocket"], entry["http"]) == (ws, http)
        async with dial(f"ws://{HOST}:{ws}", "/v1/client") as peer:
            await peer.ask({"type": "connect"}, "session_started")
        async with await trio.open_tcp_stream(HOST, http) as stream:
            await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_who_connects_between_two_processes_is_served_by_the_next(tmp_path: Path) -> None:
    """A restart with passed sockets refuses no client: a connection made while no process runs waits for the next one."""
    async with open_manager(tmp_path) as manager:
        url = f"ws://{HOST}:{manager.pass_socket('ws')}"
        first = await manager.start()
        await manager.heard("READY")
        async with dial(url, "/v1/client") as peer:
            started = await peer.ask({"type": "connect"}, "session_started")
            term(first)
            assert await peer.closed() == 1012
        assert await exit_of(first) == 0
        end = logged(first, "drain_phase")[-1]
        assert (end["phase"], end["by"]) == ("done", "done"), "the closing handshakes were waited for"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resumes, url, started["recovery_token"])
            await trio.sleep(0.5)
            await manager.start()
        await manager.heard("READY", times=2)


async def resumes(url: str, token: str) -> None:
    """Connect and resume; the first attempt must succeed."""
    with trio.fail_after(30):
        async with dial(url, "/v1/client") as peer:
            await peer.send({"type": "restore_session", "recovery_token": token, "received": 0})
            assert (await peer.receive())["type"] == "session_restored"


async def test_the_queue_is_left_to_the_next_process_before_the_last_goodbyes(tmp_path: Path) -> None:
    """A client that connects while the old process only waits for closing handshakes is not told to come again: the next one answers."""
    async with open_manager(tmp_path) as manager:
        port = manager.pass_socket("ws")
        node = await manager.start(drain={**DRAIN, "close_timeout_s": 2.0, "stop_timeout_s": 30.0})
        await manager.heard("READY")
        async with await trio.open_tcp_stream(HOST, port) as silent, trio.open_nursery() as nursery:
            await silent.send_all(UPGRADE)
            assert (await silent.receive_some()).startswith(b"HTTP/1.1 101")
            term(node)
            await until(lambda: any(entry["phase"] == "close" for entry in logged(node, "drain_phase")), 10)
            answers: list[str] = []
            nursery.start_soon(knock_once, f"ws://{HOST}:{port}", answers)
            assert await exit_of(node) == 0
            assert not answers
            await manager.start()
            await until(lambda: answers == ["session_started"], 20, "the next process answers")


UPGRADE = (
    b"GET /v1/client HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def knock_once(url: str, answers: list[str]) -> None:
    """Connect; what became of it."""
    async with dial(url, "/v1/client") as peer:
        answers.append(await answer_of(peer))


async def test_knocking_all_through_a_restart_is_always_answered(tmp_path: Path) -> None:
    """While a node with passed sockets is replaced, each attempt is let in or told when to come again, and none is reset."""
    async with open_manager(tmp_path) as manager:
        url = f"ws://{HOST}:{manager.pass_socket('ws')}"
        node = await manager.start()
        await manager.heard("READY")
        answers: list[str] = []
        enough = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(knock, url, answers, enough)
            for restarts in range(1, 4):
                async with dial(url, "/v1/client") as resident:  # a party to be told goodbye
                    await resident.ask({"type": "connect"}, "session_started")
                    term(node)
                    assert await exit_of(node) == 0
                node = await manager.start()
                await manager.heard("READY", times=1 + restarts)
            await until(lambda: answers[-1:] == ["session_started"], 10)
            enough.set()
        assert {"session_started"} <= set(answers) <= {"session_started", "1012", "1013"}


async def knock(url: str, answers: list[str], enough: trio.Event) -> None:
    """Connect and connect again; what became of each attempt."""
    while not enough.is_set():
        async with dial(url, "/v1/client") as peer:
            answers.append(await answer_of(peer))
        await trio.sleep(0.01)


async def answer_of(peer: Peer) -> str:
    """What a client that starts is told: the type of a frame, or the code of a close."""
    try:
        await peer.send({"type": "connect"})
        return str((await peer.receive())["type"])
    except trio_websocket.ConnectionClosed as closed:
        return str(closed.reason.code if closed.reason is not None else "nothing")


@pytest.mark.parametrize(("name", "host", "says"), [("web", HOST, "FileDescriptorName=ws"), ("ws", "0.0.0.0", "auth")])
async def test_a_socket_that_must_not_be_served_ends_the_start(tmp_path: Path, name: str, host: str, says: str) -> None:
    """A socket of an unknown name, or one open to the network without a key, is a mistake of configuration: 78."""
    async with open_manager(tmp_path) as manager:
        manager.pass_socket(name, host)
        node = await manager.start()
        assert await node.process.wait() == 78
        assert says in node.log_tail()
        assert not manager.said
