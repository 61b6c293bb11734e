"""The forms of `blobs.url`: one list for the check of the configuration, and for the opening of the media."""

import re
from urllib.parse import urlsplit

from signald.config.sections import Config
from signald.config.store_urls import scheme_of

FORMS = {"file": "file:PATH", "s3": "s3://BUCKET/PREFIX", "memory": "memory:"}
"""The scheme of each form, and the form as an operator writes it."""

OFF = "off"

# The rules of S3 for the name of a bucket; a prefix of letters that no URL and no path gives a meaning to.
_bucket = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_prefix = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def media_url(config: Config) -> str:
    """Return the URL of the media in force: `blobs.url`, or what goes with the store; "" where there are none."""
    url, store = config.blobs.url, config.store.url
    if url:
        return "" if url == OFF else url
    scheme, _, path = store.partition(":")
    # A cluster on Redis shares no directory that signald could know of.
    return {"sqlite": f"file:{path}.blobs", "memory": "memory:"}.get(scheme, "")


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket of an S3 URL and the prefix of all keys ("" or without a slash at its ends).

    Raises ValueError, which says what is expected.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if (
        not _bucket.fullmatch(parts.netloc)
        or parts.query
        or parts.fragment
        or (prefix and not _prefix.fullmatch(prefix))
    ):
        expected = "expected s3://BUCKET or s3://BUCKET/PREFIX, a bucket in small letters, digits, - and ."
        raise ValueError(f"{expected}, a prefix in letters, digits, _, - and /")
    return parts.netloc, prefix


def media_scheme(config: Config) -> str:
    """Return the scheme of the media in force, "" where there are none."""
    return scheme_of(media_url(config))
