"""The HTTP client against servers on loopback that are dead, slow, endless or lie, and its judgement of addresses."""

import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from signald.http import client as client_module
from signald.http.client import REASONS, Answer, CallFailed, HttpClient
from signald.http.dialing import HEAD_BYTES_MAX, is_public
from tests.http.servers import HEAD, Speak, says, server
from tests.real.authority import Authority

pytestmark = pytest.mark.real

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BYTES_MAX = 10_000


async def outcome(speak: Speak, timeout_s: float = 5.0) -> Answer | CallFailed:
    """Post to a server that speaks so; return its answer, or the failure."""
    async with HttpClient(allow_inner=True) as client, server(speak) as url:
        try:
            return await client.post(url, b"{}", {"X-Asked": "yes"}, timeout_s=timeout_s, bytes_max=BYTES_MAX)
        except CallFailed as error:
            failed = error
    assert failed.reason in REASONS
    assert "hunter2" not in str(failed)
    return failed


def forever(head: bytes, piece: bytes) -> Speak:
    """Say a piece again and again, as fast as it is taken."""

    async def speak(stream: trio.abc.Stream) -> None:
        await stream.send_all(head)
        while True:
            await stream.send_all(piece)

    return speak


@pytest.mark.parametrize("status", [200, 204, 302, 410, 429, 500])
async def test_an_answer_of_any_status(status: int) -> None:
    """A status is the caller's to judge; a redirect is an answer as well, and is not followed."""
    head = b"HTTP/1.1 %d X\r\nRetry-After: 7\r\nlocation: http://127.0.0.1:1/\r\nx: a\r\nX: b\r\n" % status
    answer = await outcome(says(head + (b"\r\n" if status == 204 else b"content-length: 2\r\n\r\n{}")))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["retry-after"], answer.headers["x"]) == (status, "7", "a, b")
    assert answer.body == (b"" if status == 204 else b"{}")


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (says(HEAD + b"content-length: 20000\r\n\r\n", stays=True), "too_long"),
        (forever(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"), "too_long"),
        (forever(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"x" * 1000 + b"\r\nx\r\n"), "too_long"),
        (forever(HEAD + b"\r\n", b"x" * 1000), "too_long"),
        (forever(HEAD + b"x: ", b"y" * 1000), "too_long"),
        (forever(b"", CONTINUE), "too_long"),
        (forever(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"), "too_long"),
        (says(HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(bytes(1_000_000))), "compressed"),
        (says(HEAD + b"content-encoding: identity, br\r\ncontent-length: 2\r\n\r\n{}"), "compressed"),
        (says(HEAD + b"content-length: 200\r\n\r\n{}"), "broken"),
        (says(HEAD + b"content-length: 2, 3\r\n\r\n{}"), "broken"),
        (says(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}"), "broken"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "broken"),
        (says(bytes(range(256)) * 4), "broken"),
        (says(), "broken"),
    ],
)
async def test_a_server_that_means_harm(speak: Speak, reason: str) -> None:
    """Nothing that is endless, packed, cut or no HTTP becomes an answer, and none of it waits for the deadline."""
    failed = await outcome(speak, 30.0)
    assert isinstance(failed, CallFailed)
    assert failed.reason == reason, failed


@pytest.mark.parametrize(
    "speak",
    [
        says(stays=True),
        says(HEAD, stays=True),
        says(*[b"H"] * 50, every_s=0.05),
        says(HEAD + b"content-length: 200\r\n\r\n", *[b"x"] * 200, every_s=0.05),
        says(*[CONTINUE] * 200, every_s=0.05),
    ],
)
async def test_the_deadline_is_for_the_whole(speak: Speak) -> None:
    """A server that is mute, or sends a byte at a time, ends at the deadline; a time-out of each step would never end it."""
    failed = await outcome(speak, 0.3)
    assert isinstance(failed, CallFailed)
    assert failed.reason == "slow"


class Endless(trio.abc.Stream):
    """A connection whose peer says 100 Continue without end, faster than it is read."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give as much as is asked for."""
        await trio.lowlevel.checkpoint()
        self.read.append(max_bytes or 1 << 20)
        assert len(self.read) < 1000, "it is read without end"
        return (CONTINUE * (self.read[-1] // len(CONTINUE) + 1))[: self.read[-1]]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Never wait."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_interim_answers_do_not_hold_the_loop() -> None:
    """Interim answers are read in small pieces, with a turn of the loop between, and only as many as a head may have bytes."""
    endless = Endless()

    async def connect(host: str, port: int) -> trio.abc.Stream:
        return endless

    async with HttpClient(connect=connect) as client:
        with pytest.raises(CallFailed, match="wrapped"):
            await client.post("http://core.example/", b"{}", {}, timeout_s=1e6, bytes_max=BYTES_MAX)
    assert sum(endless.read) <= HEAD_BYTES_MAX
    assert max(endless.read) <= 4096
    assert endless.closed


@asynccontextmanager
async def keeping(answers_each: int, late_s: float = 0.0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that closes a connection after so many answers; gives its URL, and the heads of all requests."""
    heads: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            for _ in range(answers_each):
                received = b""
                while b"\r\n\r\n{}" not in received:
                    if not (piece := await stream.receive_some(4096)):
                        return
                    received += piece
                heads.append(received)
                await trio.sleep(late_s)
                await stream.send_all(EMPTY)
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/ask", heads
        nursery.cancel_scope.cancel()


class Counted:
    """Connects as the client does, and counts."""

    def __init__(self) -> None:
        self.connections = 0

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Connect."""
        self.connections += 1
        return await trio.open_tcp_stream(host, port)


async def test_a_connection_is_kept() -> None:
    """Calls one after another use one connection, and their headers are those of the caller and of the client."""
    connect = Counted()
    async with HttpClient(connect=connect) as client, keeping(100) as (url, heads):
        for _ in range(20):
            await client.post(url, b"{}", {"X-Asked": "yes", "Host": "other"}, timeout_s=5.0, bytes_max=10)
    assert connect.connections == 1
    assert len(heads) == 20
    assert url.partition("//")[2].partition("/")[0].encode() in heads[0]
    assert b"x-asked: yes" in heads[0]
    assert b"accept-encoding: identity" in heads[0]
    assert b"other" not in heads[0]


@pytest.mark.parametrize("answers_each", [1, 2])
async def test_a_server_that_closes_kept_connections(answers_each: int) -> None:
    """A connection that was closed while it rested costs no call: the request is sent again on a new one."""
    async with HttpClient(allow_inner=True) as client, keeping(answers_each) as (url, heads):
        for _ in range(30):
            answer = await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)
            assert answer.status == 200
    assert len(heads) == 30


async def test_more_calls_than_connections() -> None:
    """Calls beyond the connections to one server wait within their deadline, and fail no other server's calls."""
    async with (
        HttpClient(allow_inner=True, connections_max=2) as client,
        server(says(stays=True)) as mute,
        keeping(9) as (url, _),
        trio.open_nursery() as nursery,
    ):
        reasons: list[str] = []

        async def ask() -> None:
            with pytest.raises(CallFailed) as failed:
                await client.post(mute, b"{}", {}, timeout_s=0.5, bytes_max=10)
            reasons.append(failed.value.reason)

        for _ in range(5):
            nursery.start_soon(ask)
        await trio.sleep(0.1)
        assert (await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)).status == 200
        assert reasons == []
    assert reasons == ["slow"] * 5


async def test_cancelled_calls_leave_the_client_usable() -> None:
    """Calls that are cancelled at any moment hold no connection."""
    async with HttpClient(allow_inner=True, connections_max=2) as client, keeping(100, 0.002) as (url, _):
        for turn in range(60):
            with trio.move_on_after(turn * 0.0001):
                await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)
        assert (await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)).status == 200


async def test_few_servers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are kept to a bounded number of servers: the one used least loses them."""
    monkeypatch.setattr(client_module, "TARGETS_MAX", 2)
    connect = Counted()
    async with (
        HttpClient(connect=connect) as client,
        keeping(9) as (first, _),
        keeping(9) as (second, _),
        keeping(9) as (third, _),
    ):
        for url in (first, second, first, third, first, second):
            await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)
    assert connect.connections == 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "refused"),
        ("http://name.invalid/", "broken"),
        ("http://a..b/", "bad_url"),
        ("http://[::1/", "bad_url"),
        ("http://h:x/", "bad_url"),
        ("http://h\u00f6st/", "bad_url"),
        ("ftp://127.0.0.1/", "bad_url"),
        ("nothing", "bad_url"),
        ("", "bad_url"),
    ],
)
async def test_a_url_that_leads_nowhere(url: str, reason: str) -> None:
    """Refused, unknown and impossible names fail as any other server."""
    async with HttpClient(allow_inner=True) as client:
        with pytest.raises(CallFailed) as failed:
            await client.get(url, {}, timeout_s=5.0, bytes_max=10)
    assert failed.value.reason in (reason, "refused")


INNER = (
    "127.0.0.1", "localhost", "169.254.169.254", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0", "10.1.2.3", "[::1]", "[fe80::1]",
    "100.64.0.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "[fd00::1]",
)  # fmt: skip


@pytest.mark.parametrize("host", INNER)
async def test_an_inner_address_is_refused(host: str) -> None:
    """However an inner address is written, no connection is made to it."""
    async with HttpClient() as client:
        with pytest.raises(CallFailed) as failed:
            await client.get(f"http://{host}:1/", {}, timeout_s=5.0, bytes_max=10)
    assert failed.value.reason == "inner"


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address(address: str) -> None:
    """What the whole Internet reaches is let through."""
    assert is_public(address)


async def test_the_judged_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once: one that leads elsewhere the second time gains nothing; one inner address refuses the name."""
    asked: list[str] = []

    async with keeping(9) as (url, heads):
        port = int(url.split(":")[2].partition("/")[0])

        def resolve(host: str, _port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            asked.append(host)
            if host == "mixed.example":
                return [(2, 1, 6, "", ("8.8.8.8", 1)), (2, 1, 6, "", ("127.0.0.1", port))]
            return [(2, 1, 6, "", ("127.0.0.1", port if len(asked) == 1 else 1))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        async with HttpClient(allow_inner=True) as client:
            answer = await client.post(f"http://core.example:{port}/", b"{}", {}, timeout_s=5.0, bytes_max=10)
        assert answer.status == 200
        assert asked == ["core.example"]
        assert f"core.example:{port}".encode() in heads[0]
        async with HttpClient() as client:
            with pytest.raises(CallFailed) as failed:
                await client.get("http://mixed.example/", {}, timeout_s=5.0, bytes_max=10)
    assert failed.value.reason == "inner"


async def test_an_address_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next address of a name is tried at once after a refusal."""
    async with keeping(9) as (url, _):
        port = int(url.split(":")[2].partition("/")[0])
        found = [(2, 1, 6, "", ("127.0.0.1", 1)), (2, 1, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        async with HttpClient(allow_inner=True) as client:
            answer = await client.post("http://core.example/", b"{}", {}, timeout_s=5.0, bytes_max=10)
    assert answer.status == 200


async def test_https_is_verified(tmp_path: Path) -> None:
    """A server whose certificate no authority has signed is not told anything, and the reason says so."""
    authority, certificate, key = Authority(tmp_path, "ours"), tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.issue(certificate, key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    answers = says(HEAD + b"content-length: 2\r\n\r\n{}", stays=True)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    for trusted in (None, trusting):
        async with HttpClient(allow_inner=True, tls=trusted) as client, server(answers, tls) as url:
            try:
                said = (await client.post(url, b"{}", {}, timeout_s=5.0, bytes_max=10)).body.decode()
            except CallFailed as error:
                said = f"{error.reason}: {error}"
        assert said.startswith("{}" if trusted else "refused: 127.0.0.1 does not answer")
        assert trusted or "certificate verify failed" in said


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy set for other programs of the machine does not see what a core server is asked."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert isinstance(await outcome(says(EMPTY)), Answer)
