"""The section `[admission]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class AdmissionConfig:
    """The load that a node admits at once. An admitted party is never evicted to make room; an unknown peer may be."""

    connections_max: int = key(
        11_000,
        "Open connections of this node. Each also needs a file descriptor. A drain has to move the sessions behind them: "
        "`check-config` refuses more than it can.",
        unit="connections",
        reload=True,
    )
    handshakes_in_progress_max: int = key(
        4096,
        "WebSocket handshakes under way at once, and behind them as many connections without an opening message. When all are "
        "taken, the oldest silent peer gives way to a newcomer. As many as the kernel queues; each needs a file descriptor.",
        unit="handshakes",
        reload=True,
    )
    http_connections_max: int = key(
        1024,
        "HTTP connections on the WebSocket listener, beside connections_max; each needs a file descriptor. When all are taken, an "
        "idle one gives way, or one of the address with the most. A core answers about 1,500 requests per second.",
        unit="connections",
        reload=True,
    )
    strangers_bytes_max: int = key(
        33_554_432,
        "Bytes received from all peers that are not let in yet: a thousand full requests and as many small opening messages; and as "
        "many again of parties' messages that are not complete. Beyond it the largest of the address with the most is closed (1013).",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    address_share: float = key(
        0.5,
        "Part of the connections and of the set-ups that one remote address (an IPv6 /64) may hold, and the clients of one "
        "principal, so that others find room. A half lets a proxy that is not in listen.trusted_proxies carry a busy node; lower it "
        "where addresses and subjects are real, and set it to 1 where all clients have one subject.",
        unit="share",
        at_most=1,
        reload=True,
    )
    setups_in_progress_max: int = key(
        256,
        "Sessions being started or resumed at once; it bounds the load on the store in a storm.",
        unit="set-ups",
        reload=True,
    )
    resume_reserved_share: float = key(
        0.5,
        "Part of the set-ups only resumes may use, so that new sessions cannot starve those that wait to continue.",
        unit="share",
        at_least=0,
        at_most=1,
        reload=True,
    )
    connects_per_s: float = key(
        0.0,
        "New connections per second from one remote address. 0: no limit, as many people share one address.",
        unit="connections/s",
        at_least=0,
        reload=True,
    )
    connects_burst: int = key(100, "Connections of one address admitted at once.", unit="connections", reload=True)
    retry_after_ms: int = key(
        1000,
        "Least wait that a refused party is told; each gets a random addition.",
        unit="milliseconds",
        reload=True,
    )
