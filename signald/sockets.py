"""The listening sockets of a process: bound here as the configuration says, or inherited from systemd."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from signald.config import Config, ConfigError, Problem, has_key, is_loopback
from signald.config.paths import admin_socket, socket_directory
from signald.errors import ResourceRefused
from signald.http.listening import cannot_listen, open_tcp, open_unix
from signald.net.listener import open_listeners
from signald.systemd import Inherited


async def websocket_listeners(config: Config, inherited: Inherited) -> list[socket.socket]:
    """Return the inherited sockets for parties, or bind the addresses of `listen.websocket`.

    Raises OSError that names the key, with no socket left open.
    """
    listening = list(inherited.websocket)
    if listening:
        return listening
    try:
        for address in config.listen.websocket:
            listening += await open_listeners(address, backlog=config.listen.backlog)
    except OSError as error:
        for opened in listening:
            opened.close()
        raise cannot_listen("listen.websocket", address, error) from None
    return listening


async def http_listeners(config: Config, inherited: Inherited) -> list[trio.SocketListener]:
    """Return the inherited sockets for probes and operators, or bind the addresses of `listen.http`. Raises OSError."""
    if inherited.http:
        return [trio.SocketListener(trio.socket.from_stdlib_socket(passed)) for passed in inherited.http]
    return [listener for address in config.listen.http for listener in await open_tcp(address)]


def open_admin_socket(config: Config) -> trio.SocketListener | None:
    """Open the admin API's Unix socket; None with `admin.socket = "off"`. Raises OSError."""
    if config.admin.socket == "off":
        return None
    directory = socket_directory(os.environ)
    path = Path(config.admin.socket) if config.admin.socket else admin_socket(directory, config.node.id)
    try:
        try:
            return open_unix(path)
        except OSError as error:
            if config.admin.socket or error.errno != errno.EADDRINUSE:
                raise
            # A node of another cluster on this host has the same name, which is no reason to refuse to serve.
            return open_unix(admin_socket(directory, config.node.id, f"-{os.getpid()}"))
    except OSError as error:
        advice = 'set it to a path in a directory that this user may write, or to "off" for no admin socket'
        raise ResourceRefused("admin.socket", f"cannot open {path}", error, advice) from None


def check_inherited(inherited: Inherited, config: Config) -> None:
    """Hold inherited sockets to the rule of configured addresses: a socket that other machines reach needs an auth key.

    Raises ConfigError.
    """
    if has_key(config.auth) or config.auth.insecure:
        return
    for key, sockets in (("listen.websocket", inherited.websocket), ("listen.http", inherited.http)):
        for listening in sockets:
            address = listening.getsockname()
            if isinstance(address, tuple) and not is_loopback(address[0]):
                message = (
                    f"the socket passed by systemd is reachable from other machines ({address[0]}): set an auth key"
                )
                raise ConfigError([Problem("", key, message)])


def port_of(listening: socket.socket | trio.socket.SocketType) -> int:
    """Return the port of a listening socket; 0 for a Unix socket, which has none."""
    address = listening.getsockname()
    return int(address[1]) if isinstance(address, tuple) else 0


@asynccontextmanager
async def closing(listeners: list[socket.socket]) -> AsyncIterator[None]:
    """Close `listeners` when the body ends, also when the node that would use them never comes up."""
    try:
        yield
    finally:
        for listening in listeners:
            listening.close()
