"""A stop that comes before the node serves: it is heeded at once, and not lost."""

import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from tests.real.harness import HOST, exit_of, logged, until
from tests.systemd.manager import open_manager

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals a process catches"),
]


def catches(process: trio.Process, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def has_loaded(process: trio.Process, library: str) -> bool:
    """Whether a process has mapped an extension module whose name holds `library`."""
    return library in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_before_the_imports_are_done_is_heeded(tmp_path: Path, number: signal.Signals) -> None:
    """The handler is there before anything slow is imported; the process ends with 0 and has begun nothing.

    As PID 1 of a container it would otherwise not notice the signal, and be killed when the grace is over.
    """
    async with open_manager(tmp_path) as manager:
        node = await manager.start(module="signald.entry")
        # That of SIGHUP is the last of them; Python itself has one for SIGINT.
        await until(lambda: catches(node.process, signal.SIGHUP), 10, "a handler")
        assert not has_loaded(node.process, "msgspec"), "the imports have not begun"
        node.send_signal(number)
        assert await exit_of(node) == 0
        assert not manager.said, "it never served"
        assert not (tmp_path / "store.db").exists()
        assert [entry["event"] for entry in logged(node)] == ["signal", "stopped"]


async def test_a_stop_while_the_store_is_waited_for_is_heeded(tmp_path: Path) -> None:
    """A store that takes the connection and says nothing holds up a stop for one call at most."""
    with socket.create_server((HOST, 0)) as silent:
        async with open_manager(tmp_path) as manager:
            node: Node = await manager.start(
                store={
                    "url": f"redis://{HOST}:{silent.getsockname()[1]}",
                    "connect_timeout_s": 5.0,
                    "command_timeout_s": 5.0,
                }
            )
            await until(lambda: catches(node.process, signal.SIGTERM) and has_loaded(node.process, "msgspec"), 20)
            await trio.sleep(1)
            node.send_signal(signal.SIGTERM)
            # The call under way may end first, and with it the start: 69.
            assert await exit_of(node, 25) in (0, 69)
            assert not manager.said


async def test_a_hangup_before_the_node_serves_reloads_it_later(tmp_path: Path) -> None:
    """SIGHUP during the imports does not end a node whose configuration can be read again."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start(module="signald.entry")
        await until(lambda: catches(node.process, signal.SIGHUP), 10, "a handler")
        node.send_signal(signal.SIGHUP)
        await manager.heard("READY")
        await until(lambda: logged(node, "config_reloaded"), 10)
