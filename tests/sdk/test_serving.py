"""Tests of what `run_worker` does around a worker, on both event loops: health port, load, options of a stage, watchdog, the command."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from signald.sdk.front import health, watchdog
from signald.sdk.front.load import keep_saying
from signald.sdk.front.serving import run_worker
from signald.sdk.front.stage import Env, chosen, stage
from signald.sdk.front.worker import Worker
from signald.sdk.front.worker_session import WorkerSession
from signald.worker.__main__ import main
from signald.worker.simulated import SimulatedNode
from tests.sdk.peer import Accepted, ScriptedPeer
from tests.sdk.test_trio_worker import echo, play

both = pytest.mark.parametrize("backend", ["trio", "asyncio"])

# --- the health port --------------------------------------------------------------------------------------------------


async def request(port: int, text: bytes) -> tuple[int, Any]:
    """Ask the health port; return status and body."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(text)
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            head, _, body = answer.partition(b"\r\n\r\n")
            return int(head.split()[1]), json.loads(body) if body else None


@both
def test_the_health_port_tells_how_the_worker_is(backend: str) -> None:
    """Ready while it serves; not before, and not while it leaves, when it still lives."""
    seen: list[Any] = []

    async def script() -> None:
        listening = await health.listen("127.0.0.1:0")
        state: dict[str, object] = {"ready": False, "sessions": 3}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(health.serve, listening, lambda: state)
            port = health.port_of(listening)
            seen.append(await request(port, b"GET /readyz HTTP/1.1\r\n\r\n"))
            state["ready"] = True
            paths = (b"/readyz", b"/livez", b"/worker?x=1", b"/nothing")
            seen.extend([await request(port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n") for path in paths])
            seen.append(await request(port, b"HEAD /readyz HTTP/1.1\r\n\r\n"))
            seen.append(await request(port, b"POST /readyz HTTP/1.1\r\n\r\n"))
            tasks.cancel_scope.cancel()

    anyio.run(script, backend=backend)
    assert [status for status, _ in seen] == [503, 200, 200, 200, 404, 200, 405]
    assert seen[3][1] == {"ready": True, "sessions": 3}
    assert seen[5][1] is None


@pytest.mark.parametrize(
    "text", [b"", b"GET\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"\x00" * 9000, b"GET /livez HTTP/1.1\r\n"]
)
def test_what_is_no_request_is_refused(text: bytes) -> None:
    """Whatever its bytes are."""
    assert health.response(text, dict).startswith(b"HTTP/1.1 400 ")


@both
def test_many_idle_connections_do_not_stop_the_probe(backend: str) -> None:
    """Beyond the bound a connection is closed; those that say nothing are closed after five seconds."""

    async def script() -> None:
        listening = await health.listen("127.0.0.1:0")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(health.serve, listening, lambda: dict[str, object](ready=True))
            port = health.port_of(listening)
            idle = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(health.CONNECTIONS_MAX + 5)]
            closed = 0
            for one in idle:
                with anyio.move_on_after(0.02):
                    try:
                        await one.receive()
                    except anyio.EndOfStream:
                        closed += 1
            assert closed == 5
            for one in idle:
                await one.aclose()
            await anyio.sleep(0.05)
            assert (await request(port, b"GET /livez HTTP/1.1\r\n\r\n"))[0] == 200
            tasks.cancel_scope.cancel()

    anyio.run(script, backend=backend)


@pytest.mark.parametrize("text", ["8081", "localhost", ":8081", "localhost:", "localhost:99999", "localhost:-1"])
def test_an_address_that_is_none(text: str) -> None:
    """It is refused at the start."""
    with pytest.raises(ValueError, match="host:port"):
        health.address(text)


def test_addresses() -> None:
    """Names, IPv4 and IPv6."""
    assert health.address("0.0.0.0:8081") == ("0.0.0.0", 8081)
    assert health.address("[::1]:0") == ("::1", 0)


# --- load -------------------------------------------------------------------------------------------------------------


def test_a_loaded_worker_takes_no_more_sessions_until_it_is_less_so() -> None:
    """At the bound its capacity is what it holds; it has room again at nine tenths of the bound. Small changes are not said."""
    loads = [0.2, 0.21, 0.7, 0.64, 0.62, "broken", -1.0]
    said: list[tuple[int, float]] = []

    def load() -> float:
        value: Any = loads.pop(0) if loads else 0.62
        return float(value)

    async def script(peer: ScriptedPeer, worker: Worker) -> None:
        await peer.first.assign("s_1")

        async def read(connection: Accepted) -> None:
            while True:
                state = await connection.until("app_state")
                said.append((state["capacity"], state["load"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, peer.first)
            with trio.move_on_after(18):
                await keep_saying(worker, load, 0.7)
            nursery.cancel_scope.cancel()

    play(script)
    assert said == [(10, 0.2), (1, 0.7), (1, 0.64), (10, 0.62)]


# --- stages -----------------------------------------------------------------------------------------------------------


def test_options_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Production unless the environment says otherwise; another word is an error."""
    options: list[int | Env[int]] = [Env(dev=1, prod=2), 7]
    monkeypatch.delenv("SIGNALD_WORKER_STAGE", raising=False)
    assert (stage(), [chosen(one) for one in options]) == ("prod", [2, 7])
    monkeypatch.setenv("SIGNALD_WORKER_STAGE", "dev")
    assert (stage(), [chosen(one) for one in options]) == ("dev", [1, 7])
    monkeypatch.setenv("SIGNALD_WORKER_STAGE", "test")
    with pytest.raises(ValueError, match="`dev` or `prod`"):
        chosen(options[0])


# --- setup ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("plain", [True, False])
def test_setup_is_over_before_the_worker_is_registered(backend: str, plain: bool) -> None:
    """Its value is there in each session; a plain function runs in a thread of its own."""
    order: list[str] = []

    def load() -> str:
        order.append("prepared")
        return "model"

    async def load_async() -> str:
        return load()

    async def handler(session: WorkerSession) -> None:
        order.append(session.prepared)

    class Node(SimulatedNode):
        def heard(self, said: dict[str, Any], now: float) -> list[dict[str, Any]]:
            if said["type"] == "app_ready":
                order.append("registered")
            return super().heard(said, now)

    async def script() -> None:
        node = Node(1, 0, None)
        with anyio.move_on_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve, node)
                await node.wait()
                tasks.cancel_scope.cancel()

    async def serve(node: SimulatedNode) -> None:
        setup = load if plain else load_async
        await run_worker("ws://n", handler, instance_id="w", setup=setup, dial=node.dial, signals=False)

    anyio.run(script, backend=backend)
    assert order == ["prepared", "registered", "model"]


@both
def test_an_error_of_setup_comes_out_as_it_is(backend: str) -> None:
    """The program ends with it; the worker is never registered."""

    def setup() -> None:
        raise KeyError("no weights")

    async def script() -> None:
        await run_worker("ws://n", echo, instance_id="w", setup=setup, dial=SimulatedNode(1, 1, None).dial)

    with pytest.raises(KeyError, match="no weights"):
        anyio.run(script, backend=backend)


# --- the watchdog -----------------------------------------------------------------------------------------------------


@both
def test_a_blocked_loop_is_named_once_with_the_line(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that runs is not named."""

    def hold_everything_up() -> None:
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            time.sleep(0.01)

    async def script() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watchdog.watch, 0.2)
            await anyio.sleep(0.1)
            assert caplog.records == []
            hold_everything_up()
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()

    with caplog.at_level(logging.WARNING, "signald.sdk"):
        anyio.run(script, backend=backend)
    assert len(caplog.records) == 1
    assert "hold_everything_up" in caplog.records[0].getMessage()


# --- the command ------------------------------------------------------------------------------------------------------

BOT = """
from signald.sdk.{front} import WorkerSession

def model():
    return ["as ", "you ", "say"]

async def answer(session: WorkerSession) -> None:
    async for message in session:
        async with session.stream() as out:
            for word in session.prepared or ["yes"]:
                await out.write(word)

async def fail(session: WorkerSession) -> None:
    async for message in session:
        raise RuntimeError("no")
"""


@pytest.fixture
def bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes the module of a handler; returns its name."""

    def write(front: str) -> str:
        name = f"bot_{front}_{os.getpid()}"
        (tmp_path / f"{name}.py").write_text(BOT.format(front=front))
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("SIGNALD_WORKER_STAGE", raising=False)
    return write


@both
def test_simulate(bot: Callable[[str], str], capsys: pytest.CaptureFixture[str], backend: str) -> None:
    """Sessions in memory ask the handler; the counts are JSON, and the status is 0."""
    name = bot(backend)
    words = ["simulate", f"{name}:answer", "--sessions", "20", "--messages", "3", "--setup", f"{name}:model"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sessions"], told["messages"], told["given_back"], told["not_over"]) == (20, 60, 0, 0)
    assert told["answers"] >= 120  # two or more pieces of each answer, by how they are rolled up
    assert told["open_streams"] == 0


def test_simulate_of_a_handler_that_fails(bot: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    """Its sessions are given back, and the status is 1."""
    assert main(["simulate", f"{bot('trio')}:fail", "--sessions", "2"]) == 1
    assert json.loads(capsys.readouterr().out)["given_back"] == 2


@pytest.mark.parametrize("name", ["nothing", "no_such_module:x", "json:no_such_name", ":x"])
def test_a_handler_that_is_not_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is that of a wrong use, with one line."""
    assert main(["simulate", name]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.real
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_before_there_is_a_node(bot: Callable[[str], str], number: signal.Signals, code: int) -> None:
    """The worker holds nothing: it ends at once, without a traceback."""
    command = [sys.executable, "-m", "signald.worker", "start", f"{bot('asyncio')}:answer", "--url", "ws://127.0.0.1:1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), "."])}
    with subprocess.Popen([*command, "--health", "127.0.0.1:0"], stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        said = b""
        while b"127.0.0.1:1" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(20) == code
    assert b"Traceback" not in said + rest
