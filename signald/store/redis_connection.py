"""How a Redis server is spoken to: one connection, and what its errors mean.

What blocks runs in the store's threads only; the exchange of a batch (`send_soon`, `read_soon`) runs in the event loop
on the same socket, by turns. redis-py connects (TCP, TLS, login) with its retries off, because it would run a whole
pipeline again after a lost reply. What fails becomes one of two things here: `StoreUnavailable` (the connection is
dropped, so nothing half-read is ever read on) or `StoreMisused`.
"""

import select
import ssl
from collections.abc import Sequence
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import Any

import hiredis
import trio
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, InvalidResponse, NoPermissionError, RedisError
from redis.retry import Retry

from signald.errors import StoreMisused, StoreUnavailable
from signald.store.redis_url import ENCODING_HINT, Address, Target

READ_BYTES = 65536

Word = str | bytes | int | float
Reply = Any
"""What hiredis makes of a reply: int, bytes, list, None, or an `ErrorReply` as a value."""
_NOTHING_YET = object()

# How the first word of an error reply is taken. What is not listed passes in time (failover, restart, full memory or disk).
_LOGIN = ("NOAUTH", "NOPERM", "WRONGPASS")
_DENIED_IN_SCRIPT = "The user executing the script"  # a plain ERR until Redis 7.2, which says NOPERM here too
_MISUSED = ("WRONGTYPE", "CROSSSLOT", "ERR")
_PASSING = (
    "OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "MOVED", "ASK",
)  # fmt: skip


DAMAGE_SIGNS = ("attempt to", "bad argument", "WRONGTYPE", "XADD", " in input", "not an integer")
"""Of what kept values make a script complain: Lua of a value of another kind, cmsgpack, or a command of what it meets."""

_OTHER_REASONS = {*_LOGIN, *_PASSING}


class ErrorReply(Exception):
    """An error as the server's answer to one command. It is a value here; the command's neighbours have their own."""

    @property
    def code(self) -> str:
        """The word it begins with, by which errors are told apart."""
        return str(self).partition(" ")[0]

    @property
    def tells_damage(self) -> bool:
        """True when it was what is kept that made a script fail, and not the state of the server or a right that it denies."""
        text = str(self)
        return (
            self.code in _MISUSED and any(sign in text for sign in DAMAGE_SIGNS) and not _words(text) & _OTHER_REASONS
        )


_NO_DATABASE = ("DB index is out of range", "is not an integer or out of range", "SELECT is not allowed")
"""What SELECT answers; no other command of a login takes a number."""


def _words(text: str) -> set[str]:
    return set(text.replace("-", " ").split())


def refusal(error: Exception, at: Address | None = None) -> StoreUnavailable | StoreMisused:
    """Translate an error reply, or what connecting, reading or writing raised, into what it means to signald.

    `at` is the server it happened with: of several servers, the operator wants to know which.
    """
    text = str(error) or type(error).__name__
    where = "Redis" if at is None or str(at) in text else f"Redis at {at}"
    if isinstance(error, ErrorReply):
        # An error inside a script keeps its own code only since Redis 7; before, it is somewhere in the text.
        words = _words(text)
        if error.code in _LOGIN or not words.isdisjoint(_LOGIN) or _DENIED_IN_SCRIPT in text:
            return StoreMisused(f"{where} refuses the credentials or permissions of store.url: {text}")
        if error.code in _MISUSED and words.isdisjoint(_PASSING):
            return StoreMisused(f"{where} answered with an error that trying again cannot mend: {text}")
        return StoreUnavailable(f"{where}: {text}")
    if isinstance(error, AuthenticationError | NoPermissionError):
        hint = f" ({ENCODING_HINT})" if isinstance(error, AuthenticationError) else ""
        return StoreMisused(f"{where} refuses the credentials or permissions of store.url: {text}{hint}")
    if any(sign in text for sign in _NO_DATABASE):
        return StoreMisused(f"{where} has no database of the number in store.url: {text}")
    if isinstance(error, InvalidResponse | hiredis.ProtocolError):
        return StoreMisused(f"{where} is no Redis: {text}")
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return StoreMisused(f"the certificate of {where} is not accepted: {text}")
    return StoreUnavailable(f"{where}: {text}")


class RedisLink:
    """One connection to one server."""

    def __init__(self, target: Target, address: Address, connect_timeout_s: float, command_timeout_s: float) -> None:
        sentinel = target.kind == "sentinel" and address in target.addresses
        options = target.options
        settings: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "db": 0 if sentinel else target.db,
            "username": options.get("sentinel_username") if sentinel else target.username,
            "password": options.get("sentinel_password") if sentinel else target.password,
            "socket_connect_timeout": connect_timeout_s,
            "socket_timeout": command_timeout_s,
            "socket_read_size": READ_BYTES,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "protocol": 2,
            "driver_info": None,
        }
        if target.tls:
            for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
                settings[name] = options.get(name)
            settings["ssl_check_hostname"] = options.get("ssl_check_hostname", "true").lower() not in (
                "false",
                "no",
                "0",
            )
            settings["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
        self.address = address
        self._connection: Any = (SSLConnection if target.tls else Connection)(**settings)
        self._sock: socket | None = None
        self._poll = select.poll()
        self._reader = hiredis.Reader()
        self._buffer = bytearray(READ_BYTES)
        self._timeout_s = command_timeout_s
        self._looping = False
        """True while the socket does not block, for the event loop."""
        self.prepared = False
        """True once the store has checked this server and loaded its scripts."""
        self.life = ""
        """What the server calls its life; empty: it has not told."""

    def __repr__(self) -> str:
        return f"<RedisLink {self.address}>"

    def open(self) -> None:
        """Connect and log in, unless that is done and the server has not closed the connection since."""
        if self._sock is not None and self.readable(0):
            # Nothing was asked, so this can only be the end: an idle connection was closed, or the server was restarted.
            self.close()
        if self._sock is None:
            try:
                self._connection.connect()
            except (RedisError, OSError) as error:
                raise refusal(error, self.address) from error
            # From here on the socket is ours: reading through redis-py costs ten times what hiredis itself does.
            self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING_YET)
            self._sock = self._connection._get_socket()
            self._looping = False
            self._poll = select.poll()
            self._poll.register(self._open_socket(), select.POLLIN)

    def send(self, data: bytes) -> None:
        """Write packed commands."""
        try:
            self._blocking_socket().sendall(data)
        except OSError as error:
            raise refusal(error, self.address) from error

    def read(self, count: int) -> list[Reply]:
        """Return the next `count` replies. Error replies are returned, not raised."""
        self._blocking_socket()
        gets = self._reader.gets
        replies: list[Reply] = []
        try:
            while len(replies) < count:
                reply = gets()
                if reply is _NOTHING_YET:
                    self._receive()
                else:
                    replies.append(reply)
        except (hiredis.HiredisError, OSError) as error:
            raise refusal(error, self.address) from error
        return replies

    async def send_soon(self, data: bytes, patience: trio.CancelScope) -> None:
        """As `send`, in the event loop's thread: without a thread's wake-ups, which cost more than the exchange itself.

        The deadline of `patience` is put off whenever the server does something. Cut short, the connection is of no use.
        """
        sock = self._looping_socket()
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[sock.send(view) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    await self._wait(sock, patience, write=True)
                except ssl.SSLWantReadError:
                    await self._wait(sock, patience)
        except OSError as error:
            raise refusal(error, self.address) from error

    async def read_soon(self, count: int, patience: trio.CancelScope) -> list[Reply]:
        """As `read`, in the event loop's thread; `patience` as for `send_soon`."""
        sock = self._looping_socket()
        gets = self._reader.gets
        replies: list[Reply] = []
        try:
            while len(replies) < count:
                reply = gets()
                if reply is not _NOTHING_YET:
                    replies.append(reply)
                    continue
                try:
                    self._receive()
                except (BlockingIOError, ssl.SSLWantReadError):
                    await self._wait(sock, patience)
                except ssl.SSLWantWriteError:
                    await self._wait(sock, patience, write=True)
        except (hiredis.HiredisError, OSError) as error:
            raise refusal(error, self.address) from error
        return replies

    async def hear(self, count_max: int) -> list[Reply]:
        """Return what the server has sent of its own accord: at least one reply, as soon as there is one.

        When cancelled, nothing has been taken.
        """
        sock = self._looping_socket()
        gets = self._reader.gets
        replies: list[Reply] = []
        try:
            while len(replies) < count_max:
                reply = gets()
                if reply is not _NOTHING_YET:
                    replies.append(reply)
                elif replies:
                    break
                else:
                    try:
                        self._receive()
                    except (BlockingIOError, ssl.SSLWantReadError):
                        await trio.lowlevel.wait_readable(sock)
        except (hiredis.HiredisError, OSError) as error:
            raise refusal(error, self.address) from error
        return replies

    async def _wait(self, sock: socket, patience: trio.CancelScope, *, write: bool = False) -> None:
        patience.deadline = trio.current_time() + self._timeout_s
        if write:
            await trio.lowlevel.wait_writable(sock)
        else:
            await trio.lowlevel.wait_readable(sock)

    def ask(self, *words: str | bytes | int) -> Reply:
        """Send one command and return its answer; an error reply is raised as what it means."""
        self.send(pack(*words))
        (reply,) = self.read(1)
        if isinstance(reply, ErrorReply):
            raise refusal(reply, self.address)
        return reply

    def ask_all(self, commands: Sequence[bytes]) -> None:
        """Send several commands, already packed, in one round trip; the first error reply is raised as what it means."""
        self.send(b"".join(commands))
        for reply in self.read(len(commands)):
            if isinstance(reply, ErrorReply):
                raise refusal(reply, self.address)

    def readable(self, timeout_s: float) -> bool:
        """Tell whether something, be it the end, can be read within `timeout_s`."""
        sock = self._open_socket()
        if self._reader.has_data() or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        return bool(self._poll.poll(timeout_s * 1000))

    def cut(self) -> None:
        """End the connection from any thread: a thread that reads or writes gets an error now."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                # Not the method of an SSLSocket: that one forgets the TLS state another thread is using.
                socket.shutdown(sock, SHUT_RDWR)

    def close(self) -> None:
        """End the connection from the thread that uses it."""
        self.prepared = False
        self._sock = None
        self._connection.disconnect()

    def _receive(self) -> None:
        size = self._open_socket().recv_into(self._buffer)
        if not size:
            raise ConnectionResetError(f"{self.address} closed the connection")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]

    def _open_socket(self) -> socket:
        if self._sock is None:
            raise ConnectionResetError("not connected")
        return self._sock

    def _looping_socket(self) -> socket:
        if not self._looping and self._sock is not None:
            self._looping = True
            self._sock.settimeout(0.0)
        return self._open_socket()

    def _blocking_socket(self) -> socket:
        if self._looping and self._sock is not None:
            self._looping = False
            self._sock.settimeout(self._timeout_s)
        return self._open_socket()


def pack(*words: Word) -> bytes:
    """Return one RESP command."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed
