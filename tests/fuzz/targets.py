"""What is fuzzed: for each target how an input is made, and how a run of inputs is judged."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import structlog
import trio
import trio.testing

from signald.config import ConfigError, load
from signald.http.admin import admin_routes
from signald.http.health import HealthStatus, http_app
from signald.http.listening import open_tcp
from signald.http.server import serve_http
from tests.cluster import open_cluster
from tests.fuzz import corpus, mutate
from tests.fuzz.decoders import DECODERS, decode
from tests.fuzz.party import Harm, Judge, complain, listening_for_complaints
from tests.fuzz.records import judging_records, make_record
from tests.net.clients import KEY, Client, open_files

Try = Callable[[bytes], Awaitable[str]]
Judging = AbstractAsyncContextManager[Try]

SESSION = "@SESSION@"
MESSAGES: dict[str, list[dict[str, Any]]] = {
    "client": [
        {"type": "connect", "auth": "a.b.c", "want": {"fuzz": "nobody"}, "meta": {"a": [1, {"b": None}]}, "receipts": True},
        {"type": "restore_session", "recovery_token": "s_a." + "A" * 43, "received": 3, "acked": 2, "history": 5, "ticket": "5.x"},
        {"type": "ping"},
    ],
    "worker": [
        {"type": "app_ready", "instance_id": "i", "capacity": 0, "labels": {"a": "b"}, "config": {}, "reconnection": False},
        {
            "type": "app_ready", "instance_id": "i", "reconnection": True, "recovery_token": "w_a." + "A" * 43, "last_close_code": 1006,
            "sessions": [{"session": "s_1", "received": 2, "acked": 1}],
        },
    ],
    "connected": [
        {"type": "message", "seq": 1, "data": {"text": "hi"}, "kind": "chat", "history": True, "trace": "00-a-b-01"},
        {"type": "ack", "seq": 1},
        {"type": "receipt", "seq": 1},
        {"type": "realtime", "data": [1, 2]},
        {"type": "bye", "reason": "done"},
        {"type": "error", "code": "x", "message": "y"},
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


class Target(NamedTuple):
    """One thing that is fuzzed."""

    make: Callable[[Random], bytes]
    """Draw an input."""
    open: Callable[[int], Judging]
    """Prepare a run of inputs, drawing what the judging itself needs from a seed; what it gives judges one input."""
    share: float
    """How much of a campaign it gets."""
    virtual: bool
    """It runs in virtual time."""


# --- over WebSocket ----------------------------------------------------------------------------------------------


def make_frames(rng: Random) -> bytes:
    stage = mutate.pick(rng, ("client", "worker", "connected", "connected", "registered", "paired", "paired"))
    return stage.encode() + b" frames\n" + mutate.frames(SAID_BY_STAGE[stage], rng)


def make_json(rng: Random) -> bytes:
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
    lines = [REQUEST, *[mutate.pick(rng, HEADERS) + b"\r\n" for _ in range(rng.randint(0, 3))], b"\r\n"]
    data = b"".join(lines)
    if rng.random() < 0.9:
        data = mutate.damage(data, rng, [REQUEST, *HTTP_SEEDS])
    return b"raw frames\n" + data


@asynccontextmanager
async def judging_node(seed: int) -> Any:
    """A node in this process, over memory streams in virtual time."""
    async with listening_for_complaints() as logged, open_cluster(seed) as cluster:
        node = await cluster.start("n1", session={"resume_ttl_s": 5.0}, worker={"resume_timeout_s": 1.0})
        tasks = Counter(task.name for task in _tasks())

        async def dial() -> Client:
            ours, theirs = trio.testing.memory_stream_pair()
            node.hub.spawn(node.server.serve_stream, theirs)
            return Client(ours)

        judge = Judge(dial, Random(seed), patience_s=20.0, quiet_s=0.2)
        await judge.begin()

        async def try_input(data: bytes) -> str:
            ended = await judge.try_input(data)
            complain(logged)
            return ended

        yield try_input
        await judge.end()
        await trio.sleep(60.0)  # every deadline there is
        left = {
            "connections": len(node.server.connections),
            "links": len(node.hub.links),
            "sessions": len(node.hub.sessions),
        }
        left |= {"blocked": len(node.hub.worker_links), "setups": node.hub.gate.in_progress}
        if any(left.values()):
            raise Harm(f"left behind: {left}")
        if more := Counter(task.name for task in _tasks()) - tasks:
            raise Harm(f"tasks left behind: {more}")


def _tasks() -> list[trio.lowlevel.Task]:
    found, todo = [], [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None:
            found.append(task)
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


# --- HTTP --------------------------------------------------------------------------------------------------------


def make_http(rng: Random) -> bytes:
    data = b"".join(mutate.pick(rng, HTTP_SEEDS) for _ in range(mutate.pick(rng, (1, 1, 2, 3))))
    return mutate.damage(data, rng, HTTP_SEEDS)


@asynccontextmanager
async def judging_http(seed: int) -> Any:
    """The health server on a port, and a connection beside that is answered every time."""
    rng, over = Random(seed), trio.Event()
    routes = admin_routes(lambda: None, token=lambda: ADMIN_TOKEN)
    app = http_app(lambda: HealthStatus(node="n", release="r", listening=True, store=True), routes=routes)
    before = open_files()
    async with listening_for_complaints() as logged, trio.open_nursery() as nursery:
        listeners = await open_tcp("127.0.0.1:0")
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(partial(serve_http, app, listeners, shutdown=over, grace_s=0.2))
        bystander = Client(await trio.open_tcp_stream("127.0.0.1", port))

        async def try_input(data: bytes) -> str:
            ended = await _try_http(port, data, rng)
            with trio.move_on_after(10) as late:
                await bystander.send(b"GET /livez HTTP/1.1\r\nhost: b\r\n\r\n")
                head = await bystander.response()
                while len(bystander.received) < 3:
                    bystander.received += await bystander.stream.receive_some()
                if not head.startswith(b"HTTP/1.1 200") or bytes(bystander.received) != b"ok\n":
                    raise Harm(f"somebody else was answered {head!r} {bytes(bystander.received)!r}")
                bystander.received.clear()
            if late.cancelled_caught:
                raise Harm("somebody else was not answered")
            complain(logged)
            return ended

        yield try_input
        await bystander.stream.aclose()
        over.set()
    if left := open_files() - before:
        raise Harm(f"descriptors left open: {left}")


async def _try_http(port: int, data: bytes, rng: Random) -> str:
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(0.5):
            try:
                await stream.send_all(data)
                if rng.random() < 0.8:
                    await stream.send_eof()
                async for chunk in stream:
                    answer += chunk
            except trio.BrokenResourceError:
                pass
    if not answer:
        return "hung up"
    statuses = [
        int(part[9:12]) for part in answer.split(b"\r\n") if part.startswith(b"HTTP/1.1 ") and part[9:12].isdigit()
    ]
    wrong = [status for status in statuses if status >= 500 and status not in (501, 503, 505)]
    if wrong or not answer.startswith(b"HTTP/1.1 "):
        raise Harm(f"answered {answer[:200]!r}")
    return str(statuses[0])


# --- without a connection ----------------------------------------------------------------------------------------


def make_toml(rng: Random) -> bytes:
    lines = TOML_SEED.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    part = b"".join(lines[start : start + rng.randint(5, 60)])
    # The file says each key as it is anyway, as a comment: some of them are really said.
    part = re.sub(rb"(?m)^# ?(\w+ = )", lambda found: found[1] if rng.random() < 0.3 else found[0], part)
    return mutate.damage(part, rng, [TOML_SEED]) if rng.random() < 0.9 else part


@asynccontextmanager
async def judging_toml(seed: int) -> Any:
    """The loader: a configuration, or a list of what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signald.toml"

        async def try_input(data: bytes) -> str:
            path.write_bytes(data)
            try:
                load(path, {})
            except ConfigError as error:
                if not error.problems or not all(problem.message for problem in error.problems):
                    raise Harm("refused without a reason") from None
                return "refused"
            return "loaded"

        yield try_input


def make_decoder_input(rng: Random) -> bytes:
    name = mutate.pick(rng, tuple(DECODERS))
    data = DECODERS[name].draw(rng)
    return name.encode() + b"\n" + data


@asynccontextmanager
async def judging_decoders(seed: int) -> Any:
    """Every decoder by itself: it takes an input or refuses it in the way it says."""

    async def try_input(data: bytes) -> str:
        name, _, body = data.partition(b"\n")
        return decode(name.decode("ascii", "replace"), body)

    yield try_input


TARGETS: dict[str, Target] = {
    "frames": Target(make_frames, judging_node, 0.25, virtual=True),
    "json": Target(make_json, judging_node, 0.25, virtual=True),
    "handshakes": Target(make_handshake, judging_node, 0.15, virtual=True),
    "http": Target(make_http, judging_http, 0.1, virtual=False),
    "toml": Target(make_toml, judging_toml, 0.05, virtual=False),
    "decoders": Target(make_decoder_input, judging_decoders, 0.1, virtual=False),
    "records": Target(make_record, judging_records, 0.1, virtual=False),
}


async def _run(target: Target, seed: int, inputs: list[bytes], done: list[str], timeout_s: float) -> None:
    with trio.fail_after(timeout_s):
        async with target.open(seed) as try_input:
            for data in inputs:
                ended = await try_input(data)
                done.append(ended)


def run(name: str, seed: int, inputs: list[bytes]) -> list[str]:
    """Judge `inputs` one after the other on one fresh target; return how each ended.

    Raises whatever is wrong; the note it carries says which input it was, if it was one.
    """
    target = TARGETS[name]
    clock = trio.testing.MockClock(autojump_threshold=0) if target.virtual else None
    done: list[str] = []
    structlog.reset_defaults()
    try:
        trio.run(_run, target, seed, inputs, done, 1e6 if target.virtual else 600.0, clock=clock)
    except BaseException as error:
        error.add_note(f"{name}, seed {seed}, input {len(done)} of {len(inputs)}")
        error.fuzz_index = len(done)  # type: ignore[attr-defined]
        raise
    return done


def kept(name: str) -> dict[str, bytes]:
    """The corpus of a target."""
    return corpus.kept(name)
