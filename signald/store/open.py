"""The door to the three stores: a URL tells which."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from signald.errors import StoreMisused
from signald.store.base import Store
from signald.store.memory import open_memory
from signald.store.sqlite import open_sqlite

FORMS = (
    "memory:, sqlite:PATH, redis://HOST, rediss://HOST, redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST"
)


class StoreSettings(Protocol):
    """What opening a store takes from the configuration (section `store`)."""

    @property
    def ack(self) -> Literal["process", "replica", "disk"]: ...
    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def command_timeout_s(self) -> float: ...
    @property
    def poll_interval_s(self) -> float: ...


@asynccontextmanager
async def open_store(url: str, node: str, settings: StoreSettings) -> AsyncIterator[Store]:
    """Open the store at `url` for `node`.

    Raises:
        StoreMisused: the URL or what lies behind it cannot serve; the text says what to change, and never repeats the
            URL, which may hold a password.
        StoreUnavailable: the store cannot be reached.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        async with open_memory(url, node) as memory:
            yield memory
    elif scheme == "sqlite":
        poll_interval_s, busy_timeout_s = settings.poll_interval_s, settings.command_timeout_s
        async with open_sqlite(
            url, node, ack=settings.ack, poll_interval_s=poll_interval_s, busy_timeout_s=busy_timeout_s
        ) as sqlite:
            yield sqlite
    elif scheme in {"redis", "rediss"} or scheme.startswith(("redis+", "rediss+")):
        # Imported here: a signald that embeds its store does not pay for a client it does not use.
        from signald.store.redis import open_redis

        timeouts = {"connect_timeout_s": settings.connect_timeout_s, "command_timeout_s": settings.command_timeout_s}
        async with open_redis(url, node, ack=settings.ack, **timeouts) as redis:
            yield redis
    else:
        raise StoreMisused(f"the URL of the store has none of the known forms: {FORMS}")
