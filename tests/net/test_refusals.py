"""Refused handshakes: each is counted by its reason, and a line for each reason says now and then which peer, and why."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from signald.net.admission import Refusal
from signald.net.refusal_log import LABELS, LINE_EVERY_S
from signald.net.settings import NetSettings
from signald.testing.websocket import KEY, request
from tests.net.clients import Net, listening, served, simulated, until
from tests.net.settings import settings_of
from tests.net.test_real import connect_over_tls, contexts

Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged."""
    with structlog.testing.capture_logs() as logged:
        yield logged


async def refused(net: Net, data: bytes, remote: str = "192.0.2.1") -> bytes:
    """Send a request that is refused; return the first line of the answer."""
    client = net.dial(remote=remote)
    await client.send(data)
    head = await client.response()
    await trio.aclose_forcefully(client.stream)
    return head.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("data", "status", "reason", "why"),
    [
        (request("/v1/client", (b"Origin", b"https://evil.example")), 403, "origin", "origin not allowed"),
        (request("/v2/client"), 404, "path", "nothing here"),
        (request("/v1/client?token=x"), 400, "bad_request", "credentials do not belong in a URL"),
        (request(method=b"POST"), 405, "method", "only GET opens a WebSocket"),
        (request(without=(b"Upgrade",)), 426, "upgrade", "this is a WebSocket"),
        (b"GET /" + b"x" * 9000, 414, "too_long", "request line too long"),
        (request("/v1/client", (b"X", b"x" * 17000)), 431, "too_long", "too many or too long headers"),
        (b"\x16\x03\x01\x02\x00\n\n", 400, "bad_request", "not a WebSocket handshake"),
        (request("/v1/client", (b"Sec-WebSocket-Key", KEY), without=()), 400, "bad_request", "a header stands twice"),
    ],
)
@simulated
async def test_a_bad_request(data: bytes, status: int, reason: str, why: str) -> None:
    """Counted once, and said with the reason in the words of the answer, the status and the address."""
    with structlog.testing.capture_logs() as lines:
        async with served() as net:
            assert (await refused(net, data)).startswith(b"HTTP/1.1 %d " % status)
        assert net.server.refusals.counts == {reason: 1}
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("handshake_refused", "info")
    assert (line["reason"], line["why"], line["status"], line["remote"]) == (reason, why, status, "192.0.2.1")
    assert line["suppressed"] == 0
    assert line.get("said") == ("https://evil.example" if reason == "origin" else None)


@pytest.mark.parametrize(
    ("settings", "gate", "reason", "status"),
    [
        (settings_of(connects_per_s=0.001, connects_burst=1), None, "rate", 429),
        (settings_of(connections_max=1), None, "busy", 503),
        (settings_of(), Refusal(401, "no credential"), "unauthorized", 401),
        (settings_of(), Refusal(418, "no coffee"), "other", 418),
    ],
)
@simulated
async def test_no_place(settings: NetSettings, gate: Refusal | None, reason: str, status: int) -> None:
    """What admission and a gate refuse is counted as well; a status without a name of its own is other."""
    with structlog.testing.capture_logs() as lines:
        async with served(settings=settings, gate=lambda *_: gate) as net:
            if gate is None:
                first = await net.connect()
            assert (await refused(net, request())).startswith(b"HTTP/1.1 %d " % status)
            assert net.server.refusals.counts == {reason: 1}
            if gate is None:
                await trio.aclose_forcefully(first.stream)
    assert [line["reason"] for line in lines] == [reason]
    assert reason in LABELS


@simulated
async def test_a_flood_is_one_line() -> None:
    """One line for each reason in ten seconds, whichever peer is refused; the next one says how many were left out."""
    with structlog.testing.capture_logs() as lines:
        async with served() as net:
            for _ in range(1000):
                await refused(net, request("/nowhere"))
            await refused(net, request("/v1/client", (b"Origin", b"https://a.example")))
            await trio.sleep(LINE_EVERY_S)
            await refused(net, request("/nowhere"))
        assert net.server.refusals.counts == {"path": 1001, "origin": 1}
    assert [(line["reason"], line["suppressed"]) for line in lines] == [("path", 0), ("origin", 0), ("path", 999)]


@simulated
async def test_what_is_no_origin_is_not_repeated() -> None:
    """A header may hold anything, a secret or a terminal's commands: only what a browser would send is logged of it."""
    origins = (
        b"\x9b31m",
        b"https://" + b"x" * 5000,
        b"canary",
        b"https://u:p@h",
        b"https://h/canary",
        b"https://h?canary",
    )
    for origin in origins:
        with structlog.testing.capture_logs() as lines:
            async with served() as net:
                await refused(net, request("/v1/client", (b"Origin", origin)))
        assert lines[0]["reason"] == "origin"
        assert "said" not in lines[0]


@simulated
async def test_the_address_is_that_of_the_client() -> None:
    """Behind a trusted proxy a refusal names the client's address, also where the request itself is at fault."""
    settings = settings_of(trusted_proxies=("10.0.0.0/8",))
    forwarded = (b"X-Forwarded-For", b"192.0.2.7")
    with structlog.testing.capture_logs() as lines:
        async with served(settings=settings) as net:
            await refused(net, request("/nowhere", forwarded), "10.0.0.1")
    assert lines[0]["remote"] == "192.0.2.7"


@simulated
async def test_a_request_that_never_ends() -> None:
    """Cut when its time is over, and counted; a peer that only connects and goes is not."""
    with structlog.testing.capture_logs() as lines:
        async with served() as net:
            slow, gone = net.dial(), net.dial()
            await slow.send(b"GET ")
            await trio.aclose_forcefully(gone.stream)
            await slow.hung_up_after()
        assert net.server.refusals.counts == {"timeout": 1}
    assert [line["reason"] for line in lines] == ["timeout"]


@pytest.mark.real
async def test_no_slot(lines: Lines) -> None:
    """A peer that is turned away unread, because all places are taken by peers that speak."""
    async with listening(settings=settings_of(handshakes_in_progress_max=1)) as port:
        first = await port.dial()
        await first.send(request()[:-2])
        await until(lambda: port.admission.handshakes)
        await trio.sleep(0.2)  # what it has said is heard
        assert (await (await port.dial()).response()).startswith(b"HTTP/1.1 503 ")
        assert port.server.refusals.counts == {"busy": 1}
    assert [(line["reason"], line["remote"], line["why"]) for line in lines] == [
        ("busy", "127.0.0.1", "too many handshakes")
    ]


@pytest.mark.real
async def test_no_tls(tmp_path: Path, lines: Lines) -> None:
    """A peer whose TLS fails is counted, with the reason of OpenSSL; one that only connects and goes is not."""
    tls, trusted = contexts(tmp_path)
    async with listening(tls=tls) as port:
        gone = await port.dial()
        await until(lambda: port.admission.handshakes)
        await trio.aclose_forcefully(gone.stream)
        await until(lambda: not port.admission.handshakes)
        await (await port.dial()).send(request())
        await until(lambda: port.server.refusals.counts["tls"] == 1)
        await trio.aclose_forcefully((await connect_over_tls(port, trusted)).stream)
        assert port.server.refusals.counts == {"tls": 1}
    assert [(line["reason"], line["remote"], line["why"]) for line in lines] == [("tls", "127.0.0.1", "HTTP_REQUEST")]
