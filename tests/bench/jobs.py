"""Jobs per second: accepted over HTTP, done by a worker, and their results at the client over its WebSocket.

Each client keeps one HTTP connection and has one job under way: it posts, and when it has both the 202 and the result it posts the next.
So there are as many jobs under way as clients. Beside it, in the same run:

    messages    the same clients and workers, with a plain message for each job and its echo for the result
    uvicorn     the same route on uvicorn and Starlette, with one write to Redis and no guarantee: nothing is checked for a repetition,
                no worker hears of it, and no result comes

The CPU of a job is the node's and redis-server's, the result's way included.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from signald.demo.cluster import free_port
from tests.bench.errors import BenchError
from tests.bench.http_links import HttpLink
from tests.bench.parties import ClientSession, Json, WorkerApp, WorkerLink, start_clients, start_workers, text
from tests.bench.report import Row, median, percentile
from tests.bench.servers import HOST, Child, Cores, Server, running, running_redis
from tests.bench.sockets import Address, Loop

UVICORN = "uvicorn-starlette"
MESSAGES = "messages"
BODY = json.dumps({"kind": "tts", "data": {"text": "x" * 100}}).encode()
SAYS = "x" * 128
LIMITS = "requests_per_s = 1e9\nrequests_burst = 1000000000"
"""What would be measured instead: a session is a principal of its own here, with 20 requests per second."""


class Meter:
    """Counts what is done, and how long each 202 took."""

    def __init__(self) -> None:
        self.done = 0
        self.accepted_s: list[float] = []

    def clear(self) -> None:
        """Begin a slice."""
        self.done = 0
        self.accepted_s = []


class JobClient(ClientSession):
    """A client that has one job under way."""

    def __init__(self, loop: Loop, meter: Meter) -> None:
        super().__init__(loop)
        self.meter = meter
        self.http: HttpLink | None = None
        self._headers = ""
        self._posted_at = 0.0
        self._number = 0
        self._waits_for = 0

    def opening(self) -> Json:
        """Ask for an API token as well."""
        return {**super().opening(), "api": True}

    def started(self, link: object, message: Json) -> None:
        """Keep the API token."""
        super().started(link, message)  # type: ignore[arg-type]
        self._headers = f"Authorization: Bearer {message['api_token']}\r\n"

    def begin(self, address: Address) -> None:
        """Post the first job on a connection that is kept."""
        self.http = HttpLink(self.loop, address)
        self._post()

    def _post(self) -> None:
        assert self.http is not None
        self._number += 1
        self._waits_for = 2  # for the 202, and for the result
        self._posted_at = time.perf_counter()
        self.http.post("/v1/jobs", f"{self._headers}Idempotency-Key: {self._number}\r\n", BODY, self._accepted)

    def _accepted(self, status: int, body: bytes) -> None:
        if status != 202:
            raise BenchError(f"a job was answered with {status}: {body[:300]!r}")
        self.meter.accepted_s.append(time.perf_counter() - self._posted_at)
        self._came()

    def heard(self, seq: int) -> None:
        """A result is here."""
        self._came()

    def _came(self) -> None:
        self._waits_for -= 1
        if not self._waits_for:
            self.meter.done += 1
            self._post()


class JobWorkerLink(WorkerLink):
    """A worker's connection that is given jobs."""

    def on_json(self, message: Json) -> None:
        """Do a job at once."""
        if message["type"] == "job":
            app = self.app
            held = app.sessions[message["session"]]
            held.sent += 1
            self.send(
                text(
                    {
                        "type": "message",
                        "session": message["session"],
                        "seq": held.sent,
                        "stream": message["job"],
                        "attempt": message["attempt"],
                        "end": True,
                        "data": SAYS,
                    }
                )
            )
        else:
            super().on_json(message)


class JobWorker(WorkerApp):
    """A worker that takes jobs of all kinds."""

    link_class = JobWorkerLink

    def opening(self) -> Json:
        """Say so."""
        return {**super().opening(), "jobs": ["*"]}


class Talker(ClientSession):
    """A client with one plain message under way."""

    def __init__(self, loop: Loop, meter: Meter) -> None:
        super().__init__(loop, SAYS)
        self.meter = meter

    def begin(self, _address: Address) -> None:
        """Say the first message."""
        self.say()

    def heard(self, seq: int) -> None:
        """The echo is here."""
        self.meter.done += 1
        self.say()


def measure(name: str, what: str, loop: Loop, server: Server, meter: Meter, seconds: float, slices: int) -> Row:
    """Return the figures of `slices` slices of `seconds`, behind one that warms up."""
    rates, server_ms, redis_ms, accepted = [], [], [], []
    for number in range(slices + 1):
        meter.clear()
        server_s, redis_s = server.cpu_s()
        spent = loop.run_for(seconds)
        server_end_s, redis_end_s = server.cpu_s()
        if not meter.done:
            raise BenchError(f"{name}: nothing was done within {spent:.1f} s")
        if number:
            rates.append(meter.done / spent)
            server_ms.append((server_end_s - server_s) * 1000 / meter.done)
            redis_ms.append((redis_end_s - redis_s) * 1000 / meter.done)
            accepted += meter.accepted_s
    return {
        "server": name,
        "what": what,
        "per s": median(rates),
        "202 p50 ms": percentile(accepted, 50) * 1000 if accepted else None,
        "202 p99 ms": percentile(accepted, 99) * 1000 if accepted else None,
        "cpu ms each": median(server_ms),
        "redis ms each": median(redis_ms),
        "together ms": median([one + other for one, other in zip(server_ms, redis_ms, strict=True)]),
    }


def scenario(name: str, cores: Cores, clients: int, workers: int, seconds: float, slices: int) -> list[Row]:
    """Measure jobs and plain messages on one of SIGNALD."""
    rows = []
    for what, client_class, worker_class in (("jobs", JobClient, JobWorker), (MESSAGES, Talker, WorkerApp)):
        loop, meter = Loop(), Meter()
        try:
            with running(name, cores, limits=LIMITS) as server:
                room = -(-clients // workers)
                start_workers(
                    loop, server.address, [worker_class(loop, f"bench-{n}", room, SAYS) for n in range(workers)]
                )
                parties = [client_class(loop, meter) for _ in range(clients)]
                start_clients(loop, server.address, parties)
                for party in parties:
                    party.begin(server.address)
                rows.append(measure(name, what, loop, server, meter, seconds, slices))
        finally:
            loop.close()
    return rows


# --- the baseline -------------------------------------------------------------------------------------------------


class Poster:
    """Posts to the baseline, one request at a time."""

    def __init__(self, loop: Loop, meter: Meter, address: Address) -> None:
        self._meter = meter
        self._http = HttpLink(loop, address)
        self._number = 0
        self._post()

    def _post(self) -> None:
        self._number += 1
        self._posted_at = time.perf_counter()
        self._http.post("/v1/jobs", f"Idempotency-Key: {self._number}\r\n", BODY, self._accepted)

    def _accepted(self, status: int, body: bytes) -> None:
        if status != 202:
            raise BenchError(f"the baseline answered {status}: {body[:300]!r}")
        self._meter.accepted_s.append(time.perf_counter() - self._posted_at)
        self._meter.done += 1
        self._post()


@contextmanager
def _uvicorn(cores: Cores) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="signald-bench-") as temporary:
        folder = Path(temporary)
        with running_redis(cores.redis, folder) as (redis_child, url):
            port = free_port()
            command = [sys.executable, "-m", "tests.bench.jobs_baseline", str(port), url]
            child = Child(UVICORN, command, cores.server, folder / "uvicorn.log")
            try:
                child.wait_until(child.has_written)
                yield Server(child, (HOST, port), redis_child)
            finally:
                child.stop()


def baseline(cores: Cores, clients: int, seconds: float, slices: int) -> Row:
    """Measure the route without guarantees."""
    loop, meter = Loop(), Meter()
    try:
        with _uvicorn(cores) as server:
            for _ in range(clients):
                Poster(loop, meter, server.address)
            return measure(UVICORN, "202 alone", loop, server, meter, seconds, slices)
    finally:
        loop.close()
