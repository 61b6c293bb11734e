"""Where Redis is and how it is spoken to: the URL, one connection, and which server serves which key.

What blocks runs in the store's threads only; the exchange of a batch (`send_soon`, `read_soon`) runs in the event loop
on the same socket, by turns. redis-py connects (TCP, TLS, login) with its
retries off, because it would run a whole pipeline again after a lost reply. What fails becomes one of two things here:
`StoreUnavailable` (the connection is dropped, so nothing half-read is ever read on) or `StoreMisused`.
"""

import select
import ssl
from collections import deque
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

import hiredis
import trio
from attrs import field, frozen
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from signald.errors import StoreMisused, StoreUnavailable

REDIS_PORT = 6379
SENTINEL_PORT = 26379
READ_BYTES = 65536

Word = str | bytes | int | float
Kind = Literal["single", "sentinel", "cluster"]
Reply = Any
"""What hiredis makes of a reply: int, bytes, list, None, or an `ErrorReply` as a value."""
_NOTHING_YET = object()

FORMS = (
    "redis[s]://[user:password@]host[:port][/db], redis[s]+sentinel://[user:password@]host[:port],.../service[/db], "
    "redis[s]+cluster://[user:password@]host[:port],..."
)
OPTIONS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "sentinel_username",
    "sentinel_password",
)

# How the first word of an error reply is taken. What is not listed passes in time (failover, restart, full memory or disk).
_LOGIN = ("NOAUTH", "NOPERM", "WRONGPASS")
_DENIED_IN_SCRIPT = "The user executing the script"  # a plain ERR until Redis 7.2, which says NOPERM here too
_MISUSED = ("WRONGTYPE", "CROSSSLOT", "ERR")
_PASSING = (
    "OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "MOVED", "ASK",
)  # fmt: skip


_DAMAGED = ("attempt to", "bad argument", "WRONGTYPE", "XADD", " in input", "not an integer")
"""Of what kept values make a script complain: Lua of a value of another kind, cmsgpack, or a command of what it meets."""

_OTHER_REASONS = {*_LOGIN, *_PASSING}


class Address(NamedTuple):
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Target:
    """What a store URL says. Its secrets stay out of its repr."""

    kind: Kind
    addresses: tuple[Address, ...]
    tls: bool = False
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(factory=dict, repr=False)


def parse_url(url: str) -> Target:
    """Read a store URL. Raises StoreMisused, without repeating the URL: it may hold a password."""
    scheme, mark, rest = url.partition("://")
    base, _, form = scheme.partition("+")
    if not mark or base not in ("redis", "rediss") or form not in ("", "sentinel", "cluster"):
        raise StoreMisused(f"store.url must have one of the forms {FORMS}")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    login, _, hosts = netloc.rpartition("@")
    username, colon, password = login.partition(":")
    parts = [unquote(part) for part in path.split("/") if part]
    service = parts.pop(0) if form == "sentinel" and parts else ""
    kind: Kind = "sentinel" if form == "sentinel" else "cluster" if form == "cluster" else "single"
    if kind == "sentinel" and not service:
        raise StoreMisused("store.url of Sentinel must name the service: redis+sentinel://host,host/service")
    addresses = tuple(_address(host, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for host in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise StoreMisused("store.url names several hosts: say redis+sentinel:// or redis+cluster://")
    if len(parts) > 1 or (parts and (not parts[0].isdecimal() or kind == "cluster")):
        raise StoreMisused(
            f"the path of store.url is not a database number; store.url must have one of the forms {FORMS}"
        )
    return Target(
        kind=kind,
        addresses=addresses,
        tls=base == "rediss",
        service=service,
        db=int(parts[0]) if parts else 0,
        username=unquote(username) or None,
        password=unquote(password) if colon else None,
        options=_options(query),
    )


def _address(text: str, port: int) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, number = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise StoreMisused("store.url has a host that is not of the form host[:port]")
    return Address(host, int(number))


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in OPTIONS:
            raise StoreMisused(f"store.url has an unknown option; known are {', '.join(OPTIONS)}")
        if name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") and not Path(value).is_file():
            raise StoreMisused(f"{name} in store.url is not a readable file: {value}")
    return options


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
        return self.code in _MISUSED and any(sign in text for sign in _DAMAGED) and not _words(text) & _OTHER_REASONS


def _words(text: str) -> set[str]:
    return set(text.replace("-", " ").split())


def refusal(error: Exception, at: Address | None = None) -> StoreUnavailable | StoreMisused:
    """Translate an error reply, or what connecting, reading or writing raised, into what it means to signald.

    `at` is who it happened with: of several servers, the operator wants to know which.
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
        return StoreMisused(f"{where} refuses the credentials or permissions of store.url: {text}")
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return StoreMisused(f"the certificate of {where} is not accepted: {text}")
    return StoreUnavailable(f"{where}: {text}")


class Link:
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

    def __repr__(self) -> str:
        return f"<Link {self.address}>"

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

    def readable(self, timeout_s: float) -> bool:
        """Tell whether something, be it the end, can be read within `timeout_s`."""
        sock = self._open_socket()
        if self._reader.has_data() or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        return bool(self._poll.poll(timeout_s * 1000))

    def cut(self) -> None:
        """End the connection from any thread: whoever is reading or writing in another gets an error now."""
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


class Router:
    """Which server serves which key, and the connections to them."""

    def __init__(self, target: Target, connect_timeout_s: float, command_timeout_s: float) -> None:
        self.target = target
        self.clustered = target.kind == "cluster"
        self._timeouts = (connect_timeout_s, command_timeout_s)
        self._links: dict[Address, Link] = {}
        self._slots: list[Address] = []
        """Cluster: the primary of each slot. Else: one entry, the primary. Empty: to be found out."""
        self._asked = 0
        self._cut = False

    def link(self, tag: str) -> Link:
        """Return the open connection to the primary that serves keys with the hash tag `tag`.

        Raises:
            StoreUnavailable: no such server can be found or reached.
            StoreMisused: it refuses the credentials or the certificate.
        """
        return self._open(self._place(tag, self._known()))

    def links(self) -> list[Link]:
        """Return the open connections to all primaries. Raises as `link`."""
        return [self._open(address) for address in dict.fromkeys(self._known())]

    def ready(self, tag: str) -> Link | None:
        """As `link`, but None when something would have to be found out, opened or prepared first."""
        address = self.address(tag)
        return None if address is None else self.ready_at(address)

    def ready_at(self, address: Address) -> Link | None:
        """As `ready`, for a primary that is known by its address."""
        link = self._links.get(address)
        if link is None or not link.prepared or self._cut:
            return None
        # Readable with nothing asked: the server has closed an idle connection, or was restarted.
        return None if link.readable(0) else link

    def address(self, tag: str) -> Address | None:
        """Return the primary that serves keys with the hash tag `tag`; None when that would have to be found out."""
        return self._place(tag, self._slots) if self._slots else None

    def forget(self) -> None:
        """Something failed: drop every connection and find the servers anew next time, asking another one first."""
        self._slots = []
        self._asked += 1
        for link in self._links.values():
            link.close()
        self._links.clear()

    def cut(self) -> None:
        """From any thread: end what is going on, and let nothing begin."""
        self._cut = True
        for link in tuple(self._links.values()):
            link.cut()

    def _place(self, tag: str, slots: list[Address]) -> Address:
        return slots[0] if len(slots) == 1 else slots[key_slot(tag.encode())]

    def _known(self) -> list[Address]:
        if not self._slots:
            self._slots = self._find()
        return self._slots

    def _open(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = self._new(address)
        link.open()
        if self._cut:
            # `cut` came while we were connecting and found nothing to cut.
            raise StoreUnavailable("the store is closed")
        return link

    def _new(self, address: Address) -> Link:
        if self._cut:
            raise StoreUnavailable("the store is closed")
        return Link(self.target, address, *self._timeouts)

    def _find(self) -> list[Address]:
        if self.target.kind == "single":
            return list(self.target.addresses)
        reasons = []
        addresses = deque(self.target.addresses)
        addresses.rotate(-self._asked)
        for address in addresses:
            link = self._links[address] = self._new(address)
            try:
                link.open()
                return self._by_sentinel(link) if self.target.kind == "sentinel" else self._by_cluster(link)
            except StoreUnavailable as error:
                reasons.append(str(error))
            finally:
                link.close()
                self._links.pop(address, None)
        raise StoreUnavailable("; ".join(reasons))

    def _by_sentinel(self, link: Link) -> list[Address]:
        reply = link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.service)
        if reply is None:
            raise StoreUnavailable(f"the sentinel at {link.address} knows no {self.target.service}")
        return [Address(reply[0].decode(), int(reply[1]))]

    def _by_cluster(self, link: Link) -> list[Address]:
        nowhere = Address("", 0)
        slots = [nowhere] * 16384
        for first, last, primary, *_ in link.ask("CLUSTER", "SLOTS"):
            # A server that does not know its own name leaves it to who asks.
            address = Address((primary[0] or b"").decode() or link.address.host, primary[1])
            slots[first : last + 1] = [address] * (last - first + 1)
        if nowhere in slots:
            raise StoreUnavailable(f"the cluster at {link.address} does not serve all slots")
        return slots
