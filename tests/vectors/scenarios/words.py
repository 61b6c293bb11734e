"""The inputs of which scenarios are made, and the usual answers of a node."""

import base64
from typing import Any

Step = dict[str, Any]
Vector = dict[str, Any]

LIMITS = {"message_bytes": 65536, "messages_per_s": 20.0, "messages_burst": 100, "backlog_messages": 1000}


def vector(
    name: str, about: str, steps: list[Any], party: str = "client", random: float = 0.5, **options: Any
) -> Vector:
    """Return a vector; lists among its steps are steps one behind the other."""
    flat: list[Step] = []
    for step in steps:
        flat += step if isinstance(step, list) else [step]
    return {"name": name, "about": about, "party": party, "random": random, "options": options, "steps": flat}


def wait(at: int) -> Step:
    """Let the time pass."""
    return {"at": at, "wait": True}


def opened(at: int, connection: int) -> Step:
    """A connection stands."""
    return {"at": at, "open": connection}


def failed(at: int, connection: int, **fields: Any) -> Step:
    """A connection does not come about."""
    return {"at": at, "fail": connection, **fields}


def got(at: int, on: int, type_: str, /, **fields: Any) -> Step:
    """A message of the node."""
    return {"at": at, "on": on, "frame": {"type": type_, **fields}}


def binary(at: int, on: int, data: bytes, type_: str, /, **header: Any) -> Step:
    """A message of the node with bytes."""
    said = {"header": {"type": type_, **header}, "base64": base64.b64encode(data).decode()}
    return {"at": at, "on": on, "binary": said}


def text(at: int, on: int, raw: str) -> Step:
    """A text frame of the node that need not be JSON."""
    return {"at": at, "on": on, "text": raw}


def closed(at: int, on: int, code: int | None, reason: str = "") -> Step:
    """The node closes, or the connection breaks (None)."""
    return {"at": at, "on": on, "closed": code, "reason": reason}


def call(at: int, name: str, /, **fields: Any) -> Step:
    """The application calls the SDK."""
    return {"at": at, "call": name, **fields}


def error(at: int, on: int, code: str, /, **fields: Any) -> Step:
    """An error of the node."""
    return got(at, on, "error", code=code, message="said", **fields)


def started(at: int, on: int, worker: str | None = "w_1", **fields: Any) -> Step:
    """The answer to `connect`."""
    peer = {"state": "paired", "id": worker} if worker else {"state": "waiting", "id": None}
    usual = {
        "session": "s_1",
        "recovery_token": "s_1.first",
        "token_ttl_ms": 300_000,
        "peer": peer,
        "next_seq": 1,
        "limits": LIMITS,
        "heartbeat_ms": 20_000,
    }
    return got(at, on, "session_started", **{**usual, **fields})


def restored(at: int, on: int, accepted: int, token: str = "s_1.next", **fields: Any) -> Step:
    """The answer to `restore_session`."""
    usual = {
        "session": "s_1",
        "recovery_token": token,
        "token_ttl_ms": 300_000,
        "accepted": accepted,
        "replaying": 0,
        "peer": {"state": "paired", "id": "w_1"},
        "heartbeat_ms": 20_000,
    }
    return got(at, on, "session_restored", **{**usual, **fields})


def talking(**fields: Any) -> list[Step]:
    """A client that is paired, on its first connection."""
    return [wait(0), opened(10, 1), started(20, 1, **fields)]


def registered(at: int, on: int, **fields: Any) -> Step:
    """The answer to the first `app_ready`."""
    usual = {
        "status": "OK",
        "worker": "w_1",
        "recovery_token": "w_1.first",
        "token_ttl_ms": 300_000,
        "heartbeat_ms": 20_000,
    }
    return got(at, on, "app_accepted", **{**usual, **fields})


def reconnected(at: int, on: int, kept: dict[str, int], lost: list[str] | None = None, **fields: Any) -> Step:
    """The answer to an `app_ready` that resumes."""
    sessions = [{"session": name, "accepted": accepted, "replaying": 0} for name, accepted in kept.items()]
    usual = {
        "status": "OK",
        "worker": "w_1",
        "recovery_token": "w_1.next",
        "token_ttl_ms": 300_000,
        "session_restored": not lost,
        "server_status": "ready",
        "sessions": sessions,
        "lost": lost or [],
        "heartbeat_ms": 20_000,
    }
    return got(at, on, "reconnection_ack", **{**usual, **fields})


def assigned(at: int, on: int, session: str = "s_1", next_seq: int = 1, **fields: Any) -> Step:
    """A session for the worker."""
    return got(
        at, on, "session_assigned", **{"session": session, "client": {}, "next_seq": next_seq, "epoch": 7, **fields}
    )


def working(**fields: Any) -> list[Step]:
    """A worker with one session."""
    return [wait(0), opened(10, 1), registered(20, 1, **fields), assigned(30, 1)]


def message(at: int, on: int, seq: int, data: Any, /, **fields: Any) -> Step:
    """A message of the peer."""
    return got(at, on, "message", seq=seq, data=data, **fields)


def goaway(at: int, on: int, deadline_ms: int = 30_000, not_before_ms: int = 0, **fields: Any) -> Step:
    """The node goes away."""
    return got(at, on, "goaway", reason="drain", not_before_ms=not_before_ms, deadline_ms=deadline_ms, **fields)
