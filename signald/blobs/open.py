"""The door to the media: `blobs.url` tells which."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from signald.blobs.media import Media
from signald.blobs.memory import MemoryMedia
from signald.config import Config
from signald.config.media_urls import media_url


@asynccontextmanager
async def open_media(config: Config) -> AsyncIterator[Media | None]:
    """Open the media of `config`; None where there are none, and no request for blobs can be carried out.

    S3 that is away does not hold up the start: no request is made here.

    Raises:
        ResourceRefused: a directory cannot be used; the text names a remedy.
        ConfigError: S3 cannot be used as it is configured.
    """
    scheme, _, rest = media_url(config).partition(":")
    if scheme == "memory":
        yield MemoryMedia()
    elif scheme == "file":
        # Imported here: a signald without blobs does not pay for libraries that it does not use.
        from signald.blobs.directory import open_directory

        async with open_directory(Path(rest), threads=config.blobs.threads) as media:
            yield media
    elif scheme == "s3":
        from signald.blobs.s3 import open_s3

        async with open_s3(config.blobs) as media:
            yield media
    else:
        yield None
