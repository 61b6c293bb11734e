"""From a file and the environment to a checked `Config`: file below environment, every problem said at once."""

import re
import secrets
import socket
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

import signald
from signald.config import values
from signald.config.checks import NODE_ID_CHARS_MAX, cross_checks, fit_node_id
from signald.config.document import Document, read_document
from signald.config.problems import ConfigError, Problem, suggestion
from signald.config.seal_keys import read_seal_keys
from signald.config.sections import SECTIONS, Config

ENV_PREFIX = "SIGNALD_"

# A secret is a line; a file this large is not one.
SECRET_BYTES_MAX = 65_536

_FIELDS: dict[str, dict[str, "attrs.Attribute[Any]"]] = {
    name: {field.name: field for field in attrs.fields(cls)} for name, cls in SECTIONS.items()
}


def load(path: Path | None, env: Mapping[str, str]) -> Config:
    """Return the configuration, as `load_with_origins`."""
    return load_with_origins(path, env)[0]


def load_with_origins(path: Path | None, env: Mapping[str, str]) -> tuple[Config, dict[str, str]]:
    """Return the configuration of a file (None: no file), overridden by `SIGNALD_SECTION__KEY` variables.

    Paths in it are relative to the file's folder, or to the working directory without a file. `*_file` keys of
    secrets are replaced by what the file holds; `node.id` and `node.release` are filled when empty.

    With it comes where each key that is not at its default was set: `section.key` → `file:line`, or a variable's name.

    Raises ConfigError with every problem found.
    """
    loader = _Loader(env)
    folder = Path()
    if path is not None:
        loader.add_document(read_document(path))
        folder = path.parent
    loader.add_environment()
    config = _named(loader.resolve_files(loader.build(), folder))
    # A key that is already reported holds its default here, so a check must not blame it a second time.
    reported = {problem.key for problem in loader.problems}
    for keys, message in cross_checks(config):
        if not reported.intersection(keys):
            loader.problems.append(Problem(loader.where(*keys), keys[0], message))
    if loader.problems:
        raise ConfigError(sorted(loader.problems, key=_place))
    return config, loader.places


COMPARED = ("drain", "pace", "limits", "admission")
"""The sections that units and manifests are compared with."""


def load_comparable(path: Path, env: Mapping[str, str]) -> Config | None:
    """Return the configuration that `load` refuses as far as units are compared with it; None when that cannot be known."""
    loader = _Loader(env)
    try:
        loader.add_document(read_document(path))
    except ConfigError:
        return None
    loader.add_environment()
    # A key in an unknown section may have been meant for one of these.
    unclear = any(problem.key.partition(".")[0] in ("", *COMPARED) for problem in loader.problems)
    return None if unclear else loader.build()


class _Loader:
    """Gathers typed values and problems, and remembers where each value came from."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._env = env
        self._values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        self.places: dict[str, str] = {}

    def where(self, *keys: str) -> str:
        """Return the place of the first of `keys` that was set anywhere, or ""."""
        return next((self.places[key] for key in keys if key in self.places), "")

    def _layer(self, key: str) -> str:
        place = self.places.get(key, "")
        return ("environment" if place.startswith(ENV_PREFIX) else "file") if place else ""

    def fail(self, key: str, message: str, *, absent: bool = False) -> None:
        self.problems.append(Problem(self.where(key), key, message, absent))

    def _fail_to_read(self, key: str, path: Path, error: OSError) -> None:
        self.fail(key, f"{path} cannot be read: {error.strerror}", absent=isinstance(error, FileNotFoundError))

    def add_document(self, document: Document) -> None:
        for section, table in document.values.items():
            where = document.where(section)
            if section not in SECTIONS:
                problem = f'unknown section "{section}"'
                if not isinstance(table, dict):
                    problem = f'"{section}" stands outside any section{_home(section)}'
                    self.problems.append(Problem(where, "", problem))
                else:
                    self.problems.append(Problem(where, "", problem + suggestion(section, SECTIONS)))
            elif not isinstance(table, dict):
                self.problems.append(Problem(where, "", f'"{section}" is a section: write [{section}]'))
            else:
                self._add_table(document, section, table)

    def _add_table(self, document: Document, section: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            where = document.where(section, name)
            field = _FIELDS[section].get(name)
            if field is None:
                hint = suggestion(name, _FIELDS[section]) or _home(name)
                self.problems.append(Problem(where, f"{section}.{name}", f"unknown key{hint}"))
                continue
            self.places[f"{section}.{name}"] = where
            try:
                self._values[section][name] = values.structure(field, value)
            except ValueError as error:
                self.problems.append(Problem(where, f"{section}.{name}", str(error)))

    def add_environment(self) -> None:
        variables = {_variable(section, name): (section, name) for section in SECTIONS for name in _FIELDS[section]}
        for variable in sorted(self._env):
            # Without the two underscores it is another program's, such as SIGNALD_PORT set by Kubernetes.
            if not variable.startswith(ENV_PREFIX) or "__" not in variable:
                continue
            if variable not in variables:
                self.problems.append(Problem(variable, "", f"unknown variable{_near_variable(variable)}"))
                continue
            section, name = variables[variable]
            self.places[f"{section}.{name}"] = variable
            # A variable replaces the value of the file, also a wrong one.
            self.problems = [problem for problem in self.problems if problem.key != f"{section}.{name}"]
            try:
                self._values[section][name] = values.from_text(_FIELDS[section][name], self._env[variable])
            except ValueError as error:
                self.problems.append(Problem(variable, f"{section}.{name}", str(error)))

    def build(self) -> Config:
        return Config(**{section: cls(**self._values[section]) for section, cls in SECTIONS.items()})

    def resolve_files(self, config: Config, folder: Path) -> Config:
        """Make paths absolute and put the content of secret files into the keys they stand for."""
        listen, auth, store = config.listen, config.auth, config.store
        listen = attrs.evolve(
            listen,
            tls_certificate_file=self._readable("listen.tls_certificate_file", listen.tls_certificate_file, folder),
            tls_key_file=self._readable("listen.tls_key_file", listen.tls_key_file, folder),
        )
        auth = attrs.evolve(
            auth,
            jwt_public_key_file=self._readable("auth.jwt_public_key_file", auth.jwt_public_key_file, folder),
            jwks_file=self._readable("auth.jwks_file", auth.jwks_file, folder),
            jwt_secret=self._secret("auth.jwt_secret", auth.jwt_secret, auth.jwt_secret_file, folder),
            api_token_key=self._secret("auth.api_token_key", auth.api_token_key, auth.api_token_key_file, folder),
        )
        store = attrs.evolve(
            store,
            url=self._secret("store.url", store.url, store.url_file, folder),
            encryption_keys_file=self._keys("store.encryption_keys_file", store.encryption_keys_file, folder),
        )
        core = attrs.evolve(
            config.core,
            secret=self._secret("core.secret", config.core.secret, config.core.secret_file, folder),
            secret_previous=self._secret(
                "core.secret_previous", config.core.secret_previous, config.core.secret_previous_file, folder
            ),
        )
        admin = attrs.evolve(
            config.admin,
            token=self._secret("admin.token", config.admin.token, config.admin.token_file, folder),
            socket=self._socket(config.admin.socket, folder),
        )
        blobs = attrs.evolve(
            config.blobs,
            spool_directory=self._directory(config.blobs.spool_directory, folder),
            access_key=self._secret("blobs.access_key", config.blobs.access_key, config.blobs.access_key_file, folder),
            secret_key=self._secret("blobs.secret_key", config.blobs.secret_key, config.blobs.secret_key_file, folder),
        )
        return attrs.evolve(config, listen=listen, auth=auth, store=store, core=core, admin=admin, blobs=blobs)

    def _socket(self, text: str, folder: Path) -> str:
        """The path of the admin socket, absolute; "" stays for the default, which the node's id is part of."""
        if text in ("", "off"):
            return text
        return str((folder / text).absolute())

    def _directory(self, text: str, folder: Path) -> str:
        """The path of a directory, absolute; "" stays for the default, which the environment decides."""
        return str((folder / text).absolute()) if text else ""

    def _path(self, key: str, text: str, folder: Path) -> Path | None:
        if "${CREDENTIALS_DIRECTORY}" in text:
            directory = self._env.get("CREDENTIALS_DIRECTORY", "")
            if not directory:
                message = "CREDENTIALS_DIRECTORY is not set: systemd sets it for units with LoadCredential="
                self.fail(key, message, absent=True)
                return None
            text = text.replace("${CREDENTIALS_DIRECTORY}", directory)
        return (folder / text).absolute()

    def _readable(self, key: str, text: str, folder: Path) -> str:
        path = self._path(key, text, folder) if text else None
        if path is None:
            return text
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            self._fail_to_read(key, path, error)
        return str(path)

    def _keys(self, key: str, text: str, folder: Path) -> str:
        """The path of a file of keys, absolute; the keys are checked here, and read where they are used."""
        path = self._path(key, text, folder) if text else None
        if path is None:
            return text
        try:
            read_seal_keys(path)
        except OSError as error:
            self._fail_to_read(key, path, error)
        except ValueError as error:
            self.fail(key, str(error))
        return str(path)

    def _secret(self, key: str, value: str, file: str, folder: Path) -> str:
        file_key = f"{key}_file"
        if not file:
            return value
        if self._layer(key) == self._layer(file_key) and value != _default(key):
            self.fail(file_key, f"{key} is set too: keep one of them")
            return value
        # Of two layers the environment wins, whichever of the two keys it sets.
        if self._layer(key) == "environment":
            return value
        path = self._path(file_key, file, folder)
        if path is None:
            return value
        try:
            with path.open("rb") as opened:
                content = opened.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            self._fail_to_read(file_key, path, error)
            return value
        return self._secret_text(file_key, path, content) or value

    def _secret_text(self, file_key: str, path: Path, content: bytes) -> str:
        try:
            text = content.decode("utf-8-sig").strip()  # some editors begin a file with a byte order mark
        except UnicodeDecodeError:
            self.fail(file_key, f"{path} is not UTF-8 text")
            return ""
        if not text:
            self.fail(file_key, f"{path} is empty")
        elif len(content) > SECRET_BYTES_MAX:
            self.fail(file_key, f"{path} is larger than {SECRET_BYTES_MAX} bytes")
        elif any(not char.isprintable() for char in text):
            self.fail(file_key, f"{path} holds more than one line of text")
        return text


def _named(config: Config) -> Config:
    node = config.node
    if not node.id:
        # Random, so that a restarted process is a new node and never mistaken for the one it replaces.
        host = fit_node_id(socket.gethostname(), NODE_ID_CHARS_MAX - 9)  # room for the suffix
        node = attrs.evolve(node, id=f"{host}-{secrets.token_hex(4)}")
    if not node.release:
        node = attrs.evolve(node, release=signald.__version__)
    return attrs.evolve(config, node=node)


def _default(key: str) -> object:
    section, _, name = key.partition(".")
    return _FIELDS[section][name].default


def _variable(section: str, name: str) -> str:
    return f"{ENV_PREFIX}{section.upper()}__{name.upper()}"


def _near_variable(variable: str) -> str:
    """Suggest section first, then key: compared as a whole, a short key would match any section."""
    section, _, name = variable.removeprefix(ENV_PREFIX).lower().partition("__")
    near = get_close_matches(section, SECTIONS, n=1)
    names = [_variable(near[0], match) for match in get_close_matches(name, _FIELDS[near[0]], n=1)] if near else []
    return f"; did you mean {names[0]}?" if names else ""


def _place(problem: Problem) -> tuple[str, int]:
    """Order problems as a reader meets them: by file and line, variables by name, the placeless first."""
    found = re.fullmatch(r"(.*?)(?::(\d+))?", problem.where)
    return (found[1], int(found[2] or 0)) if found else (problem.where, 0)


def _home(name: str) -> str:
    """Say which section a key belongs to that was written in a wrong place."""
    homes = [f"[{section}] {name}" for section in SECTIONS if name in _FIELDS[section]]
    return f"; did you mean {' or '.join(homes)}?" if homes else ""
