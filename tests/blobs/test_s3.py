"""Media in S3: what obstore does by itself and must not, a service that hangs, refuses or lies, and what an error says.

The hostile services are tasks of the test on loopback: the call of obstore blocks a thread, never the loop.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from signald.blobs.media import PIECE_BYTES
from signald.blobs.open import open_media
from signald.blobs.s3 import PART_BYTES, SMALL_BYTES, S3Media, make_store, open_s3, spool_directory
from signald.config import BlobsConfig, Config, ConfigError
from signald.errors import MediaAway, MediaError, MediaMissing, ResourceRefused
from tests.blobs.conftest import s3_config
from tests.blobs.test_contract import KEY, get, noise, put

pytestmark = pytest.mark.real

GUARD_S = 60
"""Ends a test that hangs. No test judges how fast a call is."""

Answer = Callable[[str, trio.SocketStream], Awaitable[None]]


@attrs.define
class Service:
    """A service of the test: what it was asked, and where it is."""

    port: int = 0
    heads: list[str] = attrs.field(factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def service(answer: Answer) -> AsyncIterator[Service]:
    """Serve on loopback: `answer` gets the head of each request, and the connection."""
    found = Service()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            data = b""
            while part := await stream.receive_some(65_536):
                data += part
                while b"\r\n\r\n" in data:
                    head, _, data = data.partition(b"\r\n\r\n")
                    text = head.decode()
                    found.heads.append(text)
                    await answer(text, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        listeners = [one for one in listeners if one.socket.family == trio.socket.AF_INET]
        found.port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(GUARD_S):
            yield found
        nursery.cancel_scope.cancel()


async def mute(_head: str, _stream: trio.SocketStream) -> None:
    """Never answer."""
    await trio.sleep_forever()


def saying(status: str, body: bytes = b"", **headers: str) -> Answer:
    """Answer each request alike."""
    lines = [
        f"HTTP/1.1 {status}",
        f"content-length: {len(body)}",
        'etag: "x"',
        "last-modified: Mon, 30 Nov 2026 16:06:10 GMT",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def answer(_head: str, stream: trio.SocketStream) -> None:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    return answer


async def ranged(head: str, stream: trio.SocketStream) -> None:
    """Answer a range of an object of zeros, without an end."""
    (wanted,) = [line.partition("=")[2] for line in head.lower().split("\r\n") if line.startswith("range:")]
    first, last = map(int, wanted.split("-"))
    body, total = bytes(last + 1 - first), last + 1_000_000
    await saying("206 Partial Content", body, content_range=f"bytes {first}-{last}/{total}")(head, stream)


@asynccontextmanager
async def media_at(endpoint: str, spool: Path, **more: object) -> AsyncIterator[S3Media]:
    """Open media at a service of the test, which gets little time."""
    async with open_s3(s3_config(endpoint, **{"timeout_s": 0.2, **more}), spool=spool) as media:
        yield media


# Trap 1: an http endpoint needs leave, and the bucket stands in the path.


async def test_an_endpoint_has_the_bucket_in_its_path(tmp_path: Path) -> None:
    """A name in front of an address would be no address."""
    async with service(ranged) as s3, media_at(s3.endpoint, tmp_path) as media:
        await get(media, KEY, 0, 2)
    assert s3.heads[0].startswith(f"GET /voice/pre/fix/{KEY} HTTP/1.1\r\n")


async def test_a_delete_is_that_of_one_object(tmp_path: Path) -> None:
    """The delete of many objects in one request is not known to every service."""
    async with service(saying("204 No Content")) as s3, media_at(s3.endpoint, tmp_path) as media:
        await media.delete(KEY)
    assert s3.heads[0].startswith(f"DELETE /voice/pre/fix/{KEY} HTTP/1.1\r\n")


async def test_a_secure_endpoint_is_never_asked_without_tls(tmp_path: Path) -> None:
    """A service without TLS at an https endpoint gets no request that it could read."""
    async with service(ranged) as s3, media_at(s3.endpoint.replace("http:", "https:"), tmp_path) as media:
        with pytest.raises(MediaAway):
            await get(media, KEY, 0, 2)
    assert s3.heads == []


# Traps 2 and 3: time-outs and retries.


async def test_a_service_that_fails_is_asked_twice(tmp_path: Path) -> None:
    """obstore would ask eleven times."""
    async with service(saying("500 Oops")) as s3, media_at(s3.endpoint, tmp_path, timeout_s=10) as media:
        with pytest.raises(MediaAway):
            await get(media, KEY, 0, 2)
    assert len(s3.heads) == 2


async def test_a_service_that_never_answers_is_away(tmp_path: Path) -> None:
    """Reads, writes of any size, deletes: each ends by its time-out, and is counted."""
    async with service(mute) as s3, media_at(s3.endpoint, tmp_path) as media:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: get(media, KEY, 0, 2),
            lambda: put(media, KEY, b"small"),
            lambda: put(media, KEY, noise(SMALL_BYTES + 1)),
            lambda: media.delete(KEY),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(MediaAway):
                await call()
            assert media.counts.failed == number + 1
    assert s3.heads


async def test_a_reader_that_is_slower_than_the_time_out_gets_all(tmp_path: Path) -> None:
    """Each piece is a request of its own: the time-out is for a piece, and not for the reader's pace."""
    async with service(ranged) as s3, media_at(s3.endpoint, tmp_path) as media:
        count = 0
        async with aclosing(media.read(KEY, 0, 3 * PIECE_BYTES)) as pieces:
            async for piece in pieces:
                count += len(piece)
                await trio.sleep(0.3)
    assert count == 3 * PIECE_BYTES
    wanted = [line for head in s3.heads for line in head.lower().split("\r\n") if line.startswith("range:")]
    assert wanted == [f"range: bytes={at * PIECE_BYTES}-{(at + 1) * PIECE_BYTES - 1}" for at in range(3)]


# Trap 4: a cancel.


async def test_a_cancelled_call_is_left_behind_counted_and_bounded(tmp_path: Path) -> None:
    """The caller goes on while the service is mute; with all threads abandoned, others are put off; then all are free again."""
    async with service(mute) as s3, media_at(s3.endpoint, tmp_path, timeout_s=2, threads=2) as media:
        for number in range(2):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(get, media, KEY, 0, 2)
                    while len(s3.heads) <= number:  # noqa: ASYNC110 - the other end is a thread
                        await trio.sleep(0.01)
                    scope.cancel()
            assert media.counts.abandoned == number + 1
        with trio.move_on_after(0.05) as scope:
            await get(media, KEY, 0, 2)
        assert scope.cancelled_caught
        assert (media.counts.abandoned, media.counts.abandoned_total) == (2, 2)
        while media.counts.abandoned:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert media.counts.failed == 0


async def test_an_upload_that_is_cancelled_on_its_way_leaves_nothing(tmp_path: Path, s3: BlobsConfig) -> None:
    """At each moment: while it waits for the upload before it, and within its own requests."""
    async with open_s3(s3, spool=tmp_path) as media:
        for wait_s in (0.0, 0.001, 0.01, 0.05, 0.1):
            with trio.move_on_after(wait_s):
                async with trio.open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(put, media, f"{KEY}-{number}", noise(2 * PART_BYTES), 1_000_000)
            with trio.fail_after(GUARD_S):
                while media.counts.abandoned:  # noqa: ASYNC110
                    await trio.sleep(0.01)
        for number in range(3):
            with pytest.raises(MediaMissing):
                await get(media, f"{KEY}-{number}", 0, 2)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - in an async function


# Traps 5 and 6: the environment.

IN_ENVIRONMENT = """
import json, os, sys, trio
from pathlib import Path
from signald.blobs.s3 import open_s3
from signald.config import BlobsConfig
async def main():
    said = json.load(sys.stdin)
    async with open_s3(BlobsConfig(**said["media"]), spool=Path(said["spool"])) as media:
        async for piece in media.read("k", 0, 2):
            print(len(piece), os.environ.get("HTTP_PROXY"))
trio.run(main)
"""


async def in_environment(blobs: BlobsConfig, spool: Path, **env: str) -> str:
    """Read two bytes in a process with further variables: obstore keeps what its first client has seen."""
    media = {field.name: getattr(blobs, field.name) for field in attrs.fields(BlobsConfig)}
    done = await trio.run_process(
        [sys.executable, "-c", IN_ENVIRONMENT],
        stdin=json.dumps({"media": media, "spool": str(spool)}).encode(),
        capture_stdout=True,
        env={**os.environ, **env},
    )
    return done.stdout.decode().strip()


async def test_a_proxy_of_the_environment_is_not_used_and_stays_for_others(tmp_path: Path) -> None:
    """In any spelling, and beside exceptions that would not help."""
    async with service(ranged) as s3, service(mute) as proxy:
        names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
        env = dict.fromkeys(names, proxy.endpoint)
        assert await in_environment(s3_config(s3.endpoint), tmp_path, **env) == f"2 {proxy.endpoint}"
        assert proxy.heads == []


async def test_no_variable_of_aws_changes_a_request(tmp_path: Path) -> None:
    """Neither another endpoint, nor a token, nor another way to write the address."""
    async with service(ranged) as s3, service(mute) as other:
        env = {
            "AWS_ENDPOINT": other.endpoint,
            "AWS_ENDPOINT_URL": other.endpoint,
            "AWS_ENDPOINT_URL_S3": other.endpoint,
            "aws_endpoint": other.endpoint,
            "AWS_SESSION_TOKEN": "token-of-another",
            "AWS_ACCESS_KEY_ID": "key-of-another",
            "AWS_SECRET_ACCESS_KEY": "secret-of-another",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REQUEST_PAYER": "true",
            "AWS_REGION": "eu-central-1",
        }
        await in_environment(s3_config(s3.endpoint), tmp_path, **env)
        assert other.heads == []
    (head,) = s3.heads
    assert "Credential=S3RVER/" in head
    assert "/us-east-1/s3/" in head
    for word in ("another", "x-amz-security-token", "x-amz-request-payer"):
        assert word not in head


async def test_credentials_of_the_environment_are_taken_when_the_operator_says_so(tmp_path: Path) -> None:
    """Those alone: an endpoint beside them leads nowhere."""
    async with service(ranged) as s3, service(mute) as other:
        blobs = s3_config(s3.endpoint, credentials="environment", access_key="", secret_key="")
        env = {"AWS_ACCESS_KEY_ID": "of-aws", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "passing"}
        await in_environment(blobs, tmp_path, **env, AWS_ENDPOINT=other.endpoint, HTTP_PROXY=other.endpoint)
        assert other.heads == []
    (head,) = s3.heads
    assert "Credential=of-aws/" in head
    assert "x-amz-security-token: passing" in head


def test_half_a_credential_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore would look for another way to a credential, and wait for a service that is not there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-aws")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY is not set") as caught:
        make_store(s3_config("http://127.0.0.1:9", credentials="environment", access_key="", secret_key=""))
    assert "of-aws" not in str(caught.value)


# Trap 7: signed URLs.


async def test_a_signed_url_reads_the_object_for_a_while(tmp_path: Path, s3: BlobsConfig) -> None:
    """It answers ranges, names the type of the upload, and is for a download. s3rver checks no signature: this shows the flow alone."""
    async with open_s3(s3, spool=tmp_path) as media:
        for size in (100, SMALL_BYTES + 1):
            async with media.write(KEY, content_type="audio/ogg") as writing:
                await writing.send(noise(size))
                await writing.finish()
            url = await media.signed_url(KEY, ttl_s=60)
            assert url is not None
            assert url.startswith(f"{s3.endpoint}/voice/pre/fix/{KEY}?")
            assert "X-Amz-Expires=60&" in url
            assert s3.secret_key not in url.replace("Credential=S3RVER", "")
            request = urllib.request.Request(url, headers={"Range": "bytes=5-9"})
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with await trio.to_thread.run_sync(opener.open, request) as answer:
                assert (answer.status, answer.read()) == (206, noise(size)[5:10])
                assert answer.headers["Content-Type"] == "audio/ogg"
                assert answer.headers["Content-Disposition"] == "attachment"


# Trap 8: errors.


async def test_an_error_is_one_line_without_a_key(tmp_path: Path) -> None:
    """What the service writes into its answer, and the credential, stay out."""
    body = b"<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId><Code>AccessDenied</Code>"
    async with service(saying("403 Forbidden", body)) as s3:
        more = {"access_key": "AKIAEXAMPLE", "secret_key": "wJalrXUtnFEMI"}
        async with media_at(s3.endpoint, tmp_path, **more) as media:
            for call in (lambda: get(media, KEY, 0, 2), lambda: put(media, KEY, b"x"), lambda: media.delete(KEY)):
                with pytest.raises(MediaAway) as caught:
                    await call()
                said = str(caught.value)
                assert "403" in said
                assert len(said) <= 300
                assert not any(word in said for word in ("\n", "AKIAEXAMPLE", "wJalrXUtnFEMI", "Signature"))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("404 Not Found", "NoSuchKey", MediaMissing),
        ("404 Not Found", "NoSuchBucket", MediaAway),
        ("416 Range Not Satisfiable", "InvalidRange", MediaMissing),
        ("403 Forbidden", "AccessDenied", MediaAway),
        ("400 Bad Request", "AuthorizationHeaderMalformed", MediaAway),
        ("503 Slow Down", "SlowDown", MediaAway),
        ("301 Moved Permanently", "PermanentRedirect", MediaAway),
        ("200 OK", "", MediaAway),
    ],
)
async def test_what_is_missing_and_what_is_away(tmp_path: Path, status: str, code: str, kind: type[MediaError]) -> None:
    """An object counts as lost only when its service says so. A bucket that is absent, or an answer that is no range, says nothing."""
    answer = saying(status, f"<Error><Code>{code}</Code></Error>".encode())
    async with service(answer) as s3, media_at(s3.endpoint, tmp_path, timeout_s=5) as media:
        with pytest.raises(MediaError) as caught:
            await get(media, KEY, 0, 2)
        assert type(caught.value) is kind, caught.value


async def test_a_service_that_answers_garbage_is_away(tmp_path: Path) -> None:
    """Bytes that are no HTTP, a body that is cut, a close."""

    async def garbage(_head: str, stream: trio.SocketStream) -> None:
        await stream.send_all(b"\x00garbage\r\n\r\n")
        await stream.aclose()

    async def cut(_head: str, stream: trio.SocketStream) -> None:
        await stream.send_all(
            b"HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\ncontent-range: bytes 0-1/9\r\n"
            b"last-modified: Mon, 30 Nov 2026 16:06:10 GMT\r\n\r\n1"
        )
        await stream.aclose()

    async def close(_head: str, stream: trio.SocketStream) -> None:
        await stream.aclose()

    for answer in (garbage, cut, close):
        async with service(answer) as s3, media_at(s3.endpoint, tmp_path) as media:
            with pytest.raises(MediaAway):
                await get(media, KEY, 0, 2)


# The spool, and the opening.


def test_where_uploads_wait() -> None:
    """The configuration comes first, then what systemd gives, then the system's own place."""
    assert spool_directory(BlobsConfig(spool_directory="/a"), {"CACHE_DIRECTORY": "/b"}) == Path("/a")
    assert spool_directory(BlobsConfig(), {"CACHE_DIRECTORY": "/b:/c"}) == Path("/b")
    assert spool_directory(BlobsConfig(), {}).is_dir()


async def test_a_spool_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """No upload has to find it."""
    with pytest.raises(ResourceRefused, match=r"blobs.spool_directory: no file can be made in .*absent"):
        async with open_s3(s3_config("http://127.0.0.1:9"), spool=tmp_path / "absent"):
            pass


async def test_a_service_that_is_away_does_not_hold_up_the_start(tmp_path: Path) -> None:
    """No request is made before the first blob."""
    async with service(mute) as s3:
        blobs = s3_config(s3.endpoint, spool_directory=str(tmp_path))
        async with open_media(attrs.evolve(Config(), blobs=blobs)) as media:
            assert isinstance(media, S3Media)
            assert await media.sweep() == 0
        assert s3.heads == []


# Memory.

MIB = 1 << 20


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_twenty_at_once_hold_less_than_eight_mib(tmp_path: Path, s3: BlobsConfig, kind: str) -> None:
    """Uploads and downloads of 10 MiB each, in a process of their own: what it holds beyond the steady state."""
    media = {name: getattr(s3, name) for name in ("url", "endpoint", "access_key", "secret_key")}
    place = {"directory": str(tmp_path / "blobs")} if kind == "directory" else {"spool": str(tmp_path), "media": media}
    asked = json.dumps({**place, "at_once": 20, "bytes": 10 * MIB})
    done = subprocess.run(
        [sys.executable, "-m", "tests.blobs.held"], input=asked, capture_output=True, text=True, check=True, timeout=300
    )
    held = json.loads(done.stdout)
    assert max(held.values()) < 8 * MIB, held
