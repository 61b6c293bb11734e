"""The client of a node's admin API, over its Unix socket or a URL with a bearer token."""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from signald.config.paths import admin_sockets, short_name
from signald.exit_codes import ExitCode
from signald.printable import printable, printable_values

Json = dict[str, Any]

TIMEOUT_S = 10.0


_STATUSES = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NO_SUCH_THING,
    409: ExitCode.STATE,
    429: ExitCode.NOT_NOW,
    503: ExitCode.NOT_NOW,
}
_KINDS = {"configuration": ExitCode.CONFIGURATION, "not-draining": ExitCode.NO_DRAIN}
"""Problems that have an exit code of their own, whatever their HTTP status."""


class CtlError(Exception):
    """A request without a useful answer; `status` is the exit code of the command."""

    def __init__(self, message: str, status: int, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        """The stable word of the node's problem document; "" without one."""


class AdminClient:
    """One node's admin API. Each request is one connection, so that it never delays a node that stops."""

    def __init__(self, *, path: Path | None = None, url: str = "", token: str = "") -> None:
        self.verbatim = False
        """True: answers stay as they are, to be printed as JSON. False: every text in them is made fit for a terminal, because
        a party may have written it."""
        self._path = path
        self._url = url
        self._token = token

    def __repr__(self) -> str:
        return f"<AdminClient {self.where}>"

    @property
    def where(self) -> str:
        """The path or URL of the node, for messages."""
        return str(self._path) if self._path is not None else self._url

    def get(self, path: str) -> Json:
        """GET. Raises CtlError."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Json | None = None) -> Json:
        """POST. Raises CtlError."""
        return self._ask("POST", path, body or {})

    def put(self, path: str, body: Json) -> Json:
        """PUT. Raises CtlError."""
        return self._ask("PUT", path, body)

    def _ask(self, method: str, path: str, body: Json | None) -> Json:
        connection, prefix = self._connection()
        headers = {"accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            sent = json.dumps(body).encode() if body is not None else None
            connection.request(method, f"{prefix}/v1/admin/{path}", sent, headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = printable(str(error)) or type(error).__name__
            raise CtlError(f"{self.where} does not answer: {why}", ExitCode.UNAVAILABLE) from None
        finally:
            connection.close()
        return self._answer(status, text)

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        if self._path is not None:
            return _UnixConnection(self._path), ""
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CtlError(f"expected a URL such as http://127.0.0.1:8081, got {self._url!r}", ExitCode.USAGE)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=TIMEOUT_S), parts.path.rstrip("/")

    def _answer(self, status: int, text: bytes) -> Json:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CtlError(f"{self.where} is no signald: it answers {status}", ExitCode.NO_SIGNALD)
        if status < 400 and self.verbatim:
            return answer
        answer = dict(printable_values(answer))
        if status < 400:
            return answer
        kind = str(answer.get("type", "")).removeprefix("urn:signald:problem:")
        raise CtlError(
            "\n".join([str(answer.get("detail", status)), *_problems(answer)]),
            _KINDS.get(kind) or _STATUSES.get(status, ExitCode.SOFTWARE if status >= 500 else ExitCode.USAGE),
            kind,
        )


def _problems(answer: Json) -> list[str]:
    """Return the problems of a configuration, one line each."""
    problems = answer.get("problems")
    lines = [one for one in problems if isinstance(one, dict)] if isinstance(problems, list) else []
    return [": ".join(str(one[name]) for name in ("where", "key", "message") if one.get(name)) for one in lines]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("signald", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_node(node: str, url: str, token_file: Path | None, env: Mapping[str, str]) -> AdminClient:
    """Return the node that is meant: the URL, or the socket, of that path or name; "" means the only one of this host.

    Raises CtlError when none, or more than one, may be meant.
    """
    if url:
        return AdminClient(url=url, token=read_token(token_file, env))
    node = node or env.get("SIGNALD_SOCKET", "")
    if "/" in node:
        return AdminClient(path=Path(node))
    answering = [path for path in admin_sockets(env) if _answers(path)]
    meant = [path for path in answering if not node or path.stem in (node, short_name(node))] or [
        path for path in answering if path.stem.startswith(node)
    ]
    if len(meant) == 1:
        return AdminClient(path=meant[0])
    names = ", ".join(path.stem for path in meant or answering)
    if meant:
        raise CtlError(f"several nodes run here ({names}): say which with --node", ExitCode.USAGE)
    if node:
        raise CtlError(f"no node {node!r} runs here" + (f"; there are {names}" if names else ""), ExitCode.UNAVAILABLE)
    raise CtlError("no node runs here, or you may not ask it: try --url, or sudo", ExitCode.UNAVAILABLE)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def read_token(path: Path | None, env: Mapping[str, str]) -> str:
    """Return the admin token, of a file or of SIGNALD_ADMIN_TOKEN. Raises CtlError when the file cannot be read."""
    if path is None:
        return env.get("SIGNALD_ADMIN_TOKEN", "")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CtlError(f"{path} cannot be read: {error}", ExitCode.NO_INPUT) from None
