"""Admin APIs that act as the nodes of two releases do, for what real nodes do too seldom or too slowly."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import attrs

from signald.ctl.fleet import Fleet

Json = dict[str, Any]
TOKEN = "a token of thirty-two characters"


@attrs.define
class Pod:
    """One node as its admin API shows it."""

    name: str
    release: str
    moves_after: int = 1
    """How often it is asked for its status until its drain has moved all parties; -1: never."""
    stayed: int = 0
    by_signal: bool = False
    parties: list[str] | None = None
    live: bool = True
    """Whether the cluster lists it."""
    receipt: Json | None = None
    port: int = 0
    asked: list[str] = attrs.field(factory=list)
    """The orders it got."""
    polls: int = 0

    def status(self) -> Json:
        """What it says of itself."""
        if self.parties is not None:
            self.polls += 1
        held = self.moves_after != -1 and self.polls > self.moves_after
        drain = None
        if self.parties is not None:
            phase = "hold" if held and not self.by_signal else "workers"
            plan = {"stayed": self.stayed}
            drain = {"phase": phase, "parties": self.parties, "by_signal": self.by_signal, "plan": plan}
        return {
            "node": self.name,
            "release": self.release,
            "state": "ready" if drain is None else "draining",
            "line": "serving" if drain is None else "draining",
            "uptime_s": 1.0,
            "statistics": {"clients": 0, "workers": 0, "sessions": 0},
            "store": {"answers": True, "away_s": 0.0},
            "drain": drain,
        }

    def order(self, what: str, body: Json) -> Json:
        """Do as an operator says."""
        self.asked.append(what)
        if what == "drain":
            self.parties = sorted({*(self.parties or []), *body["parties"]})
        elif what == "abort":
            self.parties, self.polls = None, 0
        return self.status()


class Pods:
    """The pods of a test behind one name."""

    def __init__(self, pods: list[Pod]) -> None:
        self.pods = pods
        self.behind: list[Pod] = list(pods)
        """The addresses that the name resolves to."""
        self.lock = Lock()

    def resolve(self, _host: str, _port: int) -> list[tuple[str, int]]:
        """Stand in for the name service."""
        return [("127.0.0.1", pod.port) for pod in self.behind]

    def fleet(self, release: str = "") -> Fleet:
        """The pods of one release."""
        return Fleet("http://pods:8081", TOKEN, release=release, resolve=self.resolve)

    def answer(self, pod: Pod, method: str, path: str, body: Json) -> tuple[int, Json]:
        """What `pod` answers."""
        what = path.removeprefix("/v1/admin/")
        if method == "POST":
            return 200, pod.order(what, body)
        if what == "nodes":
            return 200, {"nodes": [{"node": one.name, "release": one.release} for one in self.pods if one.live]}
        if what.startswith("receipts/"):
            named = next(one for one in self.pods if one.name == what.removeprefix("receipts/"))
            if named.receipt is None:
                return 404, {"type": "urn:signald:problem:unknown-receipt", "detail": "none"}
            return 200, {"totals": named.receipt}
        return 200, pod.status()


def _handler(pods: Pods, pod: Pod) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            assert self.headers["authorization"] == f"Bearer {TOKEN}"
            with pods.lock:
                status, answer = pods.answer(pod, self.command, self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _serve  # noqa: N815 - the names http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def open_pods(*pods: Pod) -> Iterator[Pods]:
    """Serve the admin API of each pod on a port of its own."""
    opened = Pods(list(pods))
    servers = []
    for pod in pods:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(opened, pod))
        pod.port = server.server_address[1]
        servers.append(server)
    threads = [Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield opened
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
