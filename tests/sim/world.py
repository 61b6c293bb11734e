"""What makes a run repeatable: one seed for the scheduler, the ids, the masks and the faults, and a trace of what happened.

Trio draws the order of ready tasks from `_r` when asked to, and breaks ties between equal deadlines by the address of a
cancel scope; both are put into the seed's hands here. With the rest handed in (`Entropy`, `random.Random`, `MockClock`)
two processes with different hash seeds go through the very same run.
"""

import hashlib
import itertools
import logging
import random
import types
import zlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from heapq import heappush
from typing import Any

import structlog
import trio
import trio_websocket
import wsproto

from signald.ids import SeededEntropy
from tests.sim.loop import FAST, Patch


class Violation(Exception):
    """A promise was broken; `checker` is the name of the invariant."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker


class JumpClock(trio.abc.Clock):
    """Virtual time that goes on to the next deadline as soon as nobody can run: only for runs without I/O and threads.

    What `MockClock(autojump_threshold=0)` does, in one turn of the loop instead of two.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Return the virtual time."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Go on to `deadline`: Trio asks only when there is nothing else to do."""
        if deadline == float("inf"):
            return 1.0  # the run begins or ends, and Trio has called itself through a socket
        self._now = max(self._now, deadline)
        return 0.0


class Trace:
    """One line for each event: when (virtual seconds), who, what. `keep` keeps the lines, the digest is always there."""

    def __init__(self, *, keep: bool) -> None:
        self.lines: list[str] = []
        self.keep = keep
        self._hash = hashlib.sha256()
        self.count = 0
        self._began: float | None = None

    def __call__(self, who: str, what: str) -> None:
        line = f"{self._now():10.4f} {who:<6} {what}"
        self.count += 1
        self._hash.update(line.encode())
        if self.keep:
            self.lines.append(line)

    def frame(self, who: str, sign: str, frame: str | bytes, words: Callable[[str | bytes], str]) -> None:
        """A frame went by. The digest takes it as it is: its `words` are made only for lines that are kept."""
        now = self._now()
        self.count += 1
        self._hash.update(f"{now:.4f} {who} {sign}".encode())
        self._hash.update(frame.encode() if isinstance(frame, str) else frame)
        if self.keep:
            self.lines.append(f"{now:10.4f} {who:<6} {sign} {words(frame)}")

    def aside(self, who: str, what: str) -> None:
        """A line to read that adds nothing to the digest, for what follows from other events. Call it only if `keep`."""
        self.lines.append(f"{self._now():10.4f} {who:<6} {what}")

    def _now(self) -> float:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        return now - self._began

    @property
    def digest(self) -> str:
        """The hash of all lines."""
        return self._hash.hexdigest()[:16]


class Chance:
    """Everything random, a stream of its own for each user: leaving one thing out does not change the others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _seed(self, name: str) -> int:
        return (self.seed << 32) ^ zlib.crc32(name.encode())

    def random(self, name: str) -> random.Random:
        """The stream of `name`."""
        return random.Random(self._seed(name))

    def entropy(self, name: str) -> SeededEntropy:
        """The same, for code that takes an `Entropy`."""
        return SeededEntropy(self._seed(name))


@contextmanager
def determined_by(seed: int, patches: Sequence[Patch] = ()) -> Iterator[None]:
    """Within the block, Trio, wsproto and trio-websocket draw from `seed`, and `patches` hold."""
    run: Any = trio._core._run
    ties = itertools.count()

    def add(self: Any, deadline: float, scope: trio.CancelScope) -> None:
        heappush(self._heap, (deadline, next(ties), scope))
        self._active += 1

    bits = random.Random(seed)
    fake_os = types.SimpleNamespace(urandom=bits.randbytes)
    patches = [
        *FAST,
        *patches,
        (run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (run.Deadlines, "add", add),
        (wsproto.frame_protocol, "os", fake_os),
        (wsproto.utilities, "os", fake_os),
        (trio_websocket._impl, "random", bits),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    run._r.seed(seed)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


Listener = Callable[[str, str, dict[str, Any]], None]


class _SdkLog(logging.Handler):
    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener(record.levelname.lower(), f"sdk: {record.getMessage()}", {"exc_info": record.exc_info})


@contextmanager
def logs_to(listener: Listener) -> Iterator[None]:
    """Within the block, what nodes and SDK log goes to `listener(level, event, fields)` and nowhere else."""
    config = structlog.get_config()

    def process(_: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        fields = dict(event)
        listener("error" if method == "exception" else method, str(fields.pop("event", "")), fields)
        raise structlog.DropEvent

    structlog.configure(
        processors=[process],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    sdk, handler = logging.getLogger("signald.sdk"), _SdkLog(listener)
    propagate, level = sdk.propagate, sdk.level
    sdk.addHandler(handler)
    sdk.propagate = False
    sdk.setLevel(logging.WARNING)
    try:
        yield
    finally:
        structlog.configure(**config)
        sdk.removeHandler(handler)
        sdk.propagate, sdk.level = propagate, level
