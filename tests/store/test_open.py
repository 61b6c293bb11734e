"""The URL tells the store, and a wrong one is refused without being repeated."""

from pathlib import Path
from typing import Literal

import attrs
import pytest

from signald.config.store_urls import FORMS, is_redis
from signald.errors import StoreMisused
from signald.store.base import Done
from signald.store.memory import MemoryStore
from signald.store.open import check_url, open_store
from signald.store.registry.ops import Signal
from signald.store.sqlite import SqliteStore


@attrs.frozen
class Settings:
    """What the configuration says by default."""

    key_prefix: str = "signald"
    ack: Literal["process", "replica", "disk"] = "process"
    connect_timeout_s: float = 1.0
    command_timeout_s: float = 2.0
    poll_interval_s: float = 0.005
    encryption_keys_file: str = ""


async def test_memory() -> None:
    """`memory:` is a store in memory."""
    async with open_store("memory:", "a", Settings()) as store:
        assert isinstance(store, MemoryStore)


@pytest.mark.real
async def test_sqlite(tmp_path: Path) -> None:
    """`sqlite:PATH` is a file."""
    async with open_store(f"sqlite:{tmp_path / 'signald.db'}", "a", Settings()) as store:
        assert isinstance(store, SqliteStore)
    assert (tmp_path / "signald.db").exists()


@pytest.mark.real
async def test_redis(redis_url: str) -> None:
    """`redis://` is a server."""
    async with open_store(redis_url, "a", Settings()) as store:
        assert await store.execute([Signal("a", b"r")]) == [Done()]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "signald.db",
        "postgres://ann:hush@host/db",
        "ann:hush@host",
        "memory:a/hush",
        "sqlite:",
        "sqlite::memory:",
        "sqlite://hush",
        "redis:hush",
        "redis+nothing://ann:hush@host",
    ],
)
async def test_misused(url: str) -> None:
    """What is no store's URL is refused, and the refusal names the known forms but nothing of the URL."""
    with pytest.raises(StoreMisused) as refused:
        async with open_store(url, "a", Settings()):
            pass
    assert "hush" not in str(refused.value)
    assert ":" in str(refused.value)


def test_each_form_that_the_configuration_knows_can_be_opened() -> None:
    """The list of forms is one: the reader of each form takes it as an operator would write it."""
    for scheme, form in FORMS.items():
        check_url(form)
        assert is_redis(form) == scheme.startswith("redis")
