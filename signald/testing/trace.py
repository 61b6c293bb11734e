"""What happened in a run: a line and a digest for each event, and the logs of nodes and SDK as events."""

import hashlib
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
import trio


class Trace:
    """One line for each event: when (virtual seconds), its subject, its text. The digest is always made, lines only with `keep`."""

    def __init__(self, *, keep: bool) -> None:
        self.lines: list[str] = []
        self.keep = keep
        self._hash = hashlib.sha256()
        self.count = 0
        self._began: float | None = None

    def __call__(self, subject: str, what: str) -> None:
        line = f"{self._now():10.4f} {subject:<6} {what}"
        self.count += 1
        self._hash.update(line.encode())
        if self.keep:
            self.lines.append(line)

    def frame(self, subject: str, sign: str, frame: str | bytes, words: Callable[[str | bytes], str]) -> None:
        """A frame went by. The digest takes it as it is: its `words` are made only for lines that are kept."""
        now = self._now()
        self.count += 1
        self._hash.update(f"{now:.4f} {subject} {sign}".encode())
        self._hash.update(frame.encode() if isinstance(frame, str) else frame)
        if self.keep:
            self.lines.append(f"{now:10.4f} {subject:<6} {sign} {words(frame)}")

    def aside(self, subject: str, what: str) -> None:
        """A line to read that adds nothing to the digest, for what follows from other events. Call it only if `keep`."""
        self.lines.append(f"{self._now():10.4f} {subject:<6} {what}")

    def _now(self) -> float:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        return now - self._began

    @property
    def digest(self) -> str:
        """The hash of all lines."""
        return self._hash.hexdigest()[:16]


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
