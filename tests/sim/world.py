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
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from heapq import heappush
from typing import Any

import structlog
import trio
import trio_websocket
import wsproto

from signald.ids import SeededEntropy


class Violation(Exception):
    """A promise was broken; `checker` is the name of the invariant."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker


class Trace:
    """One line for each event: when (virtual seconds), who, what. `keep` keeps the lines, the digest is always there."""

    def __init__(self, *, keep: bool) -> None:
        self.lines: list[str] = []
        self.keep = keep
        self._hash = hashlib.sha256()
        self.count = 0
        self._began: float | None = None

    def __call__(self, who: str, what: str) -> None:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        line = f"{now - self._began:10.4f} {who:<6} {what}"
        self.count += 1
        self._hash.update(line.encode())
        if self.keep:
            self.lines.append(line)

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
def determined_by(seed: int) -> Iterator[None]:
    """Within the block, Trio, wsproto and trio-websocket draw from `seed`."""
    run: Any = trio._core._run
    ties = itertools.count()

    def add(self: Any, deadline: float, scope: trio.CancelScope) -> None:
        heappush(self._heap, (deadline, next(ties), scope))
        self._active += 1

    bits = random.Random(seed)
    fake_os = types.SimpleNamespace(urandom=bits.randbytes)
    patches: list[tuple[Any, str, Any]] = [
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
