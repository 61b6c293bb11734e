"""A core server of the tests' own, as a process on plain sockets that is in a mood, and changes it when it is told to.

It judges nothing: whatever comes is noted in a file, a line of JSON each, and so is how it was answered. `tests/real/core_notes.py`
judges the notes. It is a process of its own, because a flood of answers would stall the loop of the parties whose round trips are measured.

    python -m tests.real.moody_core PORT NOTES SEED    then a mood a line on its standard input; it goes at the end of that

    well          answers at once
    slow          answers after a while, or a byte at a time
    mute          takes the request, and answers nothing
    down          nothing listens
    cut           resets the connection behind the request, or within the answer
    lying         a wrong status, no JSON, or another object
    putting off   429 or 503, with `Retry-After`
    flooding      a body, a head or a row of `100 Continue` without an end
    gone          410, by which a receiver says that it wants no events any more
"""

import json
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import trio
from attrs import define, field

HOST = "127.0.0.1"
EVENTS, AUTHORIZE = "/events", "/authorize"

WELL = "well"
MOODS = ("slow", "mute", "down", "cut", "lying", "putting off", "flooding")
"""All but well and gone; a receiver that is gone stays so for the nodes that have heard of it."""

REQUEST_MAX = 1 << 20
PIECE = b"x" * 65_536
SLOW_S = 3.0
"""The longest that a slow answer takes: above the time-outs of the nodes, which are 2 s, and often below."""

DRIP_S = 0.02
"""Between two bytes of an answer: some answers are whole in time so, and some are not."""

YES = {"allow": True, "settings": {"from": "the core"}}
OTHER_OBJECTS = (b"[]", b'{"allow":"yes"}', b'{"allowed":true}', b"null", b'{"allow":true,"want":7}')


@define
class Request:
    """What has come whole."""

    path: str
    headers: dict[str, str]
    body: bytes


class Gone(Exception):
    """The connection is over."""


@define
class Core:
    """See the module."""

    notes: TextIO
    rng: random.Random
    mood: str = WELL
    _number: int = 0
    _scopes: set[trio.CancelScope] = field(factory=set)

    def note(self, **what: object) -> None:
        """One line."""
        self.notes.write(json.dumps({"at": time.time(), **what}) + "\n")
        self.notes.flush()

    # --- the listener -----------------------------------------------------------------------------------------------

    async def run(self, port: int, moods: trio.abc.ReceiveStream) -> None:
        """Serve until `moods` ends."""
        async with trio.open_nursery() as nursery:
            listening = await nursery.start(self._listen, port, nursery)
            said = b""
            async for data in moods:
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    self.mood = line.decode()
                    self.note(mood=self.mood)
                    if (self.mood == "down") == (listening is not None):
                        listening = await self._turn(listening, port, nursery)
            nursery.cancel_scope.cancel(reason="nobody says moods any more")

    async def _turn(
        self, listening: trio.CancelScope | None, port: int, nursery: trio.Nursery
    ) -> trio.CancelScope | None:
        if listening is None:
            return await nursery.start(self._listen, port, nursery)  # type: ignore[no-any-return]
        for scope in (listening, *self._scopes):
            scope.cancel(reason="the core server is down")
        await trio.sleep(0.01)
        return None

    async def _listen(self, port: int, nursery: trio.Nursery, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            (listener,) = await trio.open_tcp_listeners(port, host=HOST)
            task_status.started(scope)
            await trio.serve_listeners(self._serve, [listener], handler_nursery=nursery)

    # --- a connection -----------------------------------------------------------------------------------------------

    async def _serve(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with stream:
                    await self._converse(stream)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, Gone):
                pass
            finally:
                self._scopes.discard(scope)

    async def _converse(self, stream: trio.SocketStream) -> None:
        read = b""
        while True:
            request, read = await _request(stream, read)
            self._number += 1
            number, mood = self._number, self.mood
            self.note(
                request=number,
                path=request.path,
                mood=mood,
                headers=request.headers,
                body=request.body.decode("latin-1"),
            )
            try:
                status, body = await self._answer(stream, request, mood, number)
            finally:
                self.note(over=number)
            self.note(answered=number, status=status, body=body.decode("latin-1"))

    async def _answer(self, stream: trio.SocketStream, request: Request, mood: str, number: int) -> tuple[int, bytes]:
        """Answer as the mood is, and return status and body of an answer that went out whole. Raises Gone."""
        status, body = (200, json.dumps(YES).encode()) if request.path == AUTHORIZE else (204, b"")
        more = ""
        match mood:
            case "slow" if self.rng.random() < 0.3:
                self.note(answering=number)
                said = _said(status, body)
                # The last byte goes when nobody watches any more: behind it the caller may send its next request.
                await _until_gone(stream, partial(_drip, stream, said[:-1]))
                await stream.send_all(said[-1:])
                return status, body
            case "slow":
                await _until_gone(stream, partial(trio.sleep, self.rng.uniform(0.05, SLOW_S)))
            case "mute" | "down":
                await _until_gone(stream, trio.sleep_forever)
            case "cut":
                if self.rng.random() < 0.5:
                    await stream.send_all(_said(status, body or b"{}")[: self.rng.randint(5, 40)])
                _reset(stream)
                raise Gone
            case "lying":
                status, body = self._lie(request)
            case "putting off":
                status, body, more = self.rng.choice((429, 503)), b"", f"retry-after: {self.rng.randint(1, 2)}\r\n"
            case "flooding":
                await self._flood(stream)
            case "gone":
                status, body = (410, b"") if request.path == EVENTS else (status, body)
        if status == 302:
            more = "location: http://127.0.0.1:1/\r\n"
        # Before it goes: what its caller does next may come sooner than this task goes on.
        self.note(answering=number)
        await stream.send_all(_said(status, body, more))
        return status, body

    def _lie(self, request: Request) -> tuple[int, bytes]:
        kind = self.rng.randrange(3)
        if kind == 0:
            return self.rng.choice((302, 400, 404, 500, 502)), json.dumps(YES).encode()
        return 200, b"<html>" if kind == 1 else self.rng.choice(OTHER_OBJECTS)

    async def _flood(self, stream: trio.SocketStream) -> None:
        kind = self.rng.randrange(3)
        if kind == 0:
            await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        elif kind == 1:
            await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        piece = (
            b"10000\r\n%s\r\n" % PIECE,
            b"x-more: " + b"x" * 1000 + b"\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
        )
        while True:
            await stream.send_all(piece[kind])


async def _request(stream: trio.SocketStream, read: bytes) -> tuple[Request, bytes]:
    """Return one request, and what was read behind it. Raises Gone."""
    while b"\r\n\r\n" not in read:
        read += await _more(stream, read)
    head, _, rest = read.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(rest) < length:
        rest += await _more(stream, rest)
    return Request(first.split(" ")[1], headers, rest[:length]), rest[length:]


async def _more(stream: trio.SocketStream, read: bytes) -> bytes:
    data = await stream.receive_some()
    if not data or len(read) > REQUEST_MAX:
        raise Gone
    return data


async def _until_gone(stream: trio.SocketStream, what: Callable[[], Awaitable[None]]) -> None:
    """Do `what`; raise Gone as soon as the other side has closed, or sends what is none of an answer's."""
    gone = False

    async def watch() -> None:
        nonlocal gone
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        gone = True
        nursery.cancel_scope.cancel(reason="the caller has gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await what()
        except trio.BrokenResourceError:
            gone = True
        nursery.cancel_scope.cancel(reason="it is done")
    if gone:
        raise Gone


async def _drip(stream: trio.SocketStream, said: bytes) -> None:
    for at in range(len(said)):
        await stream.send_all(said[at : at + 1])
        await trio.sleep(DRIP_S)


def _said(status: int, body: bytes, more: str = "") -> bytes:
    # A 204 has no length (RFC 9110, section 8.6).
    length = "" if status == 204 else f"content-length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{length}{more}\r\n".encode() + body


def _reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def main(port: int, notes: Path, seed: int) -> None:
    """Serve with the moods of the standard input."""
    with notes.open("w") as file:
        core = Core(file, random.Random(seed))
        await core.run(port, trio.lowlevel.FdStream(0))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
