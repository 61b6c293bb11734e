"""The section `[blobs]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class BlobsConfig:
    """Blobs, such as voice messages: where their bytes lie, and how many of them."""

    url: str = key(
        "",
        "file:PATH (a directory of signald's own, relative to the working directory), s3://BUCKET/PREFIX, memory: (with a memory "
        "store), or off. Empty: beside the SQLite file, with .blobs behind its name; with Redis none, as its nodes may share no disk.",
    )
    endpoint: str = key(
        "",
        "S3 only: the URL of another service than AWS, such as https://minio.example:9000. Buckets are part of the path there.",
        unit="URL",
    )
    region: str = key("us-east-1", "S3 only: the region of the bucket, which signatures name.")
    credentials: Literal["keys", "environment"] = key(
        "keys",
        "S3 only: keys takes access_key and secret_key alone. environment takes what AWS gives a process: AWS_ACCESS_KEY_ID and its "
        "kin, a web identity, or the role of the machine.",
    )
    access_key: str = key("", "S3 only: the id of the access key.", secret=True)
    access_key_file: str = key("", "File that holds the id instead. Excludes access_key.", unit="path")
    secret_key: str = key("", "S3 only: the secret of the access key.", secret=True)
    secret_key_file: str = key("", "File that holds the secret instead. Excludes secret_key.", unit="path")
    spool_directory: str = key(
        "",
        "S3 only: where an upload waits until it is whole, up to uploads_in_progress_max x bytes_max. On a disk: in a tmpfs it "
        "would take memory. Empty: $CACHE_DIRECTORY, which systemd sets, else the temporary directory of the system.",
        unit="path",
    )
    bytes_max: int = key(
        10_485_760,
        "Longest blob; a longer one is answered 413. Ten minutes of speech in Opus are 2 MiB, in 128 kbit/s MP3 9 MiB.",
        unit="bytes",
        at_least=1024,
        at_most=5_368_709_120,
        reload=True,
    )
    principal_bytes_max: int = key(
        1_073_741_824,
        "All blobs of one principal, or of one anonymous session; one more is refused. Five hundred voice messages of ten minutes.",
        unit="bytes",
        at_least=1024,
        reload=True,
    )
    keep_s: float = key(
        2_592_000.0,
        "How long a blob is kept: 30 days.",
        unit="seconds",
        at_least=1,
        reload=True,
    )
    redirect: bool = key(
        False,
        "S3 only: answer a download with a redirect to a signed URL of the endpoint, so that the bytes do not go through the node. The "
        "client must reach the endpoint.",
        reload=True,
    )
    uploads_in_progress_max: int = key(
        64,
        "Uploads under way at once at this node; one more is answered 503. Each holds 64 KiB, a file, and two descriptors.",
        unit="uploads",
        at_least=1,
        reload=True,
    )
    uploads_of_principal_max: int = key(
        8,
        "Of them, those of one principal or anonymous session; one more is answered 429.",
        unit="uploads",
        at_least=1,
        reload=True,
    )
    downloads_in_progress_max: int = key(
        64,
        "Downloads through this node at once; one more is answered 503. Each holds up to two pieces of 64 KiB.",
        unit="downloads",
        at_least=1,
        reload=True,
    )
    threads: int = key(
        16,
        "Calls of S3 at once; more wait. With a service that answers in 20 ms, 16 carry 50 MiB/s. A directory takes two at once.",
        unit="threads",
        at_least=1,
        at_most=256,
    )
    timeout_s: float = key(
        10.0,
        "S3 only: for one request, its body of at most 5 MiB included; it is tried twice. An abandoned call ends with it, within the "
        "minute after which the bytes of a lost upload are deleted.",
        unit="seconds",
        at_least=0.1,
        at_most=25,
    )
