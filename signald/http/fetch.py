"""One GET of a small document from a URL that the operator has given: bounded in time and bytes, whatever the server does."""

import re
import ssl
from collections.abc import Mapping
from functools import partial

import attrs
import trio

from signald.http.client import Answer, CallFailed, HttpClient

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_UNCACHED = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,;=])", re.IGNORECASE)


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
        headers = {"accept": accept, "connection": "close"}
        try:
            # The operator may name an inner address. No connection is kept: the next fetch is minutes away.
            async with HttpClient(allow_inner=True, connections_max=1, tls=self.tls) as client:
                answer = await client.get(url, headers, timeout_s=self.timeout_s, bytes_max=self.bytes_max)
        except CallFailed as error:
            raise FetchFailed(str(error)) from None
        _judge(answer)
        return Fetched(answer.body, _max_age(answer.headers))


def _judge(answer: Answer) -> None:
    if 300 <= answer.status < 400:
        raise FetchFailed(f"the answer is {answer.status}: a redirect is not followed, give the URL that it leads to")
    if answer.status != 200:
        raise FetchFailed(f"the answer is {answer.status}")


def _max_age(headers: Mapping[str, str]) -> int | None:
    said = headers.get("cache-control", "")
    if _UNCACHED.search(said):
        return 0
    found = _MAX_AGE.search(said)
    return int(found[1]) if found else None
