"""The admin socket of a node stays where operators look for it."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import structlog.testing
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from signald.http import admin_socket
from signald.http.admin_socket import AdminSocket
from signald.http.listening import open_unix
from signald.http.server import serve_http

pytestmark = pytest.mark.real

APP = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])


async def answer(path: Path) -> bytes:
    """What is answered there."""
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: signald\r\nConnection: close\r\n\r\n")
        said = b""
        while data := await stream.receive_some():
            said += data
    return said.rpartition(b"\r\n")[2]


async def until_there(path: Path) -> None:
    """Wait for the socket."""
    with trio.fail_after(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - nothing tells us
            await trio.sleep(0.01)


async def test_a_socket_that_was_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its directory, as often as it is removed, and said; in the end nothing is left, not even a descriptor."""
    monkeypatch.setattr(admin_socket, "CHECK_S", 0.05)
    path, over = tmp_path / "signald-0" / "node.sock", trio.Event()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            unix = AdminSocket(partial(open_unix, path), partial(serve_http, APP), over)
            await nursery.start(unix.run)
            assert await answer(path) == b"here"
            for _ in range(3):
                shutil.rmtree(path.parent)
                await until_there(path)
                assert await answer(path) == b"here"
            assert path.parent.stat().st_mode & 0o777 == 0o700
            over.set()
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert [(line["event"], line["path"]) for line in lines] == [("admin_socket_made_again", str(path))] * 3


async def test_a_place_that_was_taken_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the socket cannot be made the node goes on and tries again; the reason is one line."""
    monkeypatch.setattr(admin_socket, "CHECK_S", 0.02)
    path, over = tmp_path / "signald-0" / "node.sock", trio.Event()
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(AdminSocket(partial(open_unix, path), partial(serve_http, APP), over).run)
            shutil.rmtree(path.parent)
            path.parent.write_text("a file where the directory was")
            with trio.fail_after(20):
                while not lines:  # noqa: ASYNC110 - nothing tells us
                    await trio.sleep(0.01)
            await trio.sleep(0.2)
            path.parent.unlink()
            await until_there(path)
            assert await answer(path) == b"here"
            over.set()
    assert [line["event"] for line in lines] == ["admin_socket_lost", "admin_socket_made_again"]


async def test_none(tmp_path: Path) -> None:
    """`admin.socket` "off": nothing is made, and nothing waited for."""
    async with trio.open_nursery() as nursery:
        await nursery.start(AdminSocket(lambda: None, partial(serve_http, APP), trio.Event()).run)
