"""A real node with parties, whose credentials and ids make requests that reach into every operation."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import attrs
import httpx2
import jwt
import trio
import trio_websocket
from prometheus_client.parser import text_string_to_metric_families

from signald.demo.cluster import Node
from signald.testing.wire import Json, Peer
from tests.real.harness import Settings, dial, open_nodes, probe, url_of

SECRET: Final = "s" * 48
SETTINGS: Final[Settings] = {
    "auth": {"jwt_secret": SECRET},
    # The rate has its own tests; here it would make every answer the same.
    "limits": {"requests_per_s": 100_000.0, "requests_burst": 100_000},
}
CLIENTS: Final = 6
"""More than one, so that a request can name another's session."""

ROOMS: Final = {"rooms": {"*": ["join", "publish", "state"]}}
"""What parties may in rooms: a refusal would be the same for each operation."""

Caller = Literal["nobody", "client", "worker", "service", "person"]
CALLERS: Final[tuple[Caller, ...]] = ("nobody", "client", "worker", "service", "person")


@attrs.frozen
class Served:
    """A node, and what a program may know of it."""

    url: str
    credentials: dict[Caller, str]
    """Caller → what it shows in `Authorization`; "nobody" shows nothing."""
    ids: dict[str, list[str]]
    """Name of a parameter → values that exist."""
    node: Node

    def is_first(self, name: str, value: str) -> bool:
        """Tell whether an id is that of the first session, which is the client's own, or of a job in it."""
        letters = self.ids["session"][0].removeprefix("s_")
        return name in ("session", "job") and letters in value

    async def answered(self, status_class: str = "") -> Counter[tuple[str, str]]:
        """How many requests of each (method, path) the node has answered, by its metrics: all, or those of `status_class`."""
        _, text = await probe(self.node, "/metrics")
        found: Counter[tuple[str, str]] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                if sample.name == "signald_api_requests_total" and status_class in ("", labels["class"]):
                    found[labels["method"], labels["route"].replace(":path}", "}")] += int(sample.value)
        return +found


def credential(role: str, subject: str, **claims: object) -> str:
    """Return a JWT of the users' own service."""
    return jwt.encode({"sub": subject, "role": role, "exp": time.time() + 86_400, **claims}, SECRET, "HS256")


@asynccontextmanager
async def serving(directory: Path, store: str = "memory:") -> AsyncIterator[Served]:
    """Run a node with a worker and some clients of one subject, which have talked."""
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(open_nodes(directory, store, SETTINGS))
        node = await nodes.start("n1")
        nursery = await stack.enter_async_context(trio.open_nursery())
        worker = await stack.enter_async_context(dial(url_of(node), "/v1/worker"))
        ready: Json = {"type": "app_ready", "instance_id": "w", "capacity": 1000, "api": True, "jobs": ["*"]}
        accepted = await worker.ask({**ready, "auth": credential("worker", "bot", **ROOMS)}, "app_accepted")
        nursery.start_soon(_work, worker)
        sessions: list[str] = []
        tokens: list[str] = []
        for _ in range(CLIENTS):
            client = await stack.enter_async_context(dial(url_of(node), "/v1/client"))
            hello: Json = {
                "type": "connect",
                "api": True,
                "meta": {"name": "Ann"},
                "auth": credential("client", "ann", **ROOMS),
            }
            started = await client.ask(hello, "session_started")
            await client.send({"type": "message", "seq": 1, "data": {"text": "hello"}})
            await client.expect("ack")
            nursery.start_soon(_listen, client)
            sessions.append(started["session"])
            tokens.append(started["api_token"])
        credentials: dict[Caller, str] = {
            "nobody": "",
            "client": tokens[0],
            "worker": accepted["api_token"],
            "service": credential("service", "backend"),
            "person": credential("client", "ann", **ROOMS),
        }
        url = url_of(node).replace("ws://", "http://")
        jobs = await trio.to_thread.run_sync(_submit, url, tokens)
        blobs = await trio.to_thread.run_sync(_upload, url, tokens[0])
        ids = {"session": sessions, "subject": ["ann"], "job": jobs, "stream": ["answer-1", *jobs[:2]], "blob": blobs}
        await trio.to_thread.run_sync(_publish, url, credentials["service"])
        ids["room"] = ["lobby", "canvas:1"]
        yield Served(url, credentials, ids, node)
        nursery.cancel_scope.cancel()


def _submit(url: str, tokens: Sequence[str]) -> list[str]:
    """Submit a job that ends and one that expires in each session; return their ids."""
    jobs = []
    for token in tokens:
        for number, deadline_ms in enumerate((60_000, 1)):
            headers = {"authorization": f"Bearer {token}", "idempotency-key": f"key-{number}"}
            body = {"kind": "tts", "data": [number], "deadline_ms": deadline_ms}
            made = httpx2.post(f"{url}/v1/jobs", headers=headers, json=body)
            jobs.append(made.raise_for_status().json()["job"])
    return jobs


def _publish(url: str, token: str) -> None:
    """Make rooms with records, and with publications of each kind."""
    headers = {"authorization": f"Bearer {token}"}
    for room in ("lobby", "canvas:1"):
        for body in ({"data": {"text": "hello"}, "kind": "chat"}, {"put": {"a": {"x": 1}}}, {"remove": ["b"]}):
            httpx2.post(f"{url}/v1/rooms/{room}/messages", headers=headers, json=body).raise_for_status()


def _upload(url: str, token: str) -> list[str]:
    """Upload blobs of several sizes, enough that some are left when others have been removed; return their ids."""
    blobs = []
    for size in (0, 1, *[1000] * 10, 200_000):
        headers = {"authorization": f"Bearer {token}", "content-type": "audio/ogg"}
        made = httpx2.post(f"{url}/v1/blobs", headers=headers, content=bytes(size))
        blobs.append(made.raise_for_status().json()["blob"])
    return blobs


async def _work(worker: Peer) -> None:
    """Take every session, and answer each message with a stream of two pieces."""
    told: dict[str, int] = {}
    try:
        while True:
            frame = await worker.receive()
            session = frame.get("session", "")
            if frame["type"] == "session_assigned":
                told[session] = frame["next_seq"]
                await worker.send({"type": "session_accept", "session": session, "epoch": frame["epoch"]})
            elif frame["type"] in ("message", "job"):
                stream: Json = {"stream": f"answer-{frame.get('seq')}", "fold": "text"}
                if frame["type"] == "job":
                    stream |= {"stream": frame["job"], "attempt": frame["attempt"]}
                else:
                    await worker.send({"type": "ack", "session": session, "seq": frame["seq"]})
                for last in (False, True):
                    piece: Json = {"type": "message", "session": session, "seq": told[session], "data": "piece"}
                    await worker.send({**piece, **stream, **({"end": True} if last else {})})
                    told[session] += 1
    except trio_websocket.ConnectionClosed:
        return


async def _listen(client: Peer) -> None:
    """Ack what comes, until the session ends."""
    try:
        while True:
            frame = await client.receive()
            if frame["type"] == "message":
                await client.send({"type": "ack", "seq": frame["seq"]})
    except trio_websocket.ConnectionClosed:
        return
