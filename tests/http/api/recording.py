"""The frames of real exchanges: two nodes in memory, parties that send every kind of message, a drain, and a resume."""

import json
from typing import Any, Literal

import pytest
import trio
import trio_websocket

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.test_jobs import cancel, submit

Way = Literal["sent by", "sent to"]

Frame = tuple[str, Way, bool, Any]
"""Party, way, whether it is a text frame, and the JSON: of a binary frame its header."""


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Play the exchange; returns its frames, those that signald refuses left out."""
    frames: list[Frame] = []
    socket = trio_websocket.WebSocketConnection
    send, receive = socket.send_message, socket.get_message

    def keep(connection: Any, way: Way, message: str | bytes) -> None:
        party = str(connection.path).rpartition("/")[2]
        if isinstance(message, bytes):
            frames.append((party, way, False, json.loads(message[2 : 2 + int.from_bytes(message[:2], "big")])))
        else:
            frames.append((party, way, True, json.loads(message)))

    async def sending(self: Any, message: str | bytes) -> None:
        keep(self, "sent by", message)
        await send(self, message)

    async def receiving(self: Any) -> str | bytes:
        message: str | bytes = await receive(self)
        keep(self, "sent to", message)
        return message

    monkeypatch.setattr(socket, "send_message", sending)
    monkeypatch.setattr(socket, "get_message", receiving)
    play(_exchange)
    return frames


async def _exchange(cluster: Cluster) -> None:
    drain: dict[str, object] = {"terminate_timeout_s": 4.0, "worker_timeout_s": 4.0}
    old = await cluster.start("old", drain=drain, auth={"api_token_ttl_s": 10.0})
    (client, token), (worker, worker_token), session = await _talk(cluster)
    legacy = await cluster.dial("old", "/v1/worker", subprotocol=None)
    await legacy.ask(
        {"type": "app_ready", "instance_id": "legacy", "capacity": 1, "labels": {"a": "b"}}, "app_accepted"
    )
    await cluster.start("new")
    old.shutdown.signal()
    ticket = (await worker.expect("goaway"))["ticket"]
    room = {"room": "kept", "received": 0, "epoch": "", "state": True}
    had = {"session": session, "received": 3, "acked": 2, "rooms": [room]}
    more: dict[str, object] = {"last_close_code": 1001, "attempt": 2, "api": True}
    worker, ack = await cluster.resume("new", worker_token, had, **more, ticket=ticket)
    assert ack["sessions"][0]["session"] == session
    ticket = (await client.expect("goaway"))["ticket"]
    seen: dict[str, object] = {"received": 2, "acked": 3, "history": 10, "attempt": 2, "api": True, "rooms": [room]}
    client, restored = await cluster.restore("new", token, **seen, ticket=ticket)
    assert restored["chat_history"]
    terminate = await legacy.expect("terminate_app")
    await legacy.send({"type": "app_terminated", "request_id": terminate["request_id"], "status": "OK", "message": "m"})
    assert await legacy.closed() == 1000
    await cluster.wait_exit("old")
    await _end(cluster, client, worker, session)


async def _talk(cluster: Cluster) -> tuple[tuple[Peer, str], tuple[Peer, str], str]:
    """Pair a client and a worker at the old node, and send what each may; returns both, with their tokens, and the session."""
    worker, accepted = await cluster.worker(
        "old", labels={"lang": "en"}, config={"any": 1}, trace="t", api=True, jobs=["*"]
    )
    opening: dict[str, object] = {"want": {"lang": "en"}, "meta": {"name": "A"}, "receipts": True}
    client, started = await cluster.client("old", **opening, trace="t", api=True)
    session = started["session"]
    asked = await worker.expect("session_assigned")
    await worker.send({"type": "session_refuse", "session": session, "reason": "later", "epoch": asked["epoch"]})
    asked = await worker.expect("session_assigned")
    await worker.send({"type": "session_accept", "session": session, "epoch": asked["epoch"]})
    await client.expect("peer")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.send({"type": "message", "seq": 1, "data": {"a": 1}, "kind": "chat", "history": True, "trace": trace})
    await client.send_binary(b"\x00\xff", {"type": "message", "seq": 2, "kind": "voice"})
    await client.send({"type": "message", "seq": 3, "data": None, "blob": "b_voice"})
    await client.send({"type": "message", "seq": 9, "data": "too early"})
    await client.expect("error")
    for _ in range(3):
        await worker.expect("message")
    await worker.send({"type": "ack", "session": session, "seq": 3})
    await client.expect("receipt")
    await worker.send({"type": "message", "session": session, "seq": 1, "data": "one", "trace": trace})
    await worker.send_binary(b"\x01", {"type": "message", "session": session, "seq": 2})
    await worker.expect("ack")
    for _ in range(2):
        await client.expect("message")
    await client.send({"type": "ack", "seq": 1})
    await client.send({"type": "realtime", "data": [1], "trace": trace})
    await worker.expect("realtime")
    await worker.send_binary(b"r", {"type": "realtime", "session": session})
    await client.expect("realtime")
    for party in (client, worker):
        await party.ask({"type": "ping"}, "pong")
        await party.send({"type": "pong"})
        await party.send({"type": "receipt", "seq": 1})
        await party.send({"type": "error", "code": "oops", "message": "noted"})
        await party.expect("api_token")
        await party.send({"type": "auth", "auth": "a credential that no key is here for"})
    await _jobs(cluster, worker, client, session)
    await _streams(worker, client, session)
    await _rooms(cluster, worker, client, session)
    await worker.send({"type": "app_state", "capacity": 4, "load": 0.5, "leaving": True, "successor": True})
    await worker.expect("successor")
    await worker.send({"type": "app_state", "capacity": 4, "load": 0.5, "leaving": False})
    await client.quiet(1.0)
    await worker.quiet(1.0)
    return (client, started["recovery_token"]), (worker, accepted["recovery_token"]), session


async def _jobs(cluster: Cluster, worker: Peer, client: Peer, session: str) -> None:
    """Have the worker work on jobs of JSON and of bytes, until they are cancelled."""
    await submit(cluster, "old", session, 1, deadline_ms=cluster.nodes["old"].hub.context.now_ms() + 60_000)
    await submit(cluster, "old", session, 2, data=b"bytes", content_type="audio/ogg")
    for _ in range(2):
        job = await worker.expect("job")
        await worker.send({"type": "job_progress", "session": session, "job": job["job"], "progress": {"percent": 1}})
    for n in (1, 2):
        await cancel(cluster, "old", session, n, timeout_ms=100)
        await worker.expect("job_cancel")
        await client.expect("job_state")


async def _rooms(cluster: Cluster, worker: Peer, client: Peer, session: str) -> None:
    """Have both be in a room, say each thing that can be said there, and be told each."""
    other, _ = await cluster.client("old", pair=False)
    await other.ask({"type": "join", "room": "r", "presence": [1], "received": 0, "epoch": ""}, "joined")
    await client.ask({"type": "join", "room": "r", "presence": {"name": "A"}, "state": True, "history": 5}, "joined")
    await worker.ask({"type": "join", "session": session, "room": "r"}, "joined")
    for who, named in ((client, {}), (worker, {"session": session})):
        told: dict[str, object] = {"room": "r", **named}
        await who.send({"type": "publish", **told, "seq": 1, "data": {"text": "hi"}, "kind": "chat"})
        await who.send(
            {"type": "publish", **told, "seq": 2, "put": {"a": {"x": 1}}, "patch": {"b": {"y": None}}, "remove": ["c"]}
        )
        await who.send_binary(b"u", {"type": "publish", **told, "seq": 3, "kind": "update"})
        await who.send({"type": "publish", **told, "seq": 9, "data": 1})
        await who.expect("room_error")
        await who.expect("published")
        await who.send({"type": "presence", **told, "presence": 2})
        await who.send_binary(b"s", {"type": "snapshot", **told, "position": 1})
    for who in (client, worker):
        await who.expect("room_message")
        await who.expect("room_presence")
    await other.send({"type": "bye"})
    await client.quiet(0.5)
    await client.send({"type": "join", "room": "r", "history": 9, "state": True})
    await worker.send({"type": "join", "room": "r", "session": session})
    for who, named in ((client, {}), (worker, {"session": session})):
        await who.expect("joined")
        await who.expect("snapshot")
        await who.send({"type": "leave", "room": "r", **named})
        await who.expect("left")


async def _streams(worker: Peer, client: Peer, session: str) -> None:
    """Have the worker say a text that the client stops, a piece too many, and a text that is open when the session ends."""
    piece: dict[str, object] = {"type": "message", "session": session, "stream": "a", "fold": "text", "attempt": 1}
    await worker.send({**piece, "seq": 3, "data": "He"})
    await client.expect("message")
    await client.send({"type": "stream_cancel", "stream": "a", "reason": "enough"})
    await worker.expect("stream_cancel")
    error = {"code": "stopped", "message": "by the client"}
    await worker.send({**piece, "seq": 4, "data": "llo", "end": True, "outcome": "cancelled", "error": error})
    await client.expect("message")
    await worker.send({**piece, "seq": 5, "data": "?"})
    assert (await worker.expect("error"))["code"] == "stream_over"
    await worker.send({"type": "message", "session": session, "seq": 5, "stream": "b", "fold": "text", "data": "open"})
    await client.expect("message")


async def _end(cluster: Cluster, client: Peer, worker: Peer, session: str) -> None:
    """End a session from each side, and turn a stranger away."""
    await client.send({"type": "bye", "reason": "done"})
    await client.expect("stream_state")
    await client.expect("session_ended")
    await worker.expect("session_ended")
    await worker.send({"type": "ack", "session": session, "seq": 1})
    await worker.expect("error")
    await worker.send({"type": "bye", "reason": "gone"})
    await worker.closed()
    stranger, error = await cluster.restore("new", "s_aaaaaaaaaaaaaaaaaaaaaaaa.c2VjcmV0")
    assert error["fatal"] is True
    with trio.fail_after(10):
        await stranger.closed()
