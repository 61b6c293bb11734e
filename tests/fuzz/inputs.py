"""How inputs are drawn: what may rightly be said in each place, damaged more or less."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from signald.testing.websocket import KEY
from tests.fuzz import mutate
from tests.fuzz.decoders import DECODERS

SESSION = "@SESSION@"
MESSAGES: dict[str, list[dict[str, Any]]] = {
    "client": [
        {"type": "connect", "auth": "a.b.c", "want": {"fuzz": "nobody"}, "meta": {"a": [1, {"b": None}]}, "receipts": True},
        {
            "type": "restore_session", "recovery_token": "s_a." + "A" * 43, "received": 3, "acked": 2, "attempt": 2, "history": 5,
            "ticket": "5.x",
        },
        {"type": "ping"},
    ],
    "worker": [
        {"type": "app_ready", "instance_id": "i", "capacity": 0, "labels": {"a": "b"}, "config": {}, "reconnection": False},
        {
            "type": "app_ready", "instance_id": "i", "reconnection": True, "recovery_token": "w_a." + "A" * 43, "last_close_code": 1006,
            "sessions": [{"session": "s_1", "received": 2, "acked": 1}], "attempt": 2,
        },
    ],
    "connected": [
        {"type": "message", "seq": 1, "data": {"text": "hi"}, "kind": "chat", "history": True, "trace": "00-a-b-01"},
        {"type": "ack", "seq": 1},
        {"type": "receipt", "seq": 1},
        {"type": "realtime", "data": [1, 2]},
        {"type": "bye", "reason": "done"},
        {"type": "error", "code": "x", "message": "y"},
        {"type": "auth", "auth": "a.b.c"},
    ],
    "paired": [
        {"type": "message", "session": SESSION, "seq": 1, "data": "hi", "kind": "chat"},
        {"type": "ack", "session": SESSION, "seq": 1},
        {"type": "realtime", "session": SESSION, "data": {}},
        {"type": "session_refuse", "session": SESSION, "reason": "no"},
        {"type": "session_accept", "session": SESSION},
        {"type": "bye", "session": SESSION, "reason": "done"},
        {"type": "bye"},
    ],
    "registered": [
        {"type": "app_state", "capacity": 0, "load": 0.5, "leaving": True},
        {"type": "app_terminated", "request_id": "r", "status": "OK", "message": ""},
        {"type": "session_accept", "session": "s_unknown"},
    ],
}  # fmt: skip
"""On each kind of connection what may be said there, rightly."""

SAID_BY_STAGE = {stage: [json.dumps(message).encode() for message in messages] for stage, messages in MESSAGES.items()}
REQUEST = (
    b"GET /v1/client HTTP/1.1\r\nHost: signald.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %b\r\n"
    b"Sec-WebSocket-Version: 13\r\n" % KEY
)
HEADERS = (
    b"Sec-WebSocket-Protocol: signald.v1, signald.bearer.YWJj", b"Authorization: Bearer a.b.c", b"Origin: https://evil.example",
    b"X-Forwarded-For: 10.0.0.1, 192.0.2.7", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\xff",
    b"Transfer-Encoding: chunked", b"Content-Length: 5", b"X: a\r\n b", b"Upgrade: websocket", b"Sec-WebSocket-Protocol: signald.bearer.!",
    b"Cookie: \x01", b"Sec-WebSocket-Extensions: ;;=,", b"Expect: 100-continue",
)  # fmt: skip
ADMIN_TOKEN = "fuzz" * 8
HTTP_SEEDS = (
    b"POST /v1/admin/drain HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + ADMIN_TOKEN.encode() + b"\r\n"
    b'content-type: application/json\r\ncontent-length: 15\r\n\r\n{"reason":"go"}',
    b"GET /v1/admin/sessions?limit=5 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer wrong\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /readyz?verbose HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /readyz HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /%2e%2e/%00?a=%ff HTTP/1.0\r\n\r\n",
    b"HEAD /livez HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    (
        b"GET /livez HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: ;=\r\n\r\n"
    ),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
TOML_SEED = (Path(__file__).parents[2] / "conf" / "signald.toml").read_bytes()


def make_frames(rng: Random) -> bytes:
    """Draw frames, and the connection they are sent on."""
    stage = mutate.pick(rng, ("client", "worker", "connected", "connected", "registered", "paired", "paired"))
    return stage.encode() + b" frames\n" + mutate.frames(SAID_BY_STAGE[stage], rng)


def make_json(rng: Random) -> bytes:
    """Draw a message, and where it is said."""
    stage = mutate.pick(rng, tuple(MESSAGES))
    # Also what belongs on another connection, or later on this one.
    message = mutate.pick(rng, MESSAGES[stage if rng.random() < 0.8 else mutate.pick(rng, tuple(MESSAGES))])
    text = mutate.json_like(message, rng)
    if rng.random() < 0.3:
        text = mutate.damage(text, rng)
    if rng.random() < 0.85:
        return stage.encode() + b" text\n" + text
    length = mutate.pick(rng, (len(text), len(text), len(text), 0, 1, len(text) + 1, 65535))
    return (
        stage.encode() + b" binary\n" + min(length, 65535).to_bytes(2, "big") + text + rng.randbytes(rng.randint(0, 9))
    )


def make_handshake(rng: Random) -> bytes:
    """Draw a request to open a WebSocket."""
    lines = [REQUEST, *[mutate.pick(rng, HEADERS) + b"\r\n" for _ in range(rng.randint(0, 3))], b"\r\n"]
    data = b"".join(lines)
    if rng.random() < 0.9:
        data = mutate.damage(data, rng, [REQUEST, *HTTP_SEEDS])
    return b"raw frames\n" + data


def make_http(rng: Random) -> bytes:
    """Draw requests to the HTTP half."""
    data = b"".join(mutate.pick(rng, HTTP_SEEDS) for _ in range(mutate.pick(rng, (1, 1, 2, 3))))
    return mutate.damage(data, rng, HTTP_SEEDS)


def make_toml(rng: Random) -> bytes:
    """Draw a configuration."""
    lines = TOML_SEED.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    part = b"".join(lines[start : start + rng.randint(5, 60)])
    # The file says each key as it is anyway, as a comment: some of them are really said.
    part = re.sub(rb"(?m)^# ?(\w+ = )", lambda found: found[1] if rng.random() < 0.3 else found[0], part)
    return mutate.damage(part, rng, [TOML_SEED]) if rng.random() < 0.9 else part


def make_decoder_input(rng: Random) -> bytes:
    """Draw an input of any decoder, behind its name."""
    name = mutate.pick(rng, tuple(DECODERS))
    data = DECODERS[name].draw(rng)
    return name.encode() + b"\n" + data


LIVE = {"frames": make_frames, "json": make_json, "handshakes": make_handshake, "http": make_http}
"""What a whole node is sent, by the name of the target that sends it to a part of one."""


def make_live(rng: Random) -> bytes:
    """Draw an input for a whole node; its first line says of which kind it is."""
    kind = mutate.pick(rng, (*LIVE, "frames", "json"))
    return kind.encode() + b"\n" + LIVE[kind](rng)
