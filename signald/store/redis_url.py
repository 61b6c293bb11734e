"""What `store.url` says of Redis: its forms, and what is read out of one.

A URL may hold passwords. No message made here repeats it, and what is read keeps its secrets out of its repr.
"""

from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from signald.config.store_urls import REDIS_FORMS
from signald.errors import StoreMisused

REDIS_PORT = 6379
SENTINEL_PORT = 26379

Kind = Literal["single", "sentinel", "cluster"]

OPTIONS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "sentinel_username",
    "sentinel_password",
)


ENCODING_HINT = (
    "in a user name or password of store.url, characters such as / ? # @ : % are percent-encoded: / is %2F, % is %25; a password "
    "without a user name stands behind a colon, as in redis://:PASSWORD@HOST"
)


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
        raise StoreMisused(f"store.url must have one of the forms {REDIS_FORMS}")
    netloc = rest.partition("?")[0].partition("/")[0]
    if "@" in rest[len(netloc) :] and "@" not in netloc:
        # The hosts seem to end before the login does.
        raise StoreMisused(f"store.url cannot be read: {ENCODING_HINT}")
    rest, _, query = rest.partition("?")
    path = rest.partition("/")[2]
    login, _, hosts = netloc.rpartition("@")
    username, colon, password = login.partition(":")
    if "\ufffd" in unquote(login):
        raise StoreMisused(f"the user name or password in store.url is not UTF-8: {ENCODING_HINT}")
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
            f"the path of store.url is not a database number; store.url must have one of the forms {REDIS_FORMS}"
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
        raise StoreMisused("store.url has a host that is not of the form host[:port], where a port is 1 to 65535")
    return Address(host, int(number))


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in OPTIONS:
            raise StoreMisused(f"store.url has an unknown option; known are {', '.join(OPTIONS)}")
        if name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") and not Path(value).is_file():
            raise StoreMisused(f"{name} in store.url is not a readable file: {value}")
    return options
