"""The section `[timeouts]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class TimeoutsConfig:
    """How long signald waits for the other side of a connection."""

    handshake_s: float = key(5.0, "TLS and WebSocket handshake, each.", unit="seconds", reload=True)
    hello_s: float = key(
        5.0, "From the handshake to the party's opening message; then 4408.", unit="seconds", reload=True
    )
    ping_interval_s: float = key(
        20.0,
        "Silence after which signald pings. Keep it below every proxy's idle timeout.",
        unit="seconds",
        reload=True,
    )
    pong_timeout_s: float = key(
        20.0, "Wait for the pong; then the connection is closed with 4408.", unit="seconds", reload=True
    )
    write_s: float = key(
        10.0, "A write that makes no progress for this long cuts the connection.", unit="seconds", reload=True
    )
    close_s: float = key(5.0, "Wait for the peer's half of the closing handshake.", unit="seconds", reload=True)
    http_body_s: float = key(
        10.0,
        "Silence within the body of an HTTP request before its connection is cut; as write_s for the other direction.",
        unit="seconds",
        reload=True,
    )
    http_idle_s: float = key(
        75.0,
        "Silence between two HTTP requests before the connection is closed. Longer than the minute for which proxies keep "
        "theirs, so that a proxy does not send a request into a connection that is being closed.",
        unit="seconds",
        reload=True,
    )
    assign_s: float = key(
        5.0,
        "A worker's time to accept or refuse a session before another worker is asked.",
        unit="seconds",
        reload=True,
    )
