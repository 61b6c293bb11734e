"""Media in a bucket of S3, or of a service that speaks its protocol.

obstore is used here and nowhere else, and its errors become those of the media. Only what this module passes on counts: obstore would
take proxies, endpoints and keys from the environment beside it, and show none.
"""

import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio

from signald.blobs.kept import KeptMedia, MediaSettings
from signald.blobs.media import PIECE_BYTES, check_key
from signald.blobs.spool import SpoolFile, check_spool
from signald.blobs.threads import Lane, Threads
from signald.config import BlobsConfig, ConfigError, Problem
from signald.config.media_urls import bucket_and_prefix
from signald.errors import MediaAway, MediaMissing

PART_BYTES = 5 * 1024 * 1024
"""The least part that S3 takes of a multipart upload; an object of less goes in one request."""

SMALL_BYTES = 256 * 1024
"""An upload of this size is sent from memory beside the large ones: half a minute of speech waits for no file of an hour. With sixteen
threads that is 4 MiB."""

LANE_WAIT_S = 300.0
"""How long a large upload waits for those before it: sixty of 10 MiB at 2 MiB/s. Its bytes are here, and its client decides how long
it waits; the bound is for a service that takes one after the other to its time-out."""

RETRIES = 1
"""obstore retries ten times by default, which made a refused connection take 13 s. The client of signald retries too."""

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)  # fmt: skip
"""What `blobs.credentials = "environment"` takes: nothing that leads requests elsewhere."""

_query = re.compile(r"\?\S*")
_status = re.compile(r".*?status code: [0-9]{3}[^:<]*")
# A range behind the end has no error class of its own; S3 answers it with the status 416 of RFC 9110.
_beyond_end = re.compile(r"status code: 416\b")

ERROR_CHARS_MAX = 300
"""Of a text of obstore in a log line: its first line says what failed."""

_read_by_obstore = re.compile(r"aws_.*|(https?|all|no)_proxy|request_method", re.IGNORECASE)
"""REQUEST_METHOD switches proxies off, as CGI scripts do."""


class S3Media(KeptMedia):
    """Objects of one bucket, below one prefix."""

    def __init__(self, store: Any, settings: MediaSettings, lane: Lane) -> None:
        # A request and its repetition, and the pause between them.
        super().__init__(settings, call_s=(RETRIES + 1) * settings.timeout_s + 1)
        self._store = store
        self._large = Threads(1, wait_s=LANE_WAIT_S, counts=self.counts, start=lane.start)

    def publish_s(self, size: int) -> float:
        """As `KeptMedia.publish_s`: for the parts, and the requests that begin and end them."""
        return self.call_s if size <= SMALL_BYTES else (2 + -(-size // PART_BYTES)) * self.call_s

    def threads_for(self, size: int) -> Threads:
        """As `KeptMedia.threads_for`: small uploads go side by side, and large ones one after the other."""
        return self.threads if size <= SMALL_BYTES else self._large

    def publish(self, file: SpoolFile, key: str, content_type: str) -> None:
        """Send the file. An error aborts a multipart upload; nothing is visible before its end."""
        import obstore

        attributes = {"Content-Type": content_type, "Content-Disposition": "attachment"}
        with obstore_errors():
            if file.size <= SMALL_BYTES:
                obstore.put(self._store, key, file.read(0, file.size), attributes=attributes, use_multipart=False)
                return
            writer = obstore.open_writer(
                self._store, key, attributes=attributes, buffer_size=PART_BYTES, max_concurrency=1
            )
            with writer:
                for at in range(0, file.size, PIECE_BYTES):
                    writer.write(file.read(at, PIECE_BYTES))

    def piece(self, key: str, first: int, buffer: memoryview) -> int:
        """As `KeptMedia.piece`."""
        with obstore_errors():
            found = memoryview(self._store.get_range(key, start=first, end=first + len(buffer)))
        if len(found) <= len(buffer):  # a longer answer is none to this request, and its length says so
            buffer[: len(found)] = found
        return len(found)

    def remove(self, key: str) -> None:
        """As `KeptMedia.remove`."""
        try:
            with obstore_errors():
                self._store.delete(key)
        except MediaMissing:
            return

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:
        """As `Media.signed_url`. In a thread, as credentials of the environment may have to be fetched first."""
        check_key(key)
        return await self.run(partial(self._sign, key, timedelta(seconds=ttl_s)), self.call_s)

    def _sign(self, key: str, ttl: timedelta) -> str:
        import obstore

        with obstore_errors():
            return str(obstore.sign(self._store, "GET", key, ttl))


@asynccontextmanager
async def open_s3(blobs: BlobsConfig, *, spool: Path | None = None) -> AsyncIterator[S3Media]:
    """Open the bucket of `blobs.url`. No request is made: S3 may be away.

    `spool` is the directory of uploads; by default that of the configuration. Raises ConfigError and ResourceRefused.
    """
    settings = MediaSettings(blobs.threads, blobs.timeout_s, spool or spool_directory(blobs, os.environ))

    def make() -> Any:
        check_spool("blobs.spool_directory", settings.spool)
        return make_store(blobs)

    store, lane = await trio.to_thread.run_sync(make), Lane("signald-s3")
    try:
        yield S3Media(store, settings, lane)
    finally:
        lane.close()


def spool_directory(blobs: BlobsConfig, env: Mapping[str, str]) -> Path:
    """Return the directory where uploads wait."""
    return Path(blobs.spool_directory or env.get("CACHE_DIRECTORY", "").partition(":")[0] or tempfile.gettempdir())


def make_store(blobs: BlobsConfig) -> Any:
    """Make the client of obstore. Raises ConfigError, without a credential in its text."""
    bucket, prefix = bucket_and_prefix(blobs.url)
    timeout = timedelta(seconds=blobs.timeout_s)
    options: dict[str, Any] = {
        "region": blobs.region,
        "virtual_hosted_style_request": False,
        "disable_bulk_delete": True,  # one request deletes one object; services beside AWS may know no other
        "client_options": {
            "allow_http": blobs.endpoint.startswith("http://"),
            "timeout": timeout,
            "connect_timeout": timeout / 2,
        },
        "retry_config": {"max_retries": RETRIES, "retry_timeout": (RETRIES + 1) * timeout},
    }
    if blobs.endpoint:
        options["endpoint"] = blobs.endpoint
    if blobs.credentials == "keys":
        options |= {"access_key_id": blobs.access_key, "secret_access_key": blobs.secret_key}
    else:
        _check_environment(os.environ)
    with hidden_environment(keep=CREDENTIALS if blobs.credentials == "environment" else ()):
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        try:
            return S3Store(bucket, prefix=prefix or None, **options)
        except (BaseError, ValueError, OSError) as error:
            raise ConfigError([Problem("", "blobs.url", f"S3 cannot be used: {first_line(error)}")]) from None


def _check_environment(env: Mapping[str, str]) -> None:
    pair = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    missing = [name for name in pair if not env.get(name)]
    if len(missing) == 1:
        problem = f"{missing[0]} is not set in the environment, and the other of the pair is: set both, or none"
        raise ConfigError([Problem("", "blobs.credentials", problem)])


@contextmanager
def hidden_environment(*, keep: tuple[str, ...] = ()) -> Iterator[None]:
    """Hide from obstore what it would take from the environment, while its client is made. Other parts need their proxy after it.

    The process has one environment: this belongs to the start of the daemon, where no other thread makes a client.
    """
    hidden = {
        name: value for name, value in os.environ.items() if _read_by_obstore.fullmatch(name) and name not in keep
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def obstore_errors() -> Iterator[None]:
    """Turn the errors of obstore into those of the media. Their texts have many lines, with endpoints and keys: the first one stays."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        # A bucket that is absent is an error of the set-up: no object of it may be taken for lost.
        raise (MediaAway if "NoSuchBucket" in str(error) else MediaMissing)(first_line(error)) from None
    except (BaseError, OSError, ValueError) as error:
        line = first_line(error)
        raise (MediaMissing if _beyond_end.search(line) else MediaAway)(line) from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text up to its status, without the query of a URL: a signature stands there.

    Behind the status stands the answer of the service, which may repeat the id of the access key.
    """
    line = _query.sub("", str(error).strip().partition("\n")[0])
    told = _status.match(line)
    return (told[0] if told else line).strip()[:ERROR_CHARS_MAX] or type(error).__name__
