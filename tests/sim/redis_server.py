"""A redis-server of this process's own, over a socket file, and a connection that blocks until it has its answers."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import hiredis

from signald.store.redis_connection import ErrorReply, Reply, Word, pack

STARTS_WITHIN_S = 60.0
"""A server needs a tenth of a second; a machine whose cores are taken, much longer."""
ANSWERS_WITHIN_S = 300.0
"""Longer than any honest answer takes anywhere; a script that does not end is a failure, and not a wait."""
_NOTHING_YET = object()

_GUARD = 'redis-server "$@" >/dev/null & read -r _; kill "$!"'
"""A server ends with the process that has started it, however that ends: its standard input does."""


class RedisServer:
    """A server without persistence, for as long as the block lasts."""

    def __enter__(self) -> Self:
        if shutil.which("redis-server") is None:
            raise RuntimeError("redis-server is not installed: apt-get install redis-server, or brew install redis")
        self._home = tempfile.TemporaryDirectory(prefix="sim-redis-")
        self.path = str(Path(self._home.name) / "s")
        options = [
            "--port",
            "0",
            "--unixsocket",
            self.path,
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            self._home.name,
        ]
        self._guard = subprocess.Popen(["sh", "-c", _GUARD, "redis", *options], stdin=subprocess.PIPE)
        until = time.monotonic() + STARTS_WITHIN_S
        while not Path(self.path).exists():
            if time.monotonic() > until:
                self.__exit__(None, None, None)
                raise RuntimeError(f"redis-server did not start within {STARTS_WITHIN_S:.0f} s")
            time.sleep(0.01)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        self._home.cleanup()

    def connect(self) -> "Blocking":
        """Open one more connection."""
        return Blocking(self.path)


class Blocking:
    """A connection on which a question stands still until it is answered, and the caller's event loop with it."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWERS_WITHIN_S)
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self._socket.connect(path)
                break
            except OSError:  # the file is there a moment before the server listens
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING_YET)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Write packed commands."""
        self._socket.sendall(data)

    def read(self) -> Reply:
        """Return the next reply; an error is a value."""
        while (reply := self._reader.gets()) is _NOTHING_YET:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("redis-server has closed the connection")
            self._reader.feed(data)
        return reply

    def ask(self, *words: Word) -> Reply:
        """Send one command and return its answer. Raises ErrorReply."""
        self.send(pack(*words))
        reply = self.read()
        if isinstance(reply, ErrorReply):
            raise reply
        return reply
