"""What is fuzzed: for each target how an input is made, and how a run of inputs is judged."""

import tempfile
import time
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
from signald.testing.cluster import open_cluster
from signald.testing.websocket import Client
from tests.fuzz import corpus
from tests.fuzz.decoders import decode
from tests.fuzz.inputs import (
    ADMIN_TOKEN,
    make_decoder_input,
    make_frames,
    make_handshake,
    make_http,
    make_json,
    make_live,
    make_toml,
)
from tests.fuzz.live import judging_live
from tests.fuzz.party import Harm, Judge, complain, listening_for_complaints, try_http
from tests.fuzz.records import judging_records, make_record
from tests.net.clients import open_files

Try = Callable[[bytes], Awaitable[str]]
Judging = AbstractAsyncContextManager[Try]


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
    inputs: int = 100
    """How many a fresh one is given before what it has left behind is looked at."""


# --- over WebSocket ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def judging_node(seed: int) -> Any:
    """A node in this process, over memory streams in virtual time."""
    async with listening_for_complaints() as logged, open_cluster(seed) as cluster:
        node = await cluster.start(
            "n1", session={"resume_ttl_s": 5.0}, worker={"resume_timeout_s": 1.0}, timeouts={"http_idle_s": 5.0}
        )
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
            ended = await try_http(port, data, rng)
            with trio.move_on_after(10) as late:
                await bystander.send(b"GET /livez HTTP/1.1\r\nhost: b\r\n\r\n")
                head = await bystander.response()
                while len(bystander.received) < 3:
                    bystander.received += await bystander.stream.receive_some()
                if not head.startswith(b"HTTP/1.1 200") or bytes(bystander.received) != b"ok\n":
                    raise Harm(f"another party was answered {head!r} {bytes(bystander.received)!r}")
                bystander.received.clear()
            if late.cancelled_caught:
                raise Harm("another party was not answered")
            complain(logged)
            return ended

        yield try_input
        await bystander.stream.aclose()
        over.set()
    if left := open_files() - before:
        raise Harm(f"descriptors left open: {left}")


# --- without a connection ----------------------------------------------------------------------------------------


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
    "live": Target(make_live, judging_live, 0.2, virtual=False, inputs=1000),
    "records": Target(make_record, judging_records, 0.1, virtual=False),
}


async def _run(target: Target, seed: int, inputs: list[bytes], done: list[str], timeout_s: float, until: float) -> None:
    with trio.fail_after(timeout_s):
        async with target.open(seed) as try_input:
            for data in inputs:
                if time.monotonic() > until:
                    break
                ended = await try_input(data)
                done.append(ended)


def run(name: str, seed: int, inputs: list[bytes], until: float = float("inf")) -> list[str]:
    """Judge `inputs` one after the other on one fresh target, as many as go in `until` that monotonic time; return how each ended.

    Raises whatever is wrong; the note it carries says which input it was, if it was one.
    """
    target = TARGETS[name]
    clock = trio.testing.MockClock(autojump_threshold=0) if target.virtual else None
    done: list[str] = []
    structlog.reset_defaults()
    try:
        trio.run(_run, target, seed, inputs, done, 1e6 if target.virtual else 3600.0, until, clock=clock)
    except BaseException as error:
        error.add_note(f"{name}, seed {seed}, input {len(done)} of {len(inputs)}")
        error.fuzz_index = len(done)  # type: ignore[attr-defined]
        raise
    return done


def kept(name: str) -> dict[str, bytes]:
    """The corpus of a target."""
    return corpus.kept(name)
