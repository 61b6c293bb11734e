"""The door to the three stores: a URL tells which."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol

import structlog

from signald.config.seal_keys import KeyFile, read_seal_keys
from signald.config.store_urls import FORMS, is_redis, scheme_of
from signald.errors import StoreMisused
from signald.store.base import Store
from signald.store.memory import open_memory
from signald.store.seals import Seals
from signald.store.sqlite import open_sqlite

log = structlog.get_logger(__name__)


class StoreSettings(Protocol):
    """What opening a store takes from the configuration (section `store`)."""

    @property
    def key_prefix(self) -> str: ...
    @property
    def ack(self) -> Literal["process", "replica", "disk"]: ...
    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def command_timeout_s(self) -> float: ...
    @property
    def poll_interval_s(self) -> float: ...
    @property
    def encryption_keys_file(self) -> str: ...


def check_url(url: str) -> None:
    """Read a store URL. Raises StoreMisused, with what to change and without repeating the URL."""
    if is_redis(url):
        from signald.store.redis_url import parse_url

        parse_url(url)


def renew_store(store: Store, url: str) -> None:
    """Have `store` use the login and the addresses of `url` from now on, where it has any.

    Raises StoreMisused, and changes nothing, when `url` is not one of the same store.
    """
    renew = getattr(store, "renew", None)
    if renew is not None:
        renew(url)


def read_keys(file: str) -> KeyFile:
    """Read `store.encryption_keys_file`; empty: there are no keys. Raises StoreMisused, without a secret in its text."""
    try:
        return read_seal_keys(Path(file)) if file else KeyFile()
    except OSError as error:
        raise StoreMisused(f"store.encryption_keys_file: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StoreMisused(f"store.encryption_keys_file: {error}") from error


def seals_of(store: Store) -> Seals | None:
    """Return the key ring of a store; None of one that keeps nothing beyond its process."""
    return getattr(store, "seals", None)


def renew_keys(store: Store, file: KeyFile) -> None:
    """Have `store` open values by these keys from now on; a key under which it holds values stays."""
    seals = seals_of(store)
    if seals is not None and (missed := seals.renew(file.keys, file.retired)):
        log.error("seal_key_missed", keys=[seals.name_of(key_id) for key_id in missed])


@asynccontextmanager
async def open_store(url: str, node: str, settings: StoreSettings) -> AsyncIterator[Store]:
    """Open the store at `url` for `node`.

    Raises:
        StoreMisused: the URL or what lies behind it cannot serve; the text says what to change, and never repeats the
            URL, which may hold a password.
        StoreUnavailable: the store cannot be reached.
    """
    scheme, file = scheme_of(url), read_keys(settings.encryption_keys_file)
    seals = Seals(file.keys, retired=file.retired)
    if scheme == "memory":
        async with open_memory(url, node) as memory:
            yield memory
    elif scheme == "sqlite":
        poll_interval_s, busy_timeout_s = settings.poll_interval_s, settings.command_timeout_s
        async with open_sqlite(
            url, node, ack=settings.ack, poll_interval_s=poll_interval_s, busy_timeout_s=busy_timeout_s, seals=seals
        ) as sqlite:
            yield sqlite
    elif is_redis(url):
        # Imported here: a signald that embeds its store does not pay for a client it does not use.
        from signald.store.redis import open_redis

        timeouts = {"connect_timeout_s": settings.connect_timeout_s, "command_timeout_s": settings.command_timeout_s}
        async with open_redis(
            url, node, prefix=settings.key_prefix, ack=settings.ack, seals=seals, **timeouts
        ) as redis:
            yield redis
    else:
        raise StoreMisused(f"the URL of the store has none of the known forms: {', '.join(FORMS.values())}")
