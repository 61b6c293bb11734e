"""The protocols between a service and systemd: sd_notify(3) and sd_listen_fds(3), without libsystemd.

systemd promises that both protocols are stable and may be implemented by others. The variables are read once and removed from
the environment, so that no child process acts as the service.

    NOTIFY_SOCKET ─▸ Notifier      datagrams of KEY=VALUE lines
    LISTEN_FDS    ─▸ Inherited     listening sockets, by FileDescriptorName=
"""

import os
import socket
import stat
import time
from collections.abc import MutableMapping

import attrs

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""

SOCKET_NAMES = ("ws", "http")
"""The names of the sockets of a socket unit: the listener of the parties, and that of probes and operators."""

STATUS_CHARS_MAX = 200


class SocketRefused(Exception):
    """An inherited socket cannot be used; the message says how to correct the socket unit."""


class Notifier:
    """Reports the state of the service to systemd. Sending never blocks: a report without room is repeated later."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        """`address` is a path, or an abstract name behind `@`."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.watchdog_s = watchdog_s
        """The longest time between two signs of life that systemd accepts; None: it wants none."""

    def close(self) -> None:
        """Send no further report."""
        self._socket.close()

    def ready(self, status: str) -> bool:
        """Report that the node serves: at the start, and after each reload."""
        return self._send("READY=1", _status(status))

    def reloading(self) -> bool:
        """Report a reload; `ready` must follow. Both lines are one datagram, because systemd requires it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, status: str) -> bool:
        """Send one line for `systemctl status`."""
        return self._send(_status(status))

    def alive(self) -> bool:
        """Send a sign of life, for WatchdogSec=."""
        return self._send("WATCHDOG=1")

    def extend(self, seconds: float, status: str) -> bool:
        """Ask for more time to stop, counted from now; ask again before it is over."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", _status(status))

    def stopping(self, status: str) -> bool:
        """Report an end that cannot be called off; systemd takes it as final since version 259."""
        return self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> bool:
        """Send one datagram; False when it was not taken."""
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _status(text: str) -> str:
    """Return the status as one line, because a second line would be another field of the protocol."""
    return "STATUS=" + " ".join(text.split())[:STATUS_CHARS_MAX]


def open_notifier(env: MutableMapping[str, str]) -> Notifier | None:
    """Return the notifier; None without a supervisor that listens. The variables are removed from `env`."""
    address = env.pop("NOTIFY_SOCKET", "")
    usec, pid = env.pop("WATCHDOG_USEC", ""), env.pop("WATCHDOG_PID", "")
    if len(address) < 2 or address[0] not in "/@":
        return None
    asked = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
    return Notifier(address, int(usec) / 1e6 if asked else None)


@attrs.frozen
class Inherited:
    """Listening sockets that systemd keeps open beyond this process: connections between two processes wait in them."""

    websocket: tuple[socket.socket, ...] = ()
    http: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Close them here; systemd keeps them open."""
        for listening in (*self.websocket, *self.http):
            listening.close()


def inherited_sockets(env: MutableMapping[str, str]) -> Inherited:
    """Take over the sockets that were passed to this process. The variables are removed from `env`.

    Raises SocketRefused when one has no name that signald knows, or does not listen for streams.
    """
    count, pid, names = (env.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"))
    env.pop("LISTEN_PIDFDID", None)
    if not count.isdecimal() or pid != str(os.getpid()):
        return Inherited()
    named = names.split(":") if names else []
    named += [""] * (int(count) - len(named))
    for name in named:
        if name not in SOCKET_NAMES:
            known = " or ".join(f"FileDescriptorName={one}" for one in SOCKET_NAMES)
            raise SocketRefused(f"a socket called {name!r} was passed: the socket unit must say {known}")
    passed = [(name, _adopt(FIRST_DESCRIPTOR + index, name)) for index, name in enumerate(named)]
    inherited = Inherited(*(tuple(one for name, one in passed if name == kind) for kind in SOCKET_NAMES))
    try:
        for name, one in passed:
            _check(one, name)
    except SocketRefused:
        inherited.close()
        raise
    return inherited


def _adopt(descriptor: int, name: str) -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise SocketRefused(f"{name!r} is no socket: use ListenStream=")
    passed = socket.socket(fileno=descriptor)
    passed.set_inheritable(False)
    passed.setblocking(False)
    return passed


def _check(passed: socket.socket, name: str) -> None:
    if passed.type != socket.SOCK_STREAM or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SocketRefused(f"{name!r} does not listen: use ListenStream= and Accept=no")
