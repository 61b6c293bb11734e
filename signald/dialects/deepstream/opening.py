"""The opening of an app: `app_ready`, which has no answer unless it asks for one."""

from functools import partial

from signald.dialects.deepstream.link import AppLink
from signald.dialects.deepstream.messages import PONG, AppReady, Error, encode, read_ready, type_of
from signald.dialects.deepstream.states import AppState, Progress
from signald.errors import BadMessage
from signald.net.connection import Connection
from signald.net.ending import ConnectionClosed
from signald.net.frames import Message as Frame
from signald.service.dialect import Opened
from signald.service.named_opening import NamedWorker, enter_worker
from signald.service.parts import Parts
from signald.service.refusals import Turned
from signald.service.worker_like import Offer
from signald.wire.close_codes import CloseCode

FRAMES_MAX = 100
"""Frames until an app has begun, as for a party of `signald.v1`."""


async def open_app(parts: Parts, conn: Connection) -> Opened | None:
    """Read `app_ready` and let the app in; None when it was turned away or went."""
    progress: Progress | None = None
    try:
        ready, rest = await _read(parts, conn)
        progress = Progress(parts.context, ready.instance_id, conn.id)
        return await _let_in(parts, conn, ready, progress), rest
    except Turned as turned:
        if progress is not None:
            progress.to(AppState.DISCONNECTED, why=turned.error)
        _turn_away(conn, turned)
        await conn.wait_finished()
    except ConnectionClosed:
        if progress is not None:
            progress.to(AppState.DISCONNECTED, why="gone")
    return None


async def _let_in(parts: Parts, conn: Connection, ready: AppReady, progress: Progress) -> AppLink:
    config = parts.context.config.deepstream
    offer = Offer(ready.instance_id, ready.own_labels(), 1 if config.pairs else 0, trace=ready.trace_text)
    make = partial(AppLink, ready=ready, progress=progress)
    asked = NamedWorker(offer, "deepstream", ready.returns)
    link = await enter_worker(parts, conn, ready.credential, asked, make)
    assert isinstance(link, AppLink)
    return link


async def _read(parts: Parts, conn: Connection) -> tuple[AppReady, list[Frame]]:
    depth_max = parts.context.config.limits.json_depth_max
    frames = 0
    with parts.context.pauses.within(parts.context.config.timeouts.hello_s):
        while True:
            batch = await conn.receive()
            for index, (text, payload) in enumerate(batch):
                frames += 1
                try:
                    kind = type_of(text, payload, depth_max)
                    if kind == "app_ready":
                        return read_ready(payload), batch[index + 1 :]
                except BadMessage as bad:
                    raise Turned(CloseCode.BAD_MESSAGE, "bad_message", str(bad)) from None
                if kind != "ping" or frames > FRAMES_MAX:
                    raise Turned(CloseCode.BAD_MESSAGE, "out_of_place", "app_ready comes first")
                conn.send_text(PONG)
            conn.flush()
    raise Turned(CloseCode.TIMEOUT, "hello_timeout", "no app_ready in time")


def _turn_away(conn: Connection, turned: Turned) -> None:
    """Say to the app why it is turned away, and close."""
    conn.send_text(encode(Error(turned.error, turned.message, fatal=True, retry_after_ms=turned.retry_after_ms)))
    if turned.code is CloseCode.TIMEOUT:
        conn.fail(turned.code, turned.error)
    else:
        conn.close(turned.code, turned.error)
