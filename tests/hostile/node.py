"""A node that lies, to a worker and to a client of the SDK: in memory, in virtual time.

The program goes on, or ends by one of the errors that docs/sdk.md names. It never dials in a loop, and it never holds more than its
bounds.
"""

import json
from bisect import bisect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import trio
import trio.testing
from trio_websocket import ConnectionClosed, HandshakeError

from signald.ids import SeededEntropy
from signald.sdk.client_core import ClientCore
from signald.sdk.errors import Unreadable
from signald.sdk.trio import Refused, SessionGone, WorkerSession, open_client, open_worker
from tests.hostile import lies
from tests.hostile.through import Harm, _quiet_sdk
from tests.sdk.peer import Accepted, ScriptedPeer

SECONDS = 300.0
WINDOW_S, DIALS_MAX = 10.0, 60
"""In any ten seconds. Programs that end and are started again come to half of it, a party that never waits to hundreds."""
HELD_MAX = 8 * 1024 * 1024
"""Bytes that wait in one session; a scene says far less than the bounds allow, so what grows past it grows for ever."""

LIMITS = {"message_bytes": 65536, "messages_per_s": 20.0, "messages_burst": 100, "backlog_messages": 1000}
COMMON = {"token_ttl_ms": 1000, "heartbeat_ms": 20000}


async def serve(rng: Random, connection: Accepted) -> None:
    """Answer the opening message, mostly rightly, and lie until the connection is over."""
    with suppress(ConnectionClosed, HandshakeError):
        opening = await connection.receive()
        await _raw(connection, _answer(rng, opening))
        seq = 1
        hasty = rng.random() < 0.5  # it breaks this connection at once
        for _ in range(rng.randrange(1, 3 if hasty else 40)):
            frame = lies.of_a_node(rng, "s_1", seq)
            if isinstance(frame, str) and '"type":"message"' in frame:
                seq += rng.random() < 0.8
            await _raw(connection, frame)
            await trio.sleep(0.0 if hasty else rng.choice((0.0, 0.01, 1.0)))
        if rng.random() < 0.5:
            await connection.close(
                rng.choice((1001, 1008, 1011, 1012, 1013, 4400, 4404, 4408, 4508)),
                rng.choice(("", '{"retry_after_ms":0}', "{")),
            )
        else:
            await connection.cut()


async def _raw(connection: Accepted, frame: lies.Frame) -> None:
    await connection._websocket.send_message(
        frame if isinstance(frame, bytes) else frame.encode("utf-8", "replace").decode()
    )


def _answer(rng: Random, opening: dict[str, Any]) -> lies.Frame:
    number = rng.choice((0, 0, 0, 1, *lies.NUMBERS))
    common = {**COMMON, "recovery_token": "t", "heartbeat_ms": rng.choice((20000, *lies.NUMBERS))}
    if opening["type"] == "connect":
        said = {
            **common,
            "type": "session_started",
            "session": "s_1",
            "peer": {"state": "waiting", "id": None},
            "next_seq": 1,
            "limits": LIMITS,
        }
    elif opening["type"] == "restore_session":
        said = {
            **common,
            "type": "session_restored",
            "session": "s_1",
            "peer": {"state": "waiting", "id": None},
            "accepted": number,
            "replaying": 0,
        }
    elif not opening["reconnection"]:
        said = {**common, "type": "app_accepted", "status": "ok", "worker": "w_1"}
    else:
        kept = [{"session": one["session"], "accepted": number, "replaying": 0} for one in opening.get("sessions", [])]
        said = {
            **common, "type": "reconnection_ack", "status": "ok", "worker": "w_1", "session_restored": True, "server_status": "running",
            "sessions": kept, "lost": [],
        }  # fmt: skip
    text = json.dumps(said)
    return text if rng.random() < 0.9 else lies.framed(rng, text)


async def _serve_all(rng: Random, peer: ScriptedPeer) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            connection = await peer.accept()
            nursery.start_soon(serve, rng, connection)


async def _worker(peer: ScriptedPeer, seed: int) -> None:
    async def handler(session: WorkerSession) -> None:
        with suppress(Unreadable):
            _ = session.meta, [entry["data"] for entry in session.chat_history if isinstance(entry, dict)]
        async for message in session:
            session.events()
            await session.send(message.data)

    async def on_terminate(_: str) -> None:
        await trio.sleep(0.1)

    entropy = SeededEntropy(seed)
    async with (
        open_worker(
            "ws://h", handler, instance_id="i", capacity=5, dial=peer.dial, entropy=entropy, on_terminate=on_terminate
        ) as worker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_watch, [worker._core])
        with suppress(SessionGone):
            await worker.wait()
        nursery.cancel_scope.cancel(reason="over")


async def _client(peer: ScriptedPeer, seed: int) -> None:
    async with (
        open_client("ws://h", dial=peer.dial, entropy=SeededEntropy(seed)) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_watch, [client._core])
        with suppress(SessionGone):
            await client.send("hello")
            async for message in client:
                with suppress(Unreadable):
                    _ = message.data
                client.realtime("now")
        nursery.cancel_scope.cancel(reason="over")


def _sessions(core: Any) -> list[Any]:
    """Return the sessions of a client or of a worker."""
    return [core.session] if isinstance(core, ClientCore) else [seat.core for seat in core._to_write.values()]


async def _watch(cores: list[Any]) -> None:
    while True:
        for core in cores:
            held = sum(session._inbox_bytes for session in _sessions(core))
            if held > HELD_MAX or len(core.retiring) > 4:
                raise Harm(f"{held} bytes wait, {len(core.retiring)} connections are left open")
        await trio.sleep(0.5)


def play(seed: int) -> None:
    """One scene with a worker, one with a client. Raises `Harm`, or what the program let out."""
    for party in (_worker, _client):
        rng = Random(f"node {party.__name__} {seed}")
        with _quiet_sdk():
            trio.run(_live, party, rng, seed, clock=trio.testing.MockClock(autojump_threshold=0))


async def _live(party: Callable[[ScriptedPeer, int], Awaitable[None]], rng: Random, seed: int) -> None:
    peer = ScriptedPeer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_all, rng, peer)
        with trio.move_on_after(SECONDS):
            while True:
                with suppress(SessionGone, Refused):
                    await party(peer, seed)
                await trio.sleep(1.0)  # its owner starts another one
        nursery.cancel_scope.cancel(reason="enough")
    at = [when for when, _ in peer.dials]
    most = max((bisect(at, when + WINDOW_S) - index for index, when in enumerate(at)), default=0)
    if most > DIALS_MAX:
        raise Harm(f"{most} dials within {WINDOW_S} s")
