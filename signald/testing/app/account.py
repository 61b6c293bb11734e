"""The transcript of a run: a line for each action of the test, each frame, each fault, and each event that nodes and SDK log."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
import trio

LINES_MAX = 20_000
"""Lines that an account keeps, the newest: about two megabytes, and the story of a thousand messages."""

LOGGED = ("session", "worker", "reason", "phase", "code", "kind")
"""The fields of an event in the log that a transcript shows: none is measured by a real clock, and none is a secret."""


NODE: ContextVar[str] = ContextVar("node", default="node")
"""The node whose tasks run: nodes of one Trio run log through one logger, and few of their events name the node."""


@contextmanager
def as_node(name: str) -> Iterator[None]:
    """Tasks that are started in the block are those of a node."""
    token = NODE.set(name)
    try:
        yield
    finally:
        NODE.reset(token)


class Account:
    """Lines with their time in seconds since the run began, and their subject: a node, a party, or the test."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self._began: float | None = None
        self.count = 0
        """Lines so far, those that are not kept any more included."""

    def __call__(self, subject: str, event: str) -> None:
        """Add a line. It is called in the Trio run of the cluster."""
        now = trio.current_time()
        if self._began is None:
            self._began = now
        self.count += 1
        self._lines.append(f"{now - self._began:9.3f}  {subject:<12} {event}")

    def text(self, lines_max: int = LINES_MAX) -> str:
        """Return the newest lines, at most `lines_max`; a first line tells how many older ones are left out."""
        lines = list(self._lines)[-lines_max:]
        left_out = self.count - len(lines)
        return "\n".join([f"({left_out} older lines are left out)"] * bool(left_out) + lines)


class _SdkLog(logging.Handler):
    """What the SDK logs, warnings and worse: the traceback of a handler is its last line."""

    def __init__(self, account: Account, wanted: Callable[[], bool]) -> None:
        super().__init__(logging.WARNING)
        self._account = account
        self._wanted = wanted

    def emit(self, record: logging.LogRecord) -> None:
        if not self._wanted():
            return
        error = record.exc_info[1] if record.exc_info else None
        self._account("sdk", f"{record.getMessage()}{f': {error!r}' if error is not None else ''}")


class _Ours:
    """The logger of a module of signald."""


@contextmanager
def logs_in(account: Account, wanted: Callable[[], bool]) -> Iterator[None]:
    """Within the block, what nodes log is in `account` and nowhere else; other programs' loggers are left alone.

    `wanted` tells whether the code that logs runs in the run of the account.
    """
    before = structlog.get_config()
    processors, factory = before["processors"], before["logger_factory"]

    def made(*names: Any) -> Any:
        return _Ours() if names and str(names[0]).startswith("signald.") else factory(*names)

    def process(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if not isinstance(logger, _Ours):
            for processor in processors[:-1]:
                event = processor(logger, method, event)
            return processors[-1](logger, method, event)
        if method != "debug" and wanted():
            _log(account, {"exc_info": True, **event} if method == "exception" else event)
        raise structlog.DropEvent

    sdk, handler = logging.getLogger("signald.sdk"), _SdkLog(account, wanted)
    structlog.configure(**{**before, "processors": [process], "logger_factory": made})
    sdk.addHandler(handler)
    try:
        yield
    finally:
        structlog.configure(**before)
        sdk.removeHandler(handler)


def _log(account: Account, event: Mapping[str, Any]) -> None:
    shown = [f"{name}={event[name]}" for name in LOGGED if event.get(name) not in (None, "")]
    error = event.get("exc_info")
    error = sys.exc_info()[1] if error is True else error
    shown += [f"error={error!r}"] if isinstance(error, BaseException) else []
    account(NODE.get(), " ".join([f"logs {event.get('event', '')}", *shown]))


def in_trio_run(token: Any) -> bool:
    """Tell whether the caller runs in the Trio run of `token`."""
    try:
        return trio.lowlevel.current_trio_token() is token
    except RuntimeError:
        return False
