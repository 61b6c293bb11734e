"""Fetching a document from a real server on loopback, and from servers that mean harm."""

import ssl
from pathlib import Path

import pytest

from signald.http.fetch import Fetched, Fetcher, FetchFailed
from tests.http.servers import HEAD, Speak, says, server
from tests.real.authority import Authority

pytestmark = pytest.mark.real


async def outcome(speak: Speak, timeout_s: float = 5.0) -> Fetched | str:
    """Fetch from a server that speaks so; return the document, or why there is none."""
    fetcher = await Fetcher.make(timeout_s=timeout_s, bytes_max=10_000)
    async with server(speak) as url:
        try:
            return await fetcher.get(url, "application/json")
        except FetchFailed as error:
            why = str(error)
    assert "hunter2" not in why
    return why


@pytest.mark.parametrize(
    ("headers", "max_age_s"),
    [
        (b"", None),
        (b"cache-control: public, max-age=77\r\n", 77),
        (b'Cache-Control: MAX-AGE="5"\r\n', 5),
        (b"cache-control: s-maxage=9\r\n", None),
        (b"cache-control: no-store, max-age=77\r\n", 0),
        (b"cache-control: no-cache\r\n", 0),
        (b"cache-control: max-age=soon\r\n", None),
        (b"cache-control: max-age=99999999999999999999\r\n", None),
        (b"cache-control: public\r\ncache-control: max-age=3\r\n", 3),
    ],
)
async def test_a_document_and_its_life(headers: bytes, max_age_s: int | None) -> None:
    """The body comes whole, with what Cache-Control says of it."""
    for body in (b"content-length: 2\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"\r\n{}"):
        assert await outcome(says(HEAD + headers + body)) == Fetched(b"{}", max_age_s)


@pytest.mark.parametrize(
    ("speak", "said"),
    [
        (says(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"), "redirect"),
        (says(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), "500"),
        (says(b"HTTP/1.1 204 Nothing\r\n\r\n"), "204"),
        (says(HEAD + b"content-length: 20000\r\n\r\n" + b"x" * 20_000), "more than 10000 bytes"),
        (says(HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"5\r\nxxxxx\r\n"] * 9000), "more than 10000 bytes"),
        (says(HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"), "compressed"),
        (says(HEAD + b"content-length: 200\r\n\r\n{}"), "does not answer"),
        (says(HEAD + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n"), "does not answer"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "does not answer"),
        (says(), "does not answer"),
    ],
)
async def test_a_server_that_answers_otherwise(speak: Speak, said: str) -> None:
    """A redirect is not followed, and nothing that is too long, cut, compressed or no HTTP becomes a document."""
    assert said in str(await outcome(speak))


@pytest.mark.parametrize(
    "speak",
    [
        says(stays=True),
        says(HEAD, stays=True),
        says(*[b"H"] * 50, every_s=0.05),
        says(HEAD + b"content-length: 200\r\n\r\n", *[b"x"] * 200, every_s=0.05),
        says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 200, every_s=0.05),
    ],
)
async def test_the_deadline_is_for_the_whole(speak: Speak) -> None:
    """A server that is mute, or sends a byte at a time, ends at the deadline."""
    assert "within 0.3 s" in str(await outcome(speak, 0.3))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://name.invalid/", "http://a..b/", f"http://{'a' * 300}/"])
async def test_a_host_that_is_not_there(url: str) -> None:
    """Refused, unknown and impossible names fail as any other server."""
    fetcher = await Fetcher.make(timeout_s=5.0, bytes_max=10)
    with pytest.raises(FetchFailed):
        await fetcher.get(url, "application/json")


async def test_https_is_verified(tmp_path: Path) -> None:
    """A server whose certificate no authority has signed gives no document, and the reason says so."""
    authority, certificate, key = Authority(tmp_path, "ours"), tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.issue(certificate, key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    for trusts, said in ((False, "certificate verify failed"), (True, "{}")):
        fetcher = await Fetcher.make(timeout_s=5.0, bytes_max=10)
        if trusts:
            fetcher.tls.load_verify_locations(authority.file)
        async with server(says(HEAD + b"\r\n{}"), tls) as url:
            try:
                found = (await fetcher.get(url, "application/json")).body.decode()
            except FetchFailed as error:
                found = str(error)
        assert said in found


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy set for other programs of the machine does not see which keys are fetched."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert await outcome(says(HEAD + b"\r\n{}")) == Fetched(b"{}", None)
