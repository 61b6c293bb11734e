"""The sections of operators: `[admin]`, `[log]` and `[telemetry]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class AdminConfig:
    """The access of operators to this node. `signald ctl` uses the Unix socket unless it is given a URL."""

    socket: str = key(
        "",
        "Unix socket of the admin API; only the user signald runs as, and root, can open it. Empty: the node's id with "
        ".sock, in $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/signald, else /tmp/signald-UID. off: no socket.",
        unit="path",
    )
    token: str = key(
        "",
        "Bearer token that opens the admin API on listen.http as well, at least 32 characters.",
        secret=True,
        reload=True,
    )
    token_file: str = key(
        "",
        "File that holds the token instead. Neither: the admin API is on the Unix socket only.",
        unit="path",
        reload=True,
    )


@attrs.frozen
class LogConfig:
    """The lines that signald writes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = key("info", "Least severity that is written.", reload=True)
    format: Literal["auto", "json", "console"] = key(
        "auto",
        "json: one object per line, for collectors. console: text for a person. auto: console where standard error is a "
        "terminal, else json.",
        reload=True,
    )


@attrs.frozen
class TelemetryConfig:
    """Spans of OpenTelemetry, which need the extra signald[otel]. Metrics are at /metrics, always."""

    otlp_endpoint: str = key(
        "",
        "Where spans are sent, by OTLP over HTTP, such as http://127.0.0.1:4318. Empty: nowhere, unless "
        "OTEL_EXPORTER_OTLP_ENDPOINT says so.",
        unit="URL",
    )
