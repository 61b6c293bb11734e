"""Start what is measured, each on the core it belongs to, and read its CPU and memory.

A child inherits the affinity its parent had when it was started, threads included, so the parent moves itself for that moment.
"""

import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import redis

from signald.demo.cluster import free_port
from tests.bench.errors import BenchError
from tests.bench.sockets import Address

HOST = "127.0.0.1"
TREE = Path(__file__).resolve().parents[2]
"""The checkout this benchmark belongs to."""
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0

BASELINES = ("tcp", "trio-websocket")
SIGNALD = ("signald-memory", "signald-sqlite", "signald-redis")
SERVERS = (*BASELINES, *SIGNALD)
SEALED = "-sealed"
"""What the name of a server ends with whose store seals what it keeps, to be compared with the one without."""
SEALING = tuple(f"{name}{SEALED}" for name in SIGNALD[1:])

# What the installed `signald` command runs, so that a checkout is measured without being installed.
ENTRY_POINT = "from signald.cli import main; main()"

# Only what would otherwise be measured instead of the server is changed; the rest stays at its default.
CONFIG = """
[listen]
websocket = "{host}:{port}"
http = "{host}:{http_port}"
[store]
url = "{store}"
{sealing}
[auth]
insecure = true
[limits]
messages_per_s = 1e9
messages_burst = 1000000000
{limits}
[log]
level = "warning"
"""


class Cores(NamedTuple):
    """Which core each part runs on."""

    load: int
    server: int
    redis: int

    @classmethod
    def choose(cls) -> "Cores":
        """Take the first two or three cores this process may use; raise BenchError if there is only one."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise BenchError("two cores are needed: one for the server, one for the load generator")
        return cls(load=allowed[0], server=allowed[1], redis=allowed[2] if len(allowed) > 2 else allowed[0])


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which this interpreter imports the signald of `tree`."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def busy_s(core: int) -> float:
    """Return the seconds a core was busy since boot, with any process; counted in ticks, so for slices not far below a second."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


class Child:
    """One process of ours, on one core, its output kept for when it fails."""

    def __init__(self, name: str, command: list[str], core: int, log: Path, tree: Path = TREE) -> None:
        self.name = name
        self._log = log
        self._cpu_at_end_s: float | None = None
        home = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd=tree, env=environment(tree))
        finally:
            os.sched_setaffinity(0, home)
        self._stats = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def failure(self, what: str) -> BenchError:
        """Return an error that shows the end of what the process wrote."""
        tail = self._log.read_text(errors="replace")[-4000:]
        return BenchError(f"{self.name} {what} (exit code {self.exit_code()})\n{tail}")

    def check(self) -> None:
        """Raise BenchError if the process has ended."""
        if self.exit_code() is not None:
            raise self.failure("ended")

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`; raise BenchError if the process ends or needs longer than START_TIMEOUT_S."""
        end = time.monotonic() + START_TIMEOUT_S
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise self.failure("did not get ready")
            time.sleep(0.02)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads, ended ones included, to the nanosecond; of an ended process all it used.

        /proc/PID/stat counts in ticks of 10 ms, too coarse for slices of a second. Python has no name for the CPU clock of
        another process, but Linux derives its id from the pid (MAKE_PROCESS_CPUCLOCK, kind CPUCLOCK_SCHED).
        """
        if self._cpu_at_end_s is not None:
            return self._cpu_at_end_s
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def rss_bytes(self) -> int:
        """Return the resident memory."""
        return int(self._stats.memory_info().rss)

    def has_written(self) -> bool:
        """Return whether it has put out anything."""
        return self._log.stat().st_size > 0

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self._cpu_at_end_s is None:
            # The clock of a process goes when its exit code is collected, so it is read first.
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._cpu_at_end_s = self.cpu_s()
        return self._process.poll()

    def stop(self) -> None:
        """End it the hard way: nothing is measured any more."""
        if self.exit_code() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)


class Node(NamedTuple):
    """One running signald."""

    child: Child
    address: Address
    http: Address

    @classmethod
    def start(
        cls,
        store_url: str,
        core: int,
        folder: Path,
        tree: Path = TREE,
        limits: str = "",
        entry: str = ENTRY_POINT,
        *,
        seals: bool = False,
    ) -> "Node":
        """Start `signald serve` of a checkout on free ports; it is not ready yet.

        `limits`: more lines of `[limits]`. `seals`: its store is sealed.
        """
        keys = folder / "keys"
        if seals:
            keys.write_text(f"bench {base64.b64encode(os.urandom(32)).decode()}\n")
            keys.chmod(0o400)
        port, http_port = free_port(), free_port()
        config = folder / f"signald-{port}.toml"
        config.write_text(
            CONFIG.format(
                host=HOST,
                port=port,
                http_port=http_port,
                store=store_url,
                limits=limits,
                sealing=f'encryption_keys_file = "{keys}"' if seals else "",
            )
        )
        command = [sys.executable, "-c", entry, "serve", "--config", str(config)]
        child = Child("signald", command, core, config.with_suffix(".log"), tree)
        return cls(child, (HOST, port), (HOST, http_port))

    def ready(self) -> bool:
        """Return whether /readyz says yes."""
        try:
            with urllib.request.urlopen(f"http://{self.http[0]}:{self.http[1]}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


class Server(NamedTuple):
    """A server that is being measured, and the store's process if it has one."""

    child: Child
    address: Address
    redis: Child | None
    http: Address | None = None
    """Where a node shows its metrics."""

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU seconds of the server and of its store."""
        return self.child.cpu_s(), self.redis.cpu_s() if self.redis else 0.0


@contextmanager
def running_redis(core: int, folder: Path) -> Iterator[tuple[Child, str]]:
    """Run a redis-server without persistence (its disk is not what is measured); yield it and its URL."""
    port = free_port()
    options = {
        "port": port,
        "bind": HOST,
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "maxmemory-policy": "noeviction",
    }
    command = ["redis-server", *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
    child = Child("redis-server", command, core, folder / "redis.log")

    def answers() -> bool:
        try:
            with redis.Redis(host=HOST, port=port) as probe:
                return bool(probe.ping())
        except redis.ConnectionError:
            return False

    try:
        child.wait_until(answers)
        yield child, f"redis://{HOST}:{port}/0"
    finally:
        child.stop()


@contextmanager
def empty_store(name: str, cores: Cores, folder: Path) -> Iterator[tuple[str, Child | None]]:
    """Yield the URL of a new store for one of SIGNALD, and its process if it has one."""
    if name == "signald-redis":
        with running_redis(cores.redis, folder) as (child, url):
            yield url, child
    elif name == "signald-sqlite":
        yield f"sqlite:{folder / 'signald.db'}", None
    else:
        yield "memory:", None


@contextmanager
def running(name: str, cores: Cores, tree: Path = TREE, limits: str = "", entry: str = ENTRY_POINT) -> Iterator[Server]:
    """Run one of SERVERS or SEALING, ready to serve, with an empty store; signald is that of `tree`, with more lines of `[limits]`."""
    with tempfile.TemporaryDirectory(prefix="signald-bench-") as temporary:
        folder = Path(temporary)
        if name in BASELINES:
            port = free_port()
            command = [sys.executable, "-m", "tests.bench.baselines", name, str(port)]
            child = Child(name, command, cores.server, folder / "baseline.log")
            try:
                child.wait_until(child.has_written)
                yield Server(child, (HOST, port), None)
            finally:
                child.stop()
        else:
            with empty_store(name.removesuffix(SEALED), cores, folder) as (url, redis_child):
                node = Node.start(url, cores.server, folder, tree, limits, entry, seals=name.endswith(SEALED))
                try:
                    node.child.wait_until(node.ready)
                    yield Server(node.child, node.address, redis_child, node.http)
                finally:
                    node.child.stop()
