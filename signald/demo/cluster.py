"""The demo's child processes: nodes (`signald serve`, as in production) and the switches in front of them.

Invariant: no child outlives the demo. Each runs in a process group of its own, which `Cluster.end` kills whatever has
happened; and each switch, should the demo itself be killed, notices the end of its stdin and kills the nodes.
"""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import trio
from attrs import define, field

import signald

READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.03
REAP_TIMEOUT_S = 5.0
SWITCH_TIMEOUT_S = 10.0
LOG_TAIL_BYTES = 2000


class DemoFailed(Exception):
    """The demo could not be carried out; the text says which part failed and what it said last."""


@define(eq=False)
class Node:
    """One running `signald serve`."""

    name: str
    process: trio.Process
    websocket: tuple[str, int]
    http: tuple[str, int]
    log: Path

    def log_tail(self) -> str:
        """Return the last lines the node wrote."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the node itself (not its group: a supervisor signals the main process)."""
        self.process.send_signal(number)

    async def wait(self, timeout_s: float) -> int:
        """Wait for the node to end and return its exit code; after `timeout_s` it is killed."""
        with trio.move_on_after(timeout_s):
            return await self.process.wait()
        kill_group(self.process)
        return await self.process.wait()


@define(eq=False)
class Entrance:
    """A switch: where parties connect."""

    name: str
    process: trio.Process
    address: tuple[str, int]
    _lines: bytearray = field(factory=bytearray)

    @property
    def url(self) -> str:
        """Where parties connect; the SDK adds the path of their role."""
        return f"ws://{self.address[0]}:{self.address[1]}"

    async def point_to(self, address: tuple[str, int]) -> None:
        """Send new connections to `address`; established ones stay where they are."""
        await self.command(f"target {address[0]} {address[1]}")

    async def command(self, line: str) -> None:
        """Have the switch obey one line of its protocol."""
        assert self.process.stdin is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.process.stdin.send_all(f"{line}\n".encode())
        if await self.read_line() != "ok":
            raise DemoFailed(f"the {self.name} switch did not obey: {line}")

    async def read_line(self) -> str:
        """Return the switch's next line."""
        assert self.process.stdout is not None
        with trio.move_on_after(SWITCH_TIMEOUT_S):
            while b"\n" not in self._lines:
                data = await self.process.stdout.receive_some()
                if not data:
                    break
                self._lines += data
        line, newline, rest = bytes(self._lines).partition(b"\n")
        if not newline:
            raise DemoFailed(f"the {self.name} switch does not answer")
        self._lines[:] = rest
        return line.decode()


class Cluster:
    """Starts nodes and switches, and ends them all."""

    def __init__(self, directory: Path, store_url: str, settings: dict[str, dict[str, object]]) -> None:
        self.directory = directory
        self.run_name = secrets.token_hex(3)
        """Marks this run's nodes, workers and clients, should several demos share a store."""
        self.code: Path | None = None
        """Where the code of the nodes to be started lies; None: the code that runs here."""
        self.further: dict[str, dict[str, object]] = {}
        """Further sections of the nodes to be started."""
        self._store_url = store_url
        self._settings = settings
        self._entrances: list[Entrance] = []
        self._processes: list[trio.Process] = []
        self._nodes_started = 0

    # --- switches ------------------------------------------------------------------------------------------------

    async def open_entrance(self, name: str) -> Entrance:
        """Start a switch."""
        process = await self._open(
            [sys.executable, "-m", "signald.demo.switch", "127.0.0.1:0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
        )
        entrance = Entrance(name, process, ("", 0))
        match (await entrance.read_line()).split():
            case ["listening", host, port]:
                entrance.address = (host, int(port))
            case _:
                raise DemoFailed(f"the {name} switch did not start")
        self._entrances.append(entrance)
        return entrance

    # --- nodes ---------------------------------------------------------------------------------------------------

    async def start_node(self) -> Node:
        """Start a node and return it when it is ready for parties.

        Raises:
            DemoFailed: it ended, or was not ready in time.
        """
        self._nodes_started += 1
        name = f"demo-{self.run_name}-{self._nodes_started}"
        websocket, http = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        config = self.directory / f"{name}.toml"
        own: dict[str, dict[str, object]] = {
            "listen": {"websocket": f"127.0.0.1:{websocket[1]}", "http": f"127.0.0.1:{http[1]}"},
            "store": {"url": self._store_url},
            "node": {"id": name, "release": f"demo-{self._nodes_started}"},
        }
        # A section of the settings adds to one that the node has of its own, such as `listen`.
        settings = self._settings | self.further
        sections = own.keys() | settings.keys()
        config.write_text(
            render_toml(
                {section: {**own.get(section, {}), **settings.get(section, {})} for section in sorted(sections)}
            )
        )
        log = self.directory / f"{name}.log"
        with log.open("wb") as sink:
            process = await self._open(
                [sys.executable, "-m", "signald.cli", "serve", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        node = Node(name, process, websocket, http, log)
        for entrance in self._entrances:
            await entrance.command(f"watch {process.pid}")
        await self._until_ready(node)
        let_go(websocket[1], http[1])
        return node

    async def _until_ready(self, node: Node) -> None:
        with trio.move_on_after(READY_TIMEOUT_S):
            while not await is_ready(node.http):
                if node.process.poll() is not None:
                    raise DemoFailed(
                        f"node {node.name} ended with {node.process.returncode} before it was ready:\n{node.log_tail()}"
                    )
                await trio.sleep(READY_POLL_S)
            return
        raise DemoFailed(f"node {node.name} was not ready within {READY_TIMEOUT_S:.0f} s:\n{node.log_tail()}")

    async def forget(self, node: Node) -> None:
        """`node` has ended: its process group must not be signalled any more, the number may be given out again."""
        for entrance in self._entrances:
            await entrance.command(f"forget {node.process.pid}")

    # --- programs ------------------------------------------------------------------------------------------------

    async def start_program(self, module: str, *arguments: str) -> trio.Process:
        """Start a module of signald as a program of its own; what it says goes to `MODULE.log` in the directory."""
        with (self.directory / f"{module}.log").open("wb") as sink:
            return await self._open(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )

    # --- all -----------------------------------------------------------------------------------------------------

    async def _open(
        self, command: list[str], *, stdin: int, stdout: int | IO[bytes], stderr: IO[bytes] | None
    ) -> trio.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALD_")}
        # From a checkout as from an installation: the children run the very code that is running here, unless told otherwise.
        paths = [str(self.code or Path(signald.__file__).parent.parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environment["PYTHONSAFEPATH"] = (
            "1"  # else what lies in the working directory comes before that: a checkout, as a rule
        )
        process: trio.Process = await trio.lowlevel.open_process(
            command, env=environment, start_new_session=True, stdin=stdin, stdout=stdout, stderr=stderr
        )
        self._processes.append(process)
        return process

    async def end(self) -> None:
        """Kill whatever still runs, and wait for it: within `REAP_TIMEOUT_S`, also when cancelled."""
        for process in self._processes:
            kill_group(process)
        with trio.move_on_after(REAP_TIMEOUT_S, shield=True):
            for process in self._processes:
                await process.wait()
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with trio.CancelScope(deadline=trio.current_time(), shield=True):
                        await stream.aclose()


@asynccontextmanager
async def open_cluster(
    directory: Path, store_url: str, settings: dict[str, dict[str, object]]
) -> AsyncIterator[Cluster]:
    """Give a cluster without any node yet; at the end none of its children is left."""
    cluster = Cluster(directory, store_url, settings)
    try:
        yield cluster
    finally:
        await cluster.end()


def kill_group(process: trio.Process) -> None:
    """SIGKILL `process` and whatever it started, if it still runs."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def is_ready(address: tuple[str, int]) -> bool:
    """Return whether the node whose HTTP half listens at `address` answers /readyz with 200."""
    try:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(f"GET /readyz HTTP/1.1\r\nHost: {address[0]}\r\nConnection: close\r\n\r\n".encode())
            status = b""
            async with aclosing(aiter(stream)) as chunks:
                async for chunk in chunks:
                    status += chunk
                    if b"\r\n" in status:
                        break
    except (OSError, trio.BrokenResourceError):
        return False
    return status.split(b" ", 2)[1:2] == [b"200"]


held: dict[int, int] = {}
"""Ports that were given and that no process has bound yet, and the descriptor that keeps each."""


def free_port() -> int:
    """Return a port that is free and is given to no other caller until `let_go`; not one of those for outgoing connections.

    Any connection of the parties could take one of those before the node starts. Others look for ports at the same time: a
    socket stays bound to this one and does not listen. It was bound alone, so that only one of two seekers is given the port.
    From then on it shares the port with a server that sets SO_REUSEADDR, as all do, and that may start again as often as it likes.
    """
    below = 32768
    with suppress(OSError, ValueError):
        below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, max(below, 10_100))  # noqa: S311 (no secret)
        with socket.socket() as holder:
            try:
                holder.bind(("127.0.0.1", port))
            except OSError:
                continue
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held[port] = holder.detach()
            return port
    raise DemoFailed("no free port was found")


def let_go(*ports: int) -> None:
    """Hold `ports` no longer: their servers listen, or have ended for good."""
    for port in ports:
        os.close(held.pop(port))


def render_toml(sections: dict[str, dict[str, object]]) -> str:
    """Return `sections` as TOML; a JSON string, number or boolean is a TOML one too."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"
