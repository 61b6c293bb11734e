"""The changes of a reload: which keys a running process may change, and the configuration after it.

All or nothing. The file and the environment are read and checked whole, as at a start. The result is checked too: the new
values of the keys that a reload may change, and the running values of the keys that need a restart.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from signald.config.checks import cross_checks
from signald.config.keys import key_info
from signald.config.loading import load_with_origins
from signald.config.problems import ConfigError, Problem
from signald.config.sections import SECTIONS, Config
from signald.config.store_urls import is_same_store

_CONTENT_KEYS = (
    "listen.tls_certificate_file",
    "listen.tls_key_file",
    "auth.jwt_public_key_file",
    "auth.jwks_file",
    "store.encryption_keys_file",
)
"""Keys whose file is read at its use: the content of the file may change while its name stays."""

_STORE_KEYS = ("store.url", "store.url_file")
"""A running process can change how it reaches its store, and not which store it uses."""

Fingerprints = dict[str, str]


@attrs.frozen
class Source:
    """The file and the environment that this process read its configuration from."""

    path: Path | None
    env: Mapping[str, str]

    def read(self, running: Config) -> Config:
        """Read the configuration again. A node name generated at the start stays. Raises ConfigError with every problem."""
        config, places = load_with_origins(self.path, self.env)
        made_up = {name: getattr(running.node, name) for name in ("id", "release") if f"node.{name}" not in places}
        return attrs.evolve(config, node=attrs.evolve(config.node, **made_up))


@attrs.frozen
class Change:
    """The effect of a reload."""

    config: Config
    """The configuration in force after it."""
    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]
    fingerprints: Fingerprints = attrs.field(factory=dict, repr=False)


def fingerprints(config: Config) -> Fingerprints:
    """Return a digest of each file behind a key; a file that cannot be read has an empty one."""
    found: Fingerprints = {}
    for key in _CONTENT_KEYS:
        name = _value(config, key)
        try:
            found[key] = hashlib.sha256(Path(name).read_bytes()).hexdigest() if name else ""
        except OSError:
            found[key] = ""
    return found


def compare(running: Config, read: Config, known: Fingerprints) -> Change:
    """Return the change from `running`, whose files had the digests `known`, to the configuration `read`.

    Raises ConfigError when the result contradicts itself, because some of its keys need a restart first.
    """
    changed = [key for key in _keys() if _value(running, key) != _value(read, key)]
    moved = is_same_store(running.store.url, read.store.url)
    needs_restart = tuple(key for key in changed if not _reloadable(key) or (key in _STORE_KEYS and not moved))
    held: dict[str, dict[str, Any]] = {}
    for key in needs_restart:
        section, _, name = key.partition(".")
        held.setdefault(section, {})[name] = _value(running, key)
    config = attrs.evolve(
        read, **{section: attrs.evolve(getattr(read, section), **values) for section, values in held.items()}
    )
    problems = [
        Problem("", keys[0], f"{message} (with what is running; {', '.join(needs_restart)} would need a restart first)")
        for keys, message in cross_checks(config)
    ]
    if problems:
        raise ConfigError(problems)
    now = fingerprints(config)
    renewed = {key for key in _CONTENT_KEYS if now[key] != known.get(key, "")}
    applied = tuple(key for key in _keys() if key not in needs_restart and (key in changed or key in renewed))
    return Change(config, applied, needs_restart, now)


def _keys() -> Iterator[str]:
    for section, cls in SECTIONS.items():
        for field in attrs.fields(cls):
            yield f"{section}.{field.name}"


def _reloadable(key: str) -> bool:
    section, _, name = key.partition(".")
    return key_info(attrs.fields_dict(SECTIONS[section])[name]).reload


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
