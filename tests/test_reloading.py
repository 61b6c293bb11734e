"""What a reload would do, decided from two configurations: which keys, what holds then, and when it is refused."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from signald.config import Config, ConfigError
from signald.config.changes import Change, Source, compare, fingerprints
from signald.config.keys import key_info
from signald.config.sections import SECTIONS, NodeConfig
from signald.config.store_urls import is_same_store

SECRET = "a shared secret of at least 32 bytes"

NAMED = Config(node=NodeConfig(id="node", release="release"))
"""A process has a name from its start."""

Rewrite = Callable[[str], Change]


@pytest.fixture
def rewrite(tmp_path: Path) -> Rewrite:
    """Start from a file, then give it another content and compare."""
    file = tmp_path / "signald.toml"
    file.write_text('[drain]\ntimeout_s = 40\n[log]\nlevel = "warning"\n')
    source = Source(file, {})
    running = source.read(NAMED)
    known = fingerprints(running)

    def again(text: str) -> Change:
        file.write_text(text)
        return compare(running, source.read(running), known)

    return again


def test_only_addresses_store_and_identity_need_a_restart() -> None:
    """The keys that a running process cannot change are exactly these; every other one is applied by a reload."""
    fixed = [
        f"{section}.{field.name}"
        for section, cls in SECTIONS.items()
        for field in attrs.fields(cls)
        if not key_info(field).reload
    ]
    others = {f"{section}.{field.name}" for section in ("store", "node") for field in attrs.fields(SECTIONS[section])}
    others -= {"store.url", "store.url_file", "store.encryption_keys_file"}  # as far as they lead to the same store
    listening = {"listen.websocket", "listen.http", "listen.backlog", "admin.socket"}
    keys = "url endpoint region credentials access_key access_key_file secret_key secret_key_file spool_directory threads timeout_s"
    media = {f"blobs.{name}" for name in keys.split()}
    profiles = {f"profiles.{field.name}" for field in attrs.fields(SECTIONS["profiles"])}
    assert set(fixed) == listening | media | profiles | {"telemetry.otlp_endpoint"} | others


def test_the_same_file_changes_nothing(rewrite: Rewrite) -> None:
    """A node whose name was made up at its start has the same one after a reload."""
    change = rewrite('[drain]\ntimeout_s = 40\n[log]\nlevel = "warning"\n')
    assert (change.applied, change.needs_restart) == ((), ())
    assert change.config.drain.timeout_s == 40


def test_a_key_that_was_removed_is_at_its_default(rewrite: Rewrite) -> None:
    """The file is the whole truth: what it says no more holds no more."""
    change = rewrite("[drain]\ntimeout_s = 50\n")
    assert change.applied == ("drain.timeout_s", "log.level")
    assert change.config.log.level == "info"


def test_what_needs_a_restart_is_named_and_stays(rewrite: Rewrite) -> None:
    """The other keys of the same file are applied, and those that cannot be keep their running values."""
    change = rewrite('[listen]\nhttp = "127.0.0.1:9"\nallowed_origins = ["*"]\n[store]\nurl = "memory:"\n')
    assert change.needs_restart == ("listen.http", "store.url")
    assert change.applied == ("listen.allowed_origins", "drain.timeout_s", "log.level")
    assert change.config.listen.http == Config().listen.http
    assert change.config.store.url == Config().store.url
    assert change.config.listen.allowed_origins == ("*",)


def test_every_mistake_is_said_at_once(rewrite: Rewrite) -> None:
    """A file is judged whole, as at the start."""
    with pytest.raises(ConfigError) as refused:
        rewrite('[drain]\ntimout_s = 1\n[log]\nlevel = "loud"\n')
    assert [problem.key for problem in refused.value.problems] == ["drain.timout_s", "log.level"]


def test_half_a_file_must_not_open_the_door(tmp_path: Path) -> None:
    """Off the network and without a key is a sound file; without the key while still on the network is not, and is refused."""
    file = tmp_path / "signald.toml"
    file.write_text(f'[listen]\nwebsocket = "0.0.0.0:8080"\n[auth]\njwt_secret = "{SECRET}"\n')
    source = Source(file, {})
    running = source.read(NAMED)
    file.write_text('[listen]\nwebsocket = "127.0.0.1:8080"\n')
    with pytest.raises(ConfigError, match=r"listen[.]websocket would need a restart first"):
        compare(running, source.read(running), fingerprints(running))


@pytest.mark.parametrize(
    "key", ["listen.tls_certificate_file", "listen.tls_key_file", "auth.jwt_public_key_file", "auth.jwks_file"]
)
def test_another_content_behind_the_same_name_is_a_change(tmp_path: Path, key: str) -> None:
    """Certificates and keys are renewed in place: what a file holds counts, not its name alone."""
    section, _, name = key.partition(".")
    file = tmp_path / "key.pem"
    file.write_text("one")
    running = attrs.evolve(NAMED, **{section: attrs.evolve(getattr(NAMED, section), **{name: str(file)})})
    if section == "listen":
        listen = attrs.evolve(running.listen, tls_certificate_file=str(file), tls_key_file=str(file))
        running = attrs.evolve(running, listen=listen)
    known = fingerprints(running)
    assert compare(running, running, known).applied == ()
    file.write_text("two")
    change = compare(running, running, known)
    assert key in change.applied
    assert compare(running, running, change.fingerprints).applied == ()


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    """What a reload says names keys and never values."""
    file = tmp_path / "signald.toml"
    file.write_text(f'[auth]\njwt_secret = "{SECRET}"\n')
    read = Source(file, {}).read(NAMED)
    change = compare(NAMED, read, {})
    assert "auth.jwt_secret" in change.applied
    assert SECRET not in repr(change)


@pytest.mark.parametrize(
    ("then", "restart"),
    [
        ("redis://:new@a:1/0", False),
        ("rediss://u:new@b:2?ssl_check_hostname=no", False),
        ("redis://a:1/1", True),
        ("redis+cluster://a:1", True),
        ("redis+sentinel://a:1/main", True),
        ("memory:", True),
    ],
)
def test_a_store_is_reached_in_another_way_or_is_another_one(tmp_path: Path, then: str, restart: bool) -> None:
    """Login, addresses and TLS options are applied; another form, database or kind of store waits for a restart."""
    file, secret = tmp_path / "signald.toml", tmp_path / "url"
    file.write_text(f'[store]\nurl_file = "{secret}"\n')
    source = Source(file, {})
    secret.write_text("redis://:old@a:1")
    running = source.read(NAMED)
    secret.write_text(then)
    change = compare(running, source.read(running), {})
    expected = ((), ("store.url",)) if restart else (("store.url",), ())
    assert (change.applied, change.needs_restart) == expected
    assert change.config.store.url == ("redis://:old@a:1" if restart else then)


def test_the_service_is_a_part_of_the_store() -> None:
    """Behind one Sentinel there may be many."""
    assert is_same_store("redis+sentinel://a/main", "rediss+sentinel://:p@b,c:5/main/0")
    assert not is_same_store("redis+sentinel://a/main", "redis+sentinel://a/other")
    assert not is_same_store("redis+sentinel://a/main", "redis+sentinel://a/main/1")
    assert is_same_store("sqlite:a", "sqlite:a")
    assert not is_same_store("sqlite:a", "sqlite:b")
