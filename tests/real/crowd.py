"""Thousands of sockets against one real node: the node as a child, timers, and parties that take no for an answer.

Built on the benchmarks' loop, because a task for each of ten thousand parties would be what is measured.
"""

import heapq
import itertools
import json
import random
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from signald.demo.cluster import free_port, render_toml
from tests.bench.errors import BenchError
from tests.bench.parties import ClientLink, ClientSession, WorkerApp, WorkerLink
from tests.bench.sockets import Address, Loop

HOST = "127.0.0.1"
START_S = 30.0
STOP_S = 30.0
EXIT_S = 20.0
MIB = 1 << 20
TURN_S = 0.02

Settings = dict[str, dict[str, object]]
_LIMITS: dict[str, object] = {"messages_per_s": 1e6, "messages_burst": 1_000_000}


class Spread(TypedDict):
    """Milliseconds."""

    count: int
    p50: float
    p99: float
    max: float


def spread(seconds: Sequence[float]) -> Spread:
    """Sum up durations."""
    ordered = sorted(seconds)
    if not ordered:
        return Spread(count=0, p50=0.0, p99=0.0, max=0.0)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.99)]
    return Spread(count=len(ordered), p50=round(at[0], 1), p99=round(at[1], 1), max=round(ordered[-1] * 1000, 1))


def allow_descriptors(count: int) -> None:
    """Raise this process's limit, which its children inherit; raise BenchError if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard < count:
            raise BenchError(f"{count} file descriptors are needed, and ulimit -Hn is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class Child:
    """A node, started again on the same addresses and file as often as wanted."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.address: Address = (HOST, free_port())
        self.log = directory / "node.log"
        self._http = free_port()
        self._config = directory / "node.toml"
        sections: Settings = {
            "listen": {"websocket": f"{HOST}:{self.address[1]}", "http": f"{HOST}:{self._http}"},
            "store": {"url": f"sqlite:{directory / 'store.db'}"},
            "auth": {"insecure": True},
            "limits": _LIMITS,
        }
        for section, keys in settings.items():
            sections[section] = {**sections.get(section, {}), **keys}
        self._config.write_text(render_toml(sections))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "signald.cli", "serve", "--config", str(self._config)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self._process is not None
        return self._process

    def ready(self) -> bool:
        """Whether it serves."""
        if self.process.poll() is not None:
            raise BenchError(f"the node ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._http}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def wait_ready(self) -> None:
        """Wait until it serves."""
        end = time.monotonic() + START_S
        while not self.ready():
            if time.monotonic() > end:
                raise BenchError(f"the node is not ready: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(STOP_S)

    def rss_bytes(self) -> int:
        """Its resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def footprint(self) -> tuple[int, int]:
        """Its descriptors and threads."""
        proc = Path(f"/proc/{self.process.pid}")
        return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))

    def stop(self) -> float:
        """Ask it to end; return the seconds it took. It must end with 0."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        if code != 0:
            raise BenchError(f"the node ended with {code}: {self.log.read_text()[-2000:]}")
        return time.monotonic() - begin

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one kind."""
        needle = json.dumps(event)
        with self.log.open() as lines:
            return [json.loads(line) for line in lines if needle in line]


@contextmanager
def served(directory: Path, settings: Settings) -> Iterator[Child]:
    """A node that is ready; it does not outlive the block."""
    child = Child(directory, settings)
    child.start()
    try:
        child.wait_ready()
        yield child
    finally:
        if child.process.poll() is None:
            child.kill()


class Clock:
    """Calls things when they are due, between the turns of a loop."""

    def __init__(self, loop: Loop, seed: int = 1) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Call `what` once, in `delay_s`."""
        heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), what))

    def every(self, interval_s: float, what: Callable[[], object], over: Callable[[], bool]) -> None:
        """Call `what` again and again, until `over()`."""

        def again() -> None:
            if not over():
                self.later(interval_s, again)
                what()

        self.later(interval_s, again)

    def until(self, done: Callable[[], bool], timeout_s: float, why: Callable[[], str]) -> float:
        """Run until `done()`; return how long it took. Raises BenchError with `why()` after `timeout_s`."""
        begin = time.monotonic()
        while not done():
            now = time.monotonic()
            if now - begin > timeout_s:
                raise BenchError(f"not within {timeout_s:g} s: {why()}")
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            self.loop.turn(min(TURN_S, max(0.0, self._due[0][0] - now)) if self._due else TURN_S)
        return time.monotonic() - begin

    def run_for(self, seconds: float) -> None:
        """Run for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + 60, lambda: "the clock stands")


# --- parties that come back -----------------------------------------------------------------------------------------


class Returning:
    """What makes a link of the benchmarks' bear a refusal: it says when to come again and ends like any other."""

    retry_s: float | None = None
    refusal = ""
    connected: bool
    open: bool
    _socket: Any
    _tail: bytes

    def _on_writable(self) -> None:
        if not self.connected and self._socket.getsockopt(1, 4):  # SOL_SOCKET, SO_ERROR
            self.refusal = "connect"
            self.cut()  # type: ignore[attr-defined]
            self.on_gone()  # type: ignore[attr-defined]
            return
        super()._on_writable()  # type: ignore[misc]

    def on_data(self, data: bytes) -> None:
        """Take an HTTP refusal, or else what the base takes."""
        said = self._tail + data
        if not self.open and said.startswith(b"HTTP/1.1 ") and not said.startswith(b"HTTP/1.1 101 "):
            self._tail = said
            head = said.partition(b"\r\n\r\n")[0].lower()
            self.refusal = said[9:12].decode()
            for line in head.split(b"\r\n"):
                if line.startswith(b"retry-after:"):
                    self.retry_s = float(line.partition(b":")[2])
            return
        super().on_data(data)  # type: ignore[misc]

    def on_json(self, message: dict[str, Any]) -> None:
        """Take a refusal that may be tried again, or else what the base takes."""
        if message["type"] == "error" and "retry_after_ms" in message:
            self.refusal = message["code"]
            self.retry_s = message["retry_after_ms"] / 1000
        else:
            super().on_json(message)  # type: ignore[misc]


class ReturningClientLink(Returning, ClientLink):
    """A client's connection that may be refused."""


class ReturningWorkerLink(Returning, WorkerLink):
    """A worker's connection that may be refused."""


class Comeback:
    """Redials with full jitter, or when it was told to; notes what it was told."""

    link: Any
    dialled: Any

    def settle_in(self, clock: Clock, address: Address, told: "Counter[str]") -> None:
        """Say where to come back to, and where refusals are counted."""
        self._clock = clock
        self._address = address
        self._told = told
        self._tries = 0
        self.lost_at = 0.0
        self.back_at = 0.0

    def lost(self, link: Any) -> None:
        """Dial again after a while."""
        if link not in (self.link, self.dialled):
            return
        if link is self.link:
            self.link = None
            self._tries = 0
            self.lost_at = time.monotonic()
        else:
            self.dialled = None
            self._told[link.refusal or f"closed {link.close_code}"] += 1
        if link.retry_s is not None:
            delay_s = link.retry_s * self._clock.rng.uniform(1.0, 1.25)
        else:
            delay_s = self._clock.rng.uniform(0.0, min(2.0, 0.1 * 2**self._tries))
            self._tries += 1
        self._clock.later(delay_s, self._again)

    def _again(self) -> None:
        if self.dialled is None and self.link is None:
            self.dial(self._address)  # type: ignore[attr-defined]


class ReturningClient(Comeback, ClientSession):
    """A client that asks, notes how long each answer took, and comes back."""

    link_class = ReturningClientLink

    def __init__(self, loop: Loop, data: str = "") -> None:
        super().__init__(loop, data)
        self.asked_at: dict[int, float] = {}
        self.round_trips_s: list[float] = []

    def ask(self) -> None:
        """Ask the next question."""
        self.asked_at[self.say()] = time.monotonic()

    def heard(self, seq: int) -> None:
        """Note one answer; the base has checked that it is the next one."""
        self.round_trips_s.append(time.monotonic() - self.asked_at.pop(seq))

    def restored(self, link: ClientLink, message: dict[str, Any]) -> None:
        """Note when."""
        super().restored(link, message)
        self.back_at = time.monotonic()


class ReturningWorker(Comeback, WorkerApp):
    """A worker that answers and comes back."""

    link_class = ReturningWorkerLink


def come_in(
    clock: Clock,
    address: Address,
    parties: Sequence[Any],
    told: "Counter[str]",
    in_flight: int = 64,
) -> None:
    """Connect all of `parties`, at most `in_flight` at a time, until each is served (a client: paired)."""
    waiting = list(parties)[::-1]
    opening: set[Any] = set()

    def done() -> bool:
        opening.difference_update([one for one in opening if one.link is not None and getattr(one, "paired", True)])
        while waiting and len(opening) < in_flight:
            one = waiting.pop()
            one.settle_in(clock, address, told)
            one.dial(address)
            opening.add(one)
        return not opening

    clock.until(done, 60 + len(waiting) / 50, lambda: f"{len(waiting)} wait, {len(opening)} are opening; told {told}")
