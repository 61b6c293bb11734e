"""Tests of connections that never come about: a wrong URL is told at once, and everything else is retried."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import pytest
import trio
import trio.testing
from wsproto.utilities import generate_accept_token

from signald.sdk import trio as sdk
from signald.sdk.backoff import without_login
from signald.sdk.dialing import DialFailed, refused_handshake
from signald.sdk.network import Carrier
from signald.sdk.trio_carrier import over_stream
from signald.wire.close_codes import CloseCode
from tests.sdk.peer import ScriptedPeer

LOGIN = "ws://ada:hush@a.test"


class Answers(ScriptedPeer):
    """Answers the next dials to a URL with errors; all later ones with a connection."""

    def __init__(self, **errors: list[DialFailed]) -> None:
        super().__init__()
        self.errors = errors

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Carrier]:
        """Fail as told, or connect."""
        host = url.partition("@")[2][:1] or url.removeprefix("ws://")[:1]
        if self.errors.get(host):
            self.dials.append((trio.current_time(), url))
            raise self.errors[host].pop(0)
        async with super().dial(url) as carrier:
            yield carrier


@pytest.mark.parametrize("status", [200, 301, 400, 404, 405, 410, 426])
def test_answers_that_no_retry_mends(status: int) -> None:
    """A server that answers so is not signald, or not at this path."""
    assert refused_handshake(status).wrong_url


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_answers_that_a_retry_may_mend(status: int) -> None:
    """A proxy without a node behind it, or a node that has no room, is asked again."""
    assert not refused_handshake(status).wrong_url


def test_codes_and_hints_of_answers() -> None:
    """An answer means what the close code of the same meaning does; `Retry-After` counts where it may stand."""
    assert [refused_handshake(status).code for status in (401, 403, 404)] == [4401, 4403, None]
    refused = refused_handshake(503, b"7")
    assert (refused.code, refused.retry_after_ms) == (CloseCode.REFUSED, 7000)
    assert refused_handshake(503, b"soon").code is None
    assert refused_handshake(503, b"1" * 7).retry_after_ms is None


async def test_a_wrong_path_raises_at_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The error and the log name the URL and the status, and not the password in the URL."""
    peer = Answers(a=[refused_handshake(404)])
    with pytest.raises(sdk.Refused, match=r"ws://a.test/v1/client: .* HTTP 404"):
        async with sdk.open_client(LOGIN, dial=peer.dial):
            pass
    assert len(peer.dials) == 1
    assert "ws://a.test/v1/client" in caplog.text
    assert "hush" not in caplog.text


async def test_one_wrong_url_of_two_ends_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The other URL may be a node that is not up yet."""
    peer = Answers(a=[refused_handshake(404)] * 2, b=[refused_handshake(502)])
    async with trio.open_nursery() as nursery:

        async def script() -> None:
            await (await peer.accept()).start_session()

        nursery.start_soon(script)
        async with sdk.open_client(["ws://a.test", "ws://b.test"], dial=peer.dial) as client:
            assert client.connections == 1
    assert [url[5] for _, url in peer.dials] == ["a", "b", "a", "b"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_url_that_was_wrong_once_may_be_right_later(autojump_clock: trio.testing.MockClock) -> None:
    """Only the last answer of each URL counts: a proxy learns of its backends one by one."""
    peer = Answers(
        a=[refused_handshake(404), refused_handshake(502), refused_handshake(502)],
        b=[refused_handshake(502), refused_handshake(404)],
    )
    async with trio.open_nursery() as nursery:

        async def script() -> None:
            await (await peer.accept()).start_session()

        nursery.start_soon(script)
        async with sdk.open_client(["ws://a.test", "ws://b.test"], dial=peer.dial):
            pass
    assert len(peer.dials) == 6


async def test_a_party_that_was_taken_goes_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that answers 404 in a deploy ends no session."""
    peer = Answers()
    async with trio.open_nursery() as nursery:

        async def script() -> None:
            first = await peer.accept()
            await first.start_session()
            peer.errors["a"] = [refused_handshake(404) for _ in range(20)]
            await first.cut()
            await (await peer.accept()).restore_session(accepted=0)

        nursery.start_soon(script)
        async with sdk.open_client(LOGIN, dial=peer.dial) as client:
            async for event in client.events:
                if isinstance(event, sdk.Resumed):
                    break
    assert len(peer.dials) == 22
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_another_protocol_is_another_server(autojump_clock: trio.testing.MockClock) -> None:
    """A WebSocket server that takes no `signald.v1` is not signald."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            data = bytes(await ours.receive_some())
            key = data.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            await ours.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + generate_accept_token(key) + b"\r\n\r\n"
            )

        nursery.start_soon(serve)
        with pytest.raises(DialFailed) as caught:
            async with over_stream(theirs, "ws://a.test/v1/client"):
                pass
    assert caught.value.wrong_url


def test_a_login_is_not_shown() -> None:
    """Name and password before the host are left out, and nothing else."""
    assert without_login("wss://ada:hush@a.test:8443/x") == "wss://a.test:8443/x"
    assert without_login("ws://a.test") == "ws://a.test"


def test_ctrl_c_ends_a_program_cleanly() -> None:
    """An interrupt in a task comes out as status 130, however deep it is; the program's own errors come out as they are."""

    async def deep() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(interrupt)

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def broken() -> None:
        raise LookupError

    with pytest.raises(SystemExit) as ended:
        sdk.run(deep)
    assert ended.value.code == 130
    with pytest.raises(LookupError):
        sdk.run(broken)
    sdk.run(trio.lowlevel.checkpoint)


def test_events_are_where_they_are_documented() -> None:
    """A program needs one import: the events of the SDK's page are in `signald.sdk.trio`."""
    assert {event.__name__ for event in get_args(sdk.LifecycleEvent)} <= set(sdk.__all__)
