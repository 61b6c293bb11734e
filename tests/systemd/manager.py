"""What systemd does for a service, done by a test: a notify socket, listening sockets that outlive a process, a main pid."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import trio

import signald
from signald.demo.cluster import Node, kill_group, render_toml
from tests.real.harness import DRAIN, HOST, START_S, Settings, until

EXEC = """
import fcntl, os, sys
passed, arguments = sys.argv[1], sys.argv[2:]
first = 3
for descriptor in [fcntl.fcntl(int(one), fcntl.F_DUPFD_CLOEXEC, 100) for one in passed.split(",") if one]:
    os.dup2(descriptor, first)
    first += 1
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(arguments[0], arguments)
"""
"""Becomes the service, with the passed sockets from descriptor 3 on and its own pid in LISTEN_PID."""

Message = dict[str, str]


class Manager:
    """Starts one service, again and again, and hears what it says."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        self.directory = directory
        self.said: list[Message] = []
        """Every datagram, line by line."""
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._name = f"@signald-test-{os.getpid()}-{id(self)}" if abstract else str(directory / "notify")
        self._sockets: dict[str, socket.socket] = {}
        self._started = 0
        self.processes: list[trio.Process] = []

    async def listen(self) -> None:
        """Hear what the service says, until cancelled."""
        await self._socket.bind("\0" + self._name[1:] if self._name.startswith("@") else self._name)
        while True:
            data = await self._socket.recv(65536)
            lines = data.decode().split("\n")
            self.said.append(dict(line.split("=", 1) for line in lines))

    def close(self) -> None:
        """Let go of every socket."""
        self._socket.close()
        for held in self._sockets.values():
            held.close()

    def pass_socket(self, name: str, host: str = HOST) -> int:
        """Listen as a socket unit does, for every process that is started from now on; returns the port."""
        listening = socket.create_server((host, 0), backlog=64)
        self._sockets[name] = listening
        return int(listening.getsockname()[1])

    def messages(self, key: str, value: str | None = None) -> list[Message]:
        """What was said with `key` in it."""
        return [message for message in self.said if key in message and value in (None, message[key])]

    async def heard(self, key: str, value: str | None = None, *, times: int = 1, within_s: float = START_S) -> None:
        """Wait until something was said."""
        await until(lambda: len(self.messages(key, value)) >= times, within_s, f"{key}={value} in {self.said[-5:]}")

    async def start(
        self,
        watchdog_s: float = 0.0,
        env: dict[str, str] | None = None,
        arguments: Sequence[str] | None = None,
        module: str = "signald.cli",
        **sections: Any,
    ) -> Node:
        """Start the service and wait for nothing; `sections` are of its configuration."""
        self._started += 1
        name = f"node-{self._started}"
        config: Settings = {
            "listen": {"websocket": f"{HOST}:0", "http": f"{HOST}:0"},
            "store": {"url": f"sqlite:{self.directory / 'store.db'}"},
            "node": {"id": name, "release": "test"},
            "drain": DRAIN,
            "admin": {"socket": str(self.directory / f"{name}.sock")},
        }
        for section, keys in sections.items():
            config[section] = {**config.get(section, {}), **keys}
        file, log = self.directory / f"{name}.toml", self.directory / f"{name}.log"
        file.write_text(render_toml(config))
        command = [sys.executable, "-m", module, *(arguments or ["serve", "--config", str(file)])]
        passed = [held.fileno() for held in self._sockets.values()]
        with log.open("wb") as sink:
            process: trio.Process = await trio.lowlevel.open_process(
                [sys.executable, "-c", EXEC, ",".join(map(str, passed)), *command],
                env={**self._environment(watchdog_s), **(env or {})},
                pass_fds=passed,
                start_new_session=True,
                stdout=sink,
                stderr=sink,
            )
        self.processes.append(process)
        port = self._sockets["ws"].getsockname()[1] if "ws" in self._sockets else 0
        return Node(name, process, (HOST, port), (HOST, 0), log)

    def _environment(self, watchdog_s: float) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALD_")}
        env |= {"PYTHONPATH": str(Path(signald.__file__).parent.parent), "NOTIFY_SOCKET": self._name}
        if self._sockets:
            env |= {"LISTEN_FDS": str(len(self._sockets)), "LISTEN_FDNAMES": ":".join(self._sockets)}
        if watchdog_s:
            env |= {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
        return env


@asynccontextmanager
async def open_manager(directory: Path, *, abstract: bool = False) -> AsyncIterator[Manager]:
    """A manager for the time of the block; what it has started does not outlive it."""
    manager = Manager(directory, abstract=abstract)
    with closing(manager):
        async with _listening(manager):
            yield manager


@asynccontextmanager
async def _listening(manager: Manager) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(manager.listen)
            yield
        finally:
            for process in manager.processes:
                process.send_signal(signal.SIGCONT)
                kill_group(process)
            with trio.move_on_after(10, shield=True):
                for process in manager.processes:
                    await process.wait()
            nursery.cancel_scope.cancel(reason="the test is over")
