"""The opening handshake, without I/O: request bytes in, an answer out.

wsproto (over h11) parses the request and builds the 101. wsproto leaves two things to its user: limits on the request
line and headers, before any parser sees them; and the status that fits each mistake, where wsproto knows only 400.
Of the extensions that a client offers only permessage-deflate is read, and only where the operator wants it (`net.compression`).

Neither the query nor a credential is ever part of a reason, an error or a repr: bodies are constant texts.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import parse_qsl

import attrs
import h11
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from signald.heads import END_OF_HEAD, cookies_in, path_of, size_problem
from signald.net.admission import Refusal
from signald.net.compression import Terms, agree
from signald.net.settings import NetSettings

BEARER_PREFIX = "signald.bearer."
"""A browser cannot set headers, so its credential may come as an offered subprotocol, base64url without padding."""

_REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    414: b"URI Too Long",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_ORIGIN = re.compile(rb"[a-z][a-z0-9+.-]{0,19}://[A-Za-z0-9.:\[\]_-]{1,180}|null")
"""Origins that a browser sends and an operator may want to allow. Any other is never repeated, as it may be anything."""
_CREDENTIALS = frozenset({"auth", "authorization", "bearer", "jwt"})
_ONCE = frozenset({b"authorization", b"origin", b"sec-websocket-key", b"sec-websocket-version", b"upgrade"})


@attrs.frozen
class Handshake:
    """A request to open a WebSocket that may be accepted."""

    path: str
    route: str
    """The route of the endpoint that the path fits."""
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)
    """Names in lower case; without Host, Sec-WebSocket-Extensions and Sec-WebSocket-Protocol."""
    subprotocol: str | None
    """`signald.v1` when the client offered it."""
    bearer: str | None = attrs.field(repr=False)
    origin: str | None
    compression: Terms | None = attrs.field(default=None, kw_only=True)
    """What was agreed on; None: no message is deflated."""
    remainder: bytes = attrs.field(repr=False)
    """The bytes after the request: the beginning of the client's frames."""

    def header(self, name: bytes) -> str | None:
        """Return the header called `name` (lower case), joined by commas when it is there more than once, or None."""
        values = [value.decode("latin-1") for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


class OtherPath(Exception):
    """The first request of a connection opens no WebSocket: its path is no endpoint."""

    def __init__(self, received: bytes) -> None:
        """Keep all that the peer has sent so far: at least the path, and possibly more than one request."""
        super().__init__("the path is no endpoint")
        self.received = received


class HandshakeRefused(Exception):
    """The request is answered with `response`, and the connection is closed."""

    def __init__(self, response: bytes, status: int, said: str = "", remote: str = "") -> None:
        """Keep the whole HTTP `response` and its `status`; for the log, the origin that the peer `said`, and its address."""
        super().__init__(f"refused with {status}")
        self.response = response
        self.status = status
        self.said = said
        self.remote = remote

    @property
    def reason(self) -> str:
        """The constant text of the answer."""
        return self.response.rpartition(b"\r\n")[2].decode().strip()


def response(status: int, reason: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return a whole HTTP/1.1 response that ends the connection; `reason` is a constant text, never the peer's."""
    body = reason.encode() + b"\n"
    lines = [
        b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"Refused")),
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *(b"%s: %s" % pair for pair in headers),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refuse(refusal: Refusal, remote: str = "") -> HandshakeRefused:
    """Return the exception that answers `remote` with `refusal`; retry hints are rounded up to whole seconds for HTTP."""
    headers = []
    if refusal.retry_after_ms:
        headers.append((b"Retry-After", b"%d" % -(-refusal.retry_after_ms // 1000)))
    if refusal.status == 401:
        headers.append((b"WWW-Authenticate", b'Bearer error="invalid_token"'))
    return HandshakeRefused(response(refusal.status, refusal.reason, headers), refusal.status, remote=remote)


class HandshakeReader:
    """Collects one request and judges it. Keeps at most `HEAD_BYTES_MAX` bytes and what came with the last read."""

    def __init__(self, settings: NetSettings, *, plain: bool = False) -> None:
        """Judge by `settings.endpoints` and `settings.allowed_origins`.

        With `plain` a request to any other path is not judged; without, it is refused with 404.
        """
        self._settings = settings
        self._plain = plain
        self.forwarded: str | None = None
        """X-Forwarded-For of the request, also of one that was refused, once its head could be read."""
        self._received = bytearray()
        self._wsproto = H11Handshake(ConnectionType.SERVER)

    def feed(self, data: bytes) -> Handshake | None:
        """Return the handshake once the request is complete, None before.

        Raises HandshakeRefused with the answer, and OtherPath when the request is not judged.
        """
        seen = max(0, len(self._received) - 3)
        self._received += data
        end = END_OF_HEAD.search(self._received, seen)
        head = bytes(self._received[: end.end()]) if end is not None else bytes(self._received)
        too_large = size_problem(head)
        if self._plain and (end is not None or too_large is not None):
            path = path_of(head)
            if path is not None and path not in self._settings.endpoints:
                raise OtherPath(bytes(self._received))
        if too_large is not None:
            raise HandshakeRefused(response(*too_large), too_large[0])
        if end is None:
            return None
        remainder = bytes(self._received[end.end() :])
        return self._judge(self._parse(head), remainder)

    def accept(self, handshake: Handshake) -> bytes:
        """Return the 101 for `handshake`."""
        terms = handshake.compression
        headers = [(b"Sec-WebSocket-Extensions", terms.said.encode())] if terms is not None else []
        return self._wsproto.send(AcceptConnection(subprotocol=handshake.subprotocol, extra_headers=headers))

    def _parse(self, head: bytes) -> Request:
        try:
            self._wsproto.receive_data(head)
            (request,) = self._wsproto.events()
        except (RemoteProtocolError, ValueError):  # wsproto lets UnicodeError through, a ValueError
            raise self._diagnosis(head) from None
        assert isinstance(request, Request)
        return request

    @staticmethod
    def _diagnosis(head: bytes) -> HandshakeRefused:
        """Return the answer to a request that wsproto would only call bad."""
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            event = None
        if isinstance(event, h11.Request):
            headers = dict(event.headers)
            if event.method != b"GET":
                return HandshakeRefused(response(405, "only GET opens a WebSocket", [(b"Allow", b"GET")]), 405)
            if headers.get(b"upgrade", b"").lower() != b"websocket":
                return HandshakeRefused(response(426, "this is a WebSocket", [(b"Upgrade", b"websocket")]), 426)
            if headers.get(b"sec-websocket-version", b"13") != b"13":
                return HandshakeRefused(response(426, "version not spoken", [(b"Sec-WebSocket-Version", b"13")]), 426)
        return HandshakeRefused(response(400, "not a WebSocket handshake"), 400)

    def _judge(self, request: Request, remainder: bytes) -> Handshake:
        headers = tuple(request.extra_headers)
        values = dict(headers)
        path, _, query = request.target.partition("?")
        hops = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        self.forwarded = ", ".join(hops) or None
        route = self._settings.endpoints.route(path)
        if route is None:
            raise HandshakeRefused(response(404, "nothing here"), 404)
        endpoint = self._settings.endpoints[route]
        if len(values) < len(headers) and any(
            name in _ONCE for name, count in Counter(name for name, _ in headers).items() if count > 1
        ):
            raise HandshakeRefused(response(400, "a header stands twice"), 400)
        if query and any("token" in key.lower() or key.lower() in _CREDENTIALS for key, _ in parse_qsl(query, True)):
            raise HandshakeRefused(response(400, "credentials do not belong in a URL"), 400)
        if values.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in values:
            raise HandshakeRefused(response(400, "a handshake has no body"), 400)
        if not _is_key(values[b"sec-websocket-key"]):
            raise HandshakeRefused(response(400, "not a WebSocket key"), 400)
        origin = values.get(b"origin")
        allowed = self._settings.allowed_origins
        if origin is not None and "*" not in allowed and origin.decode("latin-1") not in allowed:
            said = origin.decode("latin-1") if _ORIGIN.fullmatch(origin) else ""
            raise HandshakeRefused(response(403, "origin not allowed"), 403, said=said)
        return Handshake(
            path=path,
            route=route,
            headers=headers,
            subprotocol=next((one for one in endpoint.subprotocols if one in request.subprotocols), None),
            bearer=_bearer(values.get(b"authorization"), request.subprotocols) or self._of_cookie(headers, origin),
            origin=origin.decode("latin-1") if origin is not None else None,
            compression=agree((str(offer) for offer in request.extensions), self._settings.compression),
            remainder=remainder,
        )

    def _of_cookie(self, headers: Iterable[tuple[bytes, bytes]], origin: bytes | None) -> str | None:
        """Return the credential in the cookie of a page that is listed; raises HandshakeRefused 400 when it stands twice.

        A browser adds it to the requests of any page, so `*` admits none. A page of a neighbouring host may have set a second one.
        """
        name = self._settings.cookie_name
        if not name or origin is None or origin.decode("latin-1") not in self._settings.allowed_origins:
            return None
        found = cookies_in(headers, name)
        if len(found) > 1:
            raise HandshakeRefused(response(400, "the cookie stands twice"), 400)
        return found[0] if found else None


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def _bearer(authorization: bytes | None, subprotocols: Iterable[str]) -> str | None:
    """Return the credential, if there is one; raises HandshakeRefused 400 when it is there and cannot be read."""
    if authorization is not None:
        scheme, _, credential = authorization.decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":  # another scheme is meant for another program, such as a proxy
            return credential.strip() or None
    for offered in subprotocols:
        if offered.startswith(BEARER_PREFIX):
            coded = offered.removeprefix(BEARER_PREFIX)
            try:
                return base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True).decode()
            except ValueError:  # binascii.Error and UnicodeDecodeError are both
                raise HandshakeRefused(response(400, "bearer subprotocol is not base64url"), 400) from None
    return None
