"""A server of S3 on loopback, for all tests of this folder that need one: s3rver, from npm."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from signald.config import BlobsConfig

HERE = Path(__file__).parent / "s3rver"
BUCKET = "voice"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobsConfig]:
    """Start a server with an empty bucket; yields what leads to it."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules").is_dir():
        pytest.skip("needs Node and tests/blobs/s3rver/node_modules, which tests/environment.sh makes")
    kept = tmp_path_factory.mktemp("s3")
    server = subprocess.Popen(
        [node, "server.js", str(kept), BUCKET], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    port = int(server.stdout.readline())
    try:
        yield s3_config(f"http://127.0.0.1:{port}")
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def s3_config(endpoint: str, **more: object) -> BlobsConfig:
    """Return the section of a bucket at `endpoint`; s3rver knows one key."""
    values: dict[str, object] = {
        "url": f"s3://{BUCKET}/pre/fix",
        "endpoint": endpoint,
        "access_key": "S3RVER",
        "secret_key": "S3RVER",
        "timeout_s": 10.0,
    }
    return BlobsConfig(**{**values, **more})  # type: ignore[arg-type]
