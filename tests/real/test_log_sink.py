"""A node whose log cannot be written any more serves on, says how much is missing, and ends with its ordinary status."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from tests.real.harness import HOST, Address, Nodes, exit_of, open_nodes, open_talk, probe, term, until

pytestmark = pytest.mark.real

COMINGS = 12
"""Connections that come and go; at debug each is several lines."""


class Sink:
    """Standard error of a node: it works until `harm`."""

    kind = ""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.reader = -1
        if kind == "full":
            self.writer = os.open("/dev/full", os.O_WRONLY)
        elif kind == "terminal":
            self.reader, self.writer = pty.openpty()
        elif kind == "file":
            self.writer = os.open(directory / "sink", os.O_CREAT | os.O_WRONLY)
        else:
            self.reader, self.writer = os.pipe()
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)  # filled by some lines
            if kind == "nonblocking":
                os.set_blocking(self.writer, False)

    def harm(self) -> None:
        """Let it go wrong."""
        if self.kind == "gone":
            os.close(self.reader)
            self.reader = -1
        elif self.kind == "terminal":
            termios.tcflow(self.writer, termios.TCOOFF)  # as Ctrl-S

    def close(self) -> None:
        """Let go of it."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    """One of a kind."""
    made = Sink(request.param, tmp_path)
    yield made
    made.close()


async def metric(node: Node, name: str) -> float:
    """One number of /metrics."""
    found = re.search(rf"^{name} (\S+)$", (await probe(node, "/metrics"))[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


async def serves(nodes: Nodes, node: Node, address: Address) -> None:
    """Parties talk, newcomers are served, and the probes answer."""
    async with open_talk() as talk:
        await talk.worker("worker", address.url)
        await talk.client("client", address.url)
        talk.begin(0.05)
        for number in range(COMINGS):
            await talk.client(f"newcomer {number}", address.url)
        await talk.goes_on(5)
        assert await probe(node, "/livez") == (200, "ok")
        assert await probe(node) == (200, "ready")
        await talk.settle()


@pytest.mark.parametrize("sink", ["gone", "full", "unread", "nonblocking", "terminal"], indirect=True)
async def test_a_node_whose_log_cannot_be_written(tmp_path: Path, sink: Sink) -> None:
    """Whatever becomes of standard error: the node serves on, counts what is lost, and a signal ends it with 0."""
    address = Address()
    async with open_nodes(tmp_path, "memory:", {"log": {"level": "debug"}}) as nodes:
        nodes.sink = sink.writer
        node = await nodes.start("node", address)
        sink.harm()
        await serves(nodes, node, address)
        if sink.kind in ("gone", "full"):
            assert await metric(node, "signald_log_lines_dropped_total") > COMINGS
        term(node)
        assert await exit_of(node) == 0


@pytest.mark.parametrize("sink", ["gone", "full", "unread"], indirect=True)
async def test_a_node_that_cannot_serve_says_so_by_its_status(tmp_path: Path, sink: Sink) -> None:
    """The status of a failure is not replaced by that of a log that cannot be written: a supervisor acts on it."""
    async with open_nodes(tmp_path, f"redis://{HOST}:1") as nodes:
        nodes.sink = sink.writer
        sink.harm()
        assert await exit_of(await nodes.start("node", ready=False)) == os.EX_UNAVAILABLE


async def test_the_last_lines_are_written(tmp_path: Path) -> None:
    """A reader that is there gets all of the log, up to `stopped`."""
    async with open_nodes(tmp_path, "memory:") as nodes:
        node = await nodes.start("node")
        term(node)
        assert await exit_of(node) == 0
        assert node.log_tail().splitlines()[-1].startswith('{"event": "stopped"')


def serve(close: str, config: Path) -> subprocess.Popen[bytes]:
    """Start a node by a shell that closes some of its standard files."""
    command = f'exec "$0" -m signald.cli serve --config "$1" {close}'
    return subprocess.Popen(["/bin/sh", "-c", command, sys.executable, str(config)], cwd=config.parent)


@pytest.mark.parametrize("close", ["2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
async def test_closed_standard_files(tmp_path: Path, close: str) -> None:
    """No socket and no database gets the number of standard error: what a library writes there must not go into them."""
    address = Address()
    config = tmp_path / "node.toml"
    config.write_text(
        f'[listen]\nwebsocket = "{HOST}:{address.websocket}"\nhttp = "{HOST}:{address.http}"\n'
        f'[store]\nurl = "sqlite:{tmp_path}/signald.db"\n[admin]\nsocket = "off"\n'
    )
    process = serve(close, config)
    try:

        async def ready() -> bool:
            node = Node("node", process, (HOST, address.websocket), (HOST, address.http), config)  # type: ignore[arg-type]
            return (await probe(node))[0] == 200

        await until(ready, 30, "the node is ready")
        closed = {"0": "0<&-", "1": "1>&-", "2": "2>&-"}
        for number, word in closed.items():
            if word in close:
                assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"  # noqa: PTH115 - in async code
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(60):
            assert await trio.to_thread.run_sync(process.wait) == 0
    finally:
        process.kill()
        process.wait()
