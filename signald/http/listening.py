"""Opening the HTTP half's listeners: TCP for probes and scrapes, a Unix socket for the operators of this host."""

import errno
import os
import socket
import stat
from pathlib import Path

import trio

from signald.config import parse_address
from signald.errors import ResourceRefused

# Probes, scrapes and operators: far fewer than parties.
BACKLOG = 1024


async def open_tcp(bind: str) -> list[trio.SocketListener]:
    """Listen on `bind` (host:port). Raises ValueError when it is no address, OSError when it cannot be bound."""
    host, port = parse_address(bind)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise cannot_listen("listen.http", bind, error) from None


def cannot_listen(key: str, address: str, error: OSError) -> ResourceRefused:
    """Return the error of an address that cannot be bound: the key, the address, and what to do."""
    advice = {
        errno.EADDRINUSE: "another process listens there: stop it, or choose another port",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket passed by systemd",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }
    return ResourceRefused(
        key, f"cannot listen on {address}", error, advice.get(error.errno or 0, "choose another address")
    )


def open_unix(path: Path) -> trio.SocketListener:
    """Listen on a Unix socket that only this user can open; one that a dead process left there is replaced.

    A missing directory is made. Raises OSError when the directory belongs to another user, or when another process listens
    there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid not in (0, os.getuid()):
        raise OSError(errno.EPERM, "the directory belongs to another user", str(path.parent))
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode) or _answers(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
