"""Logging: one line per event on standard error, secrets dropped, the standard library's loggers included.

A line is a JSON object, or text for a person at a terminal. Use the synchronous methods (`log.info("event_name", key=value)`);
structlog's `a...` variants need asyncio.
"""

import json
import logging
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog

from signald.config import LogConfig
from signald.logsink import LogSink
from signald.printable import printable

# Compared after lower-casing and with "-" as "_"; so are endings such as `worker_recovery_token`.
SECRET_NAMES = frozenset(
    {"token", "recovery_token", "authorization", "auth", "bearer", "secret", "password", "ticket", "cookie"}
)
_endings = ("_token", "_secret", "_password", "_ticket")
# Values nested deeper are dropped whole rather than searched.
DEPTH_MAX = 8

FLUSH_S = 1.0
"""How long the end of a process waits until its last lines are written: a part of `drain.margin_s`."""

_levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_sink: LogSink | None = None

Event = MutableMapping[str, Any]

log = structlog.get_logger(__name__)


class _Lines(structlog.WriteLoggerFactory):
    """Makes loggers that write to `out`, and remembers it for a later configuration."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(file=out)
        self.out = out


@contextmanager
def writing_logs(config: LogConfig, *, error_fd: int = 2, output_fd: int = 1) -> Iterator[None]:
    """Log as `config` says until the body ends. Meanwhile no write to a standard file blocks or fails.

    This holds for `print` and what the interpreter says as well; warnings, and what ends a thread, are lines of the log. The
    last lines are waited for, at most `FLUSH_S`.
    """
    global _sink
    before = sys.stdout, sys.stderr, threading.excepthook
    with suppress(OSError):
        sys.stdout.flush()
    output, errors = LogSink(output_fd), LogSink(error_fd)
    _sink = errors
    sys.stdout, sys.stderr, threading.excepthook = cast("TextIO", output), cast("TextIO", errors), _thread_failed
    logging.captureWarnings(True)
    try:
        with logging_to(sys.stderr, config):
            yield
    finally:
        logging.captureWarnings(False)
        sys.stdout, sys.stderr, threading.excepthook = before
        deadline = time.monotonic() + FLUSH_S
        for sink in (output, errors):
            sink.close(max(0.0, deadline - time.monotonic()))


@contextmanager
def logging_to(stream: TextIO, config: LogConfig) -> Iterator[None]:
    """Log to `stream` as `config` says until the body ends, and then as before: no line reaches `stream` once it is closed."""
    was, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logging(config, stream=stream)
        yield
    finally:
        structlog.configure(**was)
        root.handlers = handlers
        root.setLevel(level)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread is not None else ""
    log.error("thread_failed", thread=name, exc_info=failure.exc_value)


def lines_dropped() -> int:
    """Return how many lines of this process were dropped, because standard error did not take them."""
    return _sink.dropped if _sink is not None else 0


def configure_logging(config: LogConfig, *, stream: TextIO | None = None) -> None:
    """Send the logs of signald and of the libraries to `stream` (None: standard error), as `config` says.

    May be called again; the last call holds.
    """
    out = sys.stderr if stream is None else stream
    level = _levels[config.level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_secrets,
    ]
    render = _rendering(config, out)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries are chatty below this, and none of it is about a party.
    root.setLevel(max(level, logging.WARNING))
    if isinstance(out, LogSink):
        out.notice = lambda count: f"{render(None, '', _missing(count))}\n"


def reconfigure_logging(config: LogConfig) -> None:
    """Log as `config` says from now on, to where the lines go already; without effect when nothing was configured."""
    lines = structlog.get_config()["logger_factory"]
    if isinstance(lines, _Lines):
        configure_logging(config, stream=lines.out)


def set_level(level: str) -> str:
    """Write messages from `level` on, at once; returns the level before. Raises ValueError when it is not a level."""
    if level not in _levels:
        raise ValueError(f"a level is one of {', '.join(_levels)}, got {level!r}")
    before = _level_of(structlog.get_config()["wrapper_class"])
    # A logger is made for each line (`cache_logger_on_first_use`), so this reaches all of them.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_levels[level]))
    logging.getLogger().setLevel(max(_levels[level], logging.WARNING))
    return before


def _level_of(wrapper: type) -> str:
    return next(name for name, number in _levels.items() if structlog.make_filtering_bound_logger(number) is wrapper)


def _missing(count: int) -> Event:
    return {
        "event": "log_lines_dropped",
        "level": "warning",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "count": count,
    }


# --- secrets ------------------------------------------------------------------------------------------------------


def drop_secrets(_: object, __: str, event: Event) -> Event:
    """Remove every key that names a secret, at any depth, so that a careless log call shows nothing."""
    return {name: _clean(value, 1) for name, value in event.items() if not is_secret_name(name)}


def is_secret_name(name: object) -> bool:
    """Tell whether a key of this name holds a secret."""
    plain = str(name).lower().replace("-", "_")
    return plain in SECRET_NAMES or plain.endswith(_endings)


def _clean(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth == DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        return {name: _clean(inner, depth + 1) for name, inner in value.items() if not is_secret_name(name)}
    return [_clean(inner, depth + 1) for inner in value]


# --- the two forms ------------------------------------------------------------------------------------------------

_FIRST = ("event", "level", "timestamp")
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class _Form(ABC):
    """Renders an event, its name first. Every event becomes a line, whatever its values are."""

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        # Plain tracebacks: the pretty ones print local variables, and those hold secrets.
        try:
            return self.line(structlog.processors.format_exc_info(logger, method, event))
        except Exception as error:  # noqa: BLE001
            # A value without a text must not end the connection that logs it.
            return self.line(
                {**{name: str(event.get(name, "")) for name in _FIRST}, "unreadable": type(error).__name__}
            )

    @abstractmethod
    def line(self, event: Event) -> str:
        """One line of text, without its end."""


class JsonForm(_Form):
    """One JSON object."""

    def line(self, event: Event) -> str:
        first = {name: event[name] for name in _FIRST if name in event}
        return json.dumps({**first, **event}, default=str)


class ConsoleForm(_Form):
    """Text for a person: `event key=value ... [time level]`, and a traceback in indented lines of its own."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def line(self, event: Event) -> str:
        rest = {name: value for name, value in event.items() if name not in (*_FIRST, "exception", "stack")}
        level = str(event.get("level", ""))
        moment = str(event.get("timestamp", ""))[11:19]
        what = self._painted(printable(str(event.get("event", ""))), _COLOURS.get(level, _BOLD))
        words = [what, *[f"{printable(str(name))}={_value(value)}" for name, value in rest.items()]]
        words.append(self._painted(f"[{moment} {level}]", _DIM))
        more = [str(event[name]) for name in ("stack", "exception") if event.get(name)]
        # Indented, so that a line of an error's text is never taken for a line of the log.
        below = [f"    {printable(line)}" for text in more for line in text.split("\n")]
        return "\n".join([" ".join(words), *below])

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, str) and (not text or any(char in ' ="' for char in text)):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return printable(text)


def _rendering(config: LogConfig, out: TextIO) -> _Form:
    at_terminal = out.isatty()
    if config.format == "console" or (config.format == "auto" and at_terminal):
        return ConsoleForm(colours=at_terminal)
    return JsonForm()
