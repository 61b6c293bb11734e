"""One GET of a small document from a URL that the operator has given: bounded in time and bytes, whatever the server does.

httpcore is used here and nowhere else, and below this module no setting of it is known. Its time-outs do not end a server that sends
one byte at a time, so one deadline stands around the whole. A redirect is not followed, content is taken as it is
(a packed body could unpack to any size), and no proxy is taken from the environment.
"""

import re
import ssl
from functools import partial
from urllib.parse import urlsplit

import attrs
import httpcore
import trio

_MAX_AGE = re.compile(rb"(?:^|[\s,])max-age=\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_UNCACHED = re.compile(rb"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,;=])", re.IGNORECASE)


class FetchFailed(Exception):
    """There is no document; the text says why and holds no part of the URL but the host."""


@attrs.frozen
class Fetched:
    """A document, and how long the server lets it count as new."""

    body: bytes
    max_age_s: int | None
    """None: the server does not say it; 0: not at all."""


@attrs.frozen
class Fetcher:
    """How documents are fetched. Made once, because reading the certificates of the system takes tens of milliseconds."""

    tls: ssl.SSLContext
    timeout_s: float
    """For the whole: name, connection, answer."""
    bytes_max: int

    @classmethod
    async def make(cls, *, timeout_s: float, bytes_max: int) -> "Fetcher":
        """Make one that trusts what the system trusts; SSL_CERT_FILE and SSL_CERT_DIR say otherwise."""
        tls = await trio.to_thread.run_sync(partial(ssl.create_default_context, ssl.Purpose.SERVER_AUTH))
        return cls(tls, timeout_s, bytes_max)

    async def get(self, url: str, accept: str) -> Fetched:
        """Return the document at `url`. Raises FetchFailed."""
        host = urlsplit(url).hostname or ""
        try:
            with trio.fail_after(self.timeout_s):
                return await self._get(url, accept)
        except trio.TooSlowError:
            raise FetchFailed(f"{host} gives no whole answer within {self.timeout_s:g} s") from None
        except httpcore.TimeoutException as error:  # of one step; the deadline of the whole is hardly later
            raise FetchFailed(f"{host} is too slow: {type(error).__name__}") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
            raise FetchFailed(f"{host} does not answer: {_root(error)}") from None
        except UnicodeError:
            raise FetchFailed("the host is no name") from None

    async def _get(self, url: str, accept: str) -> Fetched:
        headers = [
            ("accept", accept),
            ("accept-encoding", "identity"),
            ("user-agent", "signald"),
            ("connection", "close"),
        ]
        backend = httpcore.TrioBackend()
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self.tls, max_connections=1, network_backend=backend) as pool,
            pool.stream("GET", url, headers=headers) as answer,
        ):
            self._judge(answer)
            body = bytearray()
            # An exception here would leave httpcore's generators half-way, and trio warns of each; a cancellation ends them all.
            with trio.CancelScope() as enough:
                async for piece in answer.aiter_stream():
                    body += piece
                    if len(body) > self.bytes_max:
                        enough.cancel(reason="the document is too long")
            if len(body) > self.bytes_max:
                raise FetchFailed(f"the answer has more than {self.bytes_max} bytes")
            return Fetched(bytes(body), _max_age(answer.headers))

    def _judge(self, answer: httpcore.Response) -> None:
        if 300 <= answer.status < 400:
            raise FetchFailed(
                f"the answer is {answer.status}: a redirect is not followed, give the URL that it leads to"
            )
        if answer.status != 200:
            raise FetchFailed(f"the answer is {answer.status}")
        packed = [value for name, value in answer.headers if name.lower() == b"content-encoding"]
        if any(value.strip().lower() not in (b"", b"identity") for value in packed):
            raise FetchFailed("the answer is compressed, which was not asked for")


def _max_age(headers: list[tuple[bytes, bytes]]) -> int | None:
    said = b", ".join(value for name, value in headers if name.lower() == b"cache-control")
    if _UNCACHED.search(said):
        return 0
    found = _MAX_AGE.search(said)
    return int(found[1]) if found else None


def _root(error: BaseException) -> str:
    """Return the first line of the error below all others: httpcore's own say nothing of a wrong certificate."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).partition("\n")[0][:200] or type(error).__name__
