"""Every function that turns bytes of others into something of ours. Each takes its input, or refuses it as it says it does.

A decoder here is how to draw an input for it, mostly a damaged right one, and how to call it. Calling it returns `taken` or
`refused`; any other exception than its documented refusal is a failure, and so is an answer that breaks the decoder's promise.
"""

import ipaddress
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import jwt
import msgspec

from signald.addresses import ProxyTrust
from signald.config import AuthConfig, ConfigError, load, parse_address
from signald.core import api_tokens, jwks, tickets, tokens
from signald.errors import BadMessage, StoreMisused, UnknownType
from signald.net.frames import Close, FrameDecoder, Message, Ping, Pong, ProtocolError
from signald.net.handshake import HandshakeReader, HandshakeRefused
from signald.sdk.backoff import hint_ms
from signald.sdk.decoding import decode_for_client, decode_for_worker
from signald.sdk.errors import LinkBroken
from signald.service.auth import Authenticator, Forbidden, Principal, Unauthenticated
from signald.store.redis_url import parse_url
from signald.testing.websocket import request
from signald.wire import codec
from signald.wire.messages import Message as WireMessage
from signald.wire.messages import Realtime
from tests.fuzz import mutate
from tests.net.settings import settings_of

TAKEN, REFUSED = "taken", "refused"
DEPTH_MAX = 32
SECRET = "correct horse battery staple, said twice"
NOW = 1_000_000.0

TO_SERVER: tuple[dict[str, Any], ...] = (
    {"type": "connect", "auth": "x", "want": {"a": "b"}, "meta": {"a": [1]}, "receipts": True, "trace": "t", "api": True},
    {"type": "restore_session", "recovery_token": "t", "received": 1, "acked": 1, "attempt": 2, "auth": "a", "history": 5, "ticket": "t"},
    {"type": "message", "session": "s_1", "seq": 1, "data": {"a": [None, 1.5, "x"]}, "kind": "k", "history": True, "trace": "t"},
    {"type": "ack", "session": "s_1", "seq": 1},
    {"type": "receipt", "seq": 1},
    {"type": "realtime", "session": "s_1", "data": [1]},
    {"type": "bye", "reason": "r", "session": "s_1"},
    {"type": "error", "code": "c", "message": "m"},
    {"type": "auth", "auth": "a.b.c"},
    {
        "type": "app_ready", "instance_id": "i", "capacity": 1, "labels": {"a": "b"}, "config": {}, "reconnection": True,
        "last_close_code": 1006, "recovery_token": "t", "sessions": [{"session": "s", "received": 1, "acked": 1}], "ticket": "t",
        "attempt": 2,
    },
    {"type": "session_accept", "session": "s_1"},
    {"type": "session_refuse", "session": "s_1", "reason": "r"},
    {"type": "app_state", "capacity": 1, "load": 0.5, "leaving": True},
    {"type": "app_terminated", "request_id": "r", "status": "OK", "message": "m"},
)  # fmt: skip
_PEER = {"state": "paired", "id": "w_1"}
_LIMITS = {"message_bytes": 1, "messages_per_s": 2.0, "messages_burst": 3, "backlog_messages": 4}
_TOKEN = {"recovery_token": "s_1.x", "token_ttl_ms": 5, "heartbeat_ms": 6}
TO_PARTY: tuple[dict[str, Any], ...] = (
    {"type": "session_started", "session": "s_1", **_TOKEN, "peer": _PEER, "next_seq": 1, "limits": _LIMITS},
    {"type": "session_restored", "session": "s_1", **_TOKEN, "accepted": 1, "replaying": 0, "peer": _PEER, "chat_history": [{"seq": 1}]},
    {"type": "peer", "state": "away", "id": "w_1"},
    {"type": "session_ended", "reason": "r", "session": "s_1"},
    {"type": "app_accepted", "status": "ok", "worker": "w_1", **_TOKEN},
    {
        "type": "reconnection_ack", "status": "ok", "worker": "w", **_TOKEN, "session_restored": True, "server_status": "running",
        "sessions": [{"session": "s", "accepted": 1, "replaying": 1}], "lost": ["s_2"],
    },
    {"type": "session_assigned", "session": "s_1", "client": {"meta": {}}, "next_seq": 1, "chat_history": []},
    {"type": "terminate_app", "request_id": "r", "reason": "r", "deadline_ms": 5},
    {"type": "error", "code": "gap", "message": "m", "fatal": False, "expected": 4, "retry_after_ms": 5, "lost_from": 1, "lost_to": 2},
    {"type": "goaway", "reason": "r", "not_before_ms": 0, "deadline_ms": 5, "target": "wss://b", "ticket": "t"},
    {"type": "api_token", "api_token": "a.b.c", "api_token_ttl_ms": 900_000},
    {"type": "message", "session": "s_1", "seq": 1, "data": 1},
    {"type": "ack", "seq": 1},
    {"type": "ping"},
)  # fmt: skip


def _promised(holds: bool) -> str:
    """Refused, and as it should be."""
    assert holds, "not refused as it should be"
    return REFUSED


class Decoder(NamedTuple):
    """One decoder: how an input is drawn, and how it is called."""

    draw: Callable[[Random], bytes]
    call: Callable[[bytes], str]


# --- messages ------------------------------------------------------------------------------------------------------


def _json_of(messages: Sequence[dict[str, Any]]) -> Callable[[Random], bytes]:
    def draw(rng: Random) -> bytes:
        text = mutate.json_like(mutate.pick(rng, messages), rng)
        return mutate.damage(text, rng) if rng.random() < 0.3 else text

    return draw


def _binary_of(messages: Sequence[dict[str, Any]]) -> Callable[[Random], bytes]:
    def draw(rng: Random) -> bytes:
        message = dict(mutate.pick(rng, messages))
        message.pop("data", None)
        header = mutate.json_like(message, rng, 0.03)[:60_000]
        length = mutate.pick(rng, (len(header),) * 8 + (0, 1, len(header) + 1, 65535))
        data = min(length, 65535).to_bytes(2, "big") + header + rng.randbytes(rng.randint(0, 9))
        return mutate.damage(data, rng) if rng.random() < 0.3 else data

    return draw


def _message(party: str, *, text: bool) -> Callable[[bytes], str]:
    decode_one = codec.decode_client if party == "client" else codec.decode_worker

    def call(data: bytes) -> str:
        try:
            message, binary = decode_one(text, data, DEPTH_MAX)
        except (BadMessage, UnknownType) as refusal:
            str(refusal).encode("utf-8", "surrogatepass")
            return REFUSED
        assert (binary is not None) is not text
        if isinstance(message, WireMessage | Realtime) and text and _is_utf8(data):
            json.loads(bytes(message.data), parse_int=len)  # its receiver must be able to parse it
        return TAKEN

    return call


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _sdk(party: str, *, text: bool) -> Callable[[bytes], str]:
    decode_one: Callable[[Any], Any] = decode_for_client if party == "client" else decode_for_worker

    def call(data: bytes) -> str:
        try:
            message, _ = decode_one(data.decode("utf-8", "replace") if text else data)
        except LinkBroken:
            return REFUSED
        return TAKEN if message is not None else REFUSED

    return call


# --- credentials ---------------------------------------------------------------------------------------------------


def _damaged(*seeds: bytes) -> Callable[[Random], bytes]:
    def draw(rng: Random) -> bytes:
        seed: bytes = mutate.pick(rng, seeds)
        return mutate.damage(seed, rng, seeds) if rng.random() < 0.95 else seed

    return draw


def _token(data: bytes) -> str:
    found = tokens.parse(data.decode("utf-8", "replace"))
    if found is None:
        return REFUSED
    assert len(found[1]) == 32
    assert 0 < len(found[0]) <= 64
    return TAKEN


def _ticket(data: bytes) -> str:
    right = tickets.make(b"k" * 32, "s_1", 5000)
    text = data.decode("utf-8", "replace")
    good = tickets.valid(b"k" * 32, "s_1", text, 1000)
    assert good is (text == right), "a ticket is taken as it was made, or not at all"
    return TAKEN if good else REFUSED


_API_KEY = b"k" * 32
_API_CLAIMS = {"kind": "client", "owner": "s_1", "principal": "t\x1falice", "iat": int(NOW), "exp": int(NOW) + 60}
_API_HEADER = {"kid": "k", "typ": api_tokens.TYPE}


def _api_token(data: bytes) -> str:
    said = api_tokens.read(data.decode("utf-8", "surrogateescape"), _API_KEY, int(NOW) * 1000)
    if said is None:
        return REFUSED
    assert said.exp > NOW
    assert said.caller.session or said.caller.worker
    return TAKEN


def _draw_api_token(rng: Random) -> bytes:
    """A token with a strange statement and a right signature, or a damaged one."""
    claims = mutate.json_like(_API_CLAIMS, rng, 0.2)
    token = jwt.api_jws.encode(claims, _API_KEY, algorithm="HS256", headers=_API_HEADER).encode()
    return mutate.damage(token, rng) if rng.random() < 0.5 else token


_AUTH = Authenticator.from_config(AuthConfig(jwt_secret=SECRET))
_CLAIMS: dict[str, Any] = {"sub": "alice", "role": "client", "exp": NOW + 60, "nbf": NOW - 60, "tenant": "t"}


def _bearer(data: bytes) -> str:
    try:
        principal = _AUTH.authenticate(data.decode("utf-8", "surrogateescape"), "client", NOW)
    except (Unauthenticated, Forbidden):
        return REFUSED
    assert isinstance(principal, Principal)
    assert principal.subject
    return TAKEN


def _draw_bearer(rng: Random) -> bytes:
    """A token with strange claims and a right signature, or a damaged one."""
    claims = mutate.json_like(_CLAIMS, rng, 0.2)
    token = jwt.api_jws.encode(claims, SECRET, algorithm="HS256").encode()
    return mutate.damage(token, rng) if rng.random() < 0.5 else token


_SET = {
    "keys": [
        {"kty": "RSA", "kid": "a", "use": "sig", "alg": "RS256", "e": "AQAB", "n": "y" * 342},
        {"kty": "EC", "kid": "b", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "key_ops": ["verify"]},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "oct", "kid": "s", "k": "c2VjcmV0"},
    ]
}


def _key_set(data: bytes) -> str:
    try:
        found = jwks.parse(data)
    except jwks.BadKeySet as error:
        return _promised(len(str(error)) < 4000)
    assert 0 < len(found.keys) <= jwks.KEYS_MAX
    for key in found.keys:
        assert key.algorithms
        assert not any(name.startswith("HS") or name == "none" for name in key.algorithms)
    return TAKEN


def _draw_key_set(rng: Random) -> bytes:
    made = mutate.json_like(_SET, rng, 0.1)
    return mutate.damage(made, rng) if rng.random() < 0.3 else made


# --- the network ---------------------------------------------------------------------------------------------------


def _frames(data: bytes) -> str:
    decoder = FrameDecoder(message_bytes_max=65536, fragments_max=128)
    for event in decoder.feed(data):
        assert isinstance(event, Message | Ping | Pong | Close)
        assert not isinstance(event, Message) or not event.text or _is_utf8(event.payload)
    assert len(decoder.remainder) <= 65536 + 14
    if decoder.failed is None:
        return TAKEN
    try:
        decoder.feed(b"more")
    except ProtocolError as error:
        return _promised(error.code in (1002, 1007, 1009))
    raise AssertionError("a failed decoder goes on")


def _request(data: bytes) -> str:
    try:
        found = HandshakeReader(settings_of(allowed_origins=("https://a",))).feed(data)
    except HandshakeRefused as refused:
        answer = refused.response
        in_form = answer.startswith(b"HTTP/1.1 %d " % refused.status) and answer.count(b"\r\n\r\n") == 1
        return _promised(in_form and 400 <= refused.status < 500)
    return REFUSED if found is None else TAKEN


def _proxy(data: bytes) -> str:
    trust = ProxyTrust(["10.0.0.0/8", "fd00::/8"])
    remote = trust.remote("10.0.0.1", data.decode("latin-1"))
    ipaddress.ip_address(remote)
    return TAKEN


def _hint(data: bytes) -> str:
    found = hint_ms(data.decode("utf-8", "replace"))
    assert found is None or found >= 0
    return REFUSED if found is None else TAKEN


# --- configuration -------------------------------------------------------------------------------------------------


def _environment(data: bytes) -> str:
    name, _, value = data.decode("utf-8", "surrogateescape").partition("=")
    try:
        load(None, {"SIGNALD_" + name: value})
    except ConfigError as error:
        return _promised(bool(error.problems))
    return TAKEN


def _store_url(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    try:
        parse_url(text)
    except StoreMisused as error:
        return _promised("hunter2" not in str(error))  # a URL may hold a password
    return TAKEN


def _address(data: bytes) -> str:
    try:
        _, port = parse_address(data.decode("utf-8", "surrogateescape"))
    except ValueError:
        return REFUSED
    assert 0 <= port < 65536
    return TAKEN


DECODERS: dict[str, Decoder] = {
    "client-text": Decoder(_json_of(TO_SERVER), _message("client", text=True)),
    "client-binary": Decoder(_binary_of(TO_SERVER), _message("client", text=False)),
    "worker-text": Decoder(_json_of(TO_SERVER), _message("worker", text=True)),
    "worker-binary": Decoder(_binary_of(TO_SERVER), _message("worker", text=False)),
    "sdk-client-text": Decoder(_json_of(TO_PARTY), _sdk("client", text=True)),
    "sdk-client-binary": Decoder(_binary_of(TO_PARTY), _sdk("client", text=False)),
    "sdk-worker-text": Decoder(_json_of(TO_PARTY), _sdk("worker", text=True)),
    "sdk-worker-binary": Decoder(_binary_of(TO_PARTY), _sdk("worker", text=False)),
    "token": Decoder(_damaged(b"s_abcdefgh." + b"A" * 43, b"w_1." + b"-_" * 21 + b"A"), _token),
    "ticket": Decoder(_damaged(tickets.make(b"k" * 32, "s_1", 5000).encode(), b"5000.x", b"-1.x"), _ticket),
    "bearer": Decoder(_draw_bearer, _bearer),
    "key-set": Decoder(_draw_key_set, _key_set),
    "api-token": Decoder(_draw_api_token, _api_token),
    "frames": Decoder(lambda rng: mutate.frames([msgspec.json.encode(one) for one in TO_SERVER], rng), _frames),
    "request": Decoder(
        _damaged(
            request("/v1/client"),
            request("/v1/worker?x=1", (b"authorization", b"Bearer a.b.c"), (b"origin", b"https://a")),
            request("/v1/client", (b"sec-websocket-protocol", b"signald.v1, signald.bearer.YWJj")),
            request("/v1/client?token=x", method=b"POST", without=(b"Upgrade",)),
        ),
        _request,
    ),
    "proxy": Decoder(_damaged(b"192.0.2.1, 10.0.0.2", b"2001:db8::1, fd00::2, 10.1.1.1", b"unknown, [::1]:80"), _proxy),
    "close-reason": Decoder(_damaged(b'{"retry_after_ms":1000}', b'{"retry_after_ms":1e400}', b"going away"), _hint),
    "environment": Decoder(
        _damaged(
            b"LISTEN__BACKLOG=5", b"STORE__URL=redis://a", b"LISTEN__ALLOWED_ORIGINS=https://a, https://b", b"LOG__LEVEL=debug",
            b"DRAIN__TIMEOUT_S=30.5", b"AUTH__INSECURE=true",
        ),
        _environment,
    ),
    "store-url": Decoder(
        _damaged(
            b"redis://u:hunter2@h:6379/1", b"rediss+sentinel://h,[::1]:5/svc/0?ssl_check_hostname=no", b"redis+cluster://:hunter2@a,b:1"
        ),
        _store_url,
    ),
    "address": Decoder(_damaged(b"127.0.0.1:8080", b"[::1]:0", b":65535", b"localhost:1"), _address),
}  # fmt: skip


def decode(name: str, data: bytes) -> str:
    """Let the decoder called `name` have `data`."""
    return DECODERS[name].call(data)
