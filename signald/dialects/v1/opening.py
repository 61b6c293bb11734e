"""The opening message of a party, and its answer: the first frame it gets.

    connect            ▸ session_started      a new session, which waits for a worker
    restore_session    ▸ session_restored     the claim of a client
    app_ready          ▸ app_accepted         a new worker
    app_ready (again)  ▸ reconnection_ack     the claim of a worker and of all its sessions

Every step that can be refused is refused before anything is attached; from the store's answer to the attachment there
is no checkpoint, so nothing can happen between the two.

Here the message is read and turned into what the party asks for; `service.client_opening` and `service.worker_opening` let it in.
"""

from collections.abc import Callable
from functools import partial

from signald.dialects.v1.client import ClientLink
from signald.dialects.v1.link import retry_reason
from signald.dialects.v1.paths import PATHS
from signald.dialects.v1.worker import WorkerLink
from signald.errors import BadMessage, UnknownType
from signald.net.connection import Connection
from signald.net.ending import ConnectionClosed
from signald.net.frames import Message as Frame
from signald.service.attached import PartyLink
from signald.service.client_opening import NewClient, ReturningClient, restore_session, start_session
from signald.service.dialect import Opened
from signald.service.parts import Parts
from signald.service.refusals import Turned
from signald.service.worker_like import Offer
from signald.service.worker_opening import ReturningWorker, register_worker, resume_worker
from signald.wire import codec
from signald.wire.close_codes import CloseCode
from signald.wire.messages import AppReady, Connect, ErrorMessage, Ping, RestoreSession

Opening = Connect | RestoreSession | AppReady

FRAMES_MAX = 100
"""Frames until a party has begun, its opening message included: whoever is there to begin does not ping for long."""


async def open_link(parts: Parts, conn: Connection) -> Opened | None:
    """Read the opening message and answer it; None when the party was turned away or went.

    The second part is what came behind the opening message in the same read.
    """
    try:
        message, rest = await _read(parts, conn)
        return await _let_in(parts, conn, message), rest
    except Turned as turned:
        _turn_away(conn, turned)
        await conn.wait_finished()
    except ConnectionClosed:
        pass  # the party has gone: no answer reaches it
    return None


async def _let_in(parts: Parts, conn: Connection, message: Opening) -> PartyLink:
    if isinstance(message, Connect):
        new = NewClient(message.want, bytes(message.meta), message.receipts, message.trace, message.pair, message.api)
        return await start_session(parts, conn, message.auth, new, ClientLink)
    if isinstance(message, RestoreSession):
        returning = ReturningClient(
            message.recovery_token,
            message.received,
            message.acked,
            message.attempt,
            message.history,
            message.ticket,
            message.trace,
            message.api,
            message.rooms,
        )
        return await restore_session(parts, conn, message.auth, returning, ClientLink)
    offer = Offer(
        message.instance_id,
        message.labels,
        message.capacity,
        message.sessions,
        message.trace,
        message.api,
        tuple(message.jobs),
    )
    make = partial(WorkerLink, reconnecting=message.reconnection)
    if message.reconnection and message.recovery_token is not None:  # without a token it starts afresh
        asked = ReturningWorker(message.recovery_token, offer, message.attempt, message.ticket)
        return await resume_worker(parts, conn, message.auth, asked, make)
    return await register_worker(parts, conn, message.auth, offer, make)


async def _read(parts: Parts, conn: Connection) -> tuple[Opening, list[Frame]]:
    decode: Callable[[bool, bytes, int], tuple[object, bytes | None]] = (
        codec.decode_worker if conn.path == PATHS["worker"] else codec.decode_client
    )
    depth_max = parts.context.config.limits.json_depth_max
    frames = 0
    with parts.context.pauses.within(parts.context.config.timeouts.hello_s):
        while True:
            batch = await conn.receive()
            for index, (text, payload) in enumerate(batch):
                frames += 1
                if frames > FRAMES_MAX:
                    raise Turned(CloseCode.BAD_MESSAGE, "out_of_place", "an opening message comes first")
                try:
                    message, _ = decode(text, payload, depth_max)
                except UnknownType as unknown:
                    error = ErrorMessage("unknown_type", f"unknown type: {unknown}", fatal=False)
                    conn.send_text(codec.encode(error))
                    continue
                except BadMessage as bad:
                    raise Turned(CloseCode.BAD_MESSAGE, "bad_message", str(bad)) from None
                if isinstance(message, Opening):
                    return message, batch[index + 1 :]
                if not isinstance(message, Ping):
                    raise Turned(CloseCode.BAD_MESSAGE, "out_of_place", "an opening message comes first")
                conn.send_text(codec.PONG)
            conn.flush()
    raise Turned(CloseCode.TIMEOUT, "hello_timeout", "no opening message in time")


def _turn_away(conn: Connection, turned: Turned) -> None:
    """Say to the party why it is turned away, and close."""
    error = ErrorMessage(turned.error, turned.message, fatal=True, retry_after_ms=turned.retry_after_ms)
    conn.send_text(codec.encode(error))
    if turned.code is CloseCode.TIMEOUT:
        # Who had all this time and said nothing gets no more of it: thousands of such are an attack.
        conn.fail(turned.code, turned.error)
        return
    retry = turned.retry_after_ms
    conn.close(turned.code, retry_reason(retry) if isinstance(retry, int) else turned.error)
