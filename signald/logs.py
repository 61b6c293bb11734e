"""Logging: one JSON object per line on standard error, secrets dropped, the standard library's loggers included.

Use the synchronous methods (`log.info("event_name", key=value)`); structlog's `a...` variants need asyncio.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from signald.config import LogConfig

# Compared after lower-casing and with "-" as "_"; so are endings such as `worker_recovery_token`.
SECRET_NAMES = frozenset(
    {"token", "recovery_token", "authorization", "auth", "bearer", "secret", "password", "ticket", "cookie"}
)
_endings = ("_token", "_secret", "_password", "_ticket")
# Values nested deeper are dropped whole rather than searched.
DEPTH_MAX = 8

_levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


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
    rendering = _rendering(config, out)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries are chatty below this, and none of it is about a party.
    root.setLevel(max(level, logging.WARNING))


def set_level(level: str) -> str:
    """Write messages from `level` on, at once; returns the level before. Raises ValueError when it is not a level."""
    if level not in _levels:
        raise ValueError(f"a level is one of {', '.join(_levels)}, got {level!r}")
    before = _level_of(structlog.get_config()["wrapper_class"])
    # Loggers are made anew for each line (`cache_logger_on_first_use`), so this reaches all of them.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_levels[level]))
    logging.getLogger().setLevel(max(_levels[level], logging.WARNING))
    return before


def _level_of(wrapper: type) -> str:
    return next(name for name, number in _levels.items() if structlog.make_filtering_bound_logger(number) is wrapper)


def drop_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
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


def _rendering(config: LogConfig, out: TextIO) -> list[structlog.typing.Processor]:
    if config.format == "console":
        # Plain tracebacks: the pretty ones print local variables, and those hold secrets.
        return [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
