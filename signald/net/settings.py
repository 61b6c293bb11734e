"""The settings of the listener, and how the configuration fills them."""

from collections.abc import Mapping

import attrs

from signald.config import Config
from signald.net.compression import Mode
from signald.net.endpoints import Endpoint, Endpoints, endpoints_of


@attrs.frozen(kw_only=True)
class NetSettings:
    """Limits and times of one listener. The defaults are those of the configuration."""

    # The opening handshake.
    endpoints: Endpoints = attrs.field(converter=endpoints_of)
    """Where a WebSocket may be opened; anything else is 404."""
    allowed_origins: tuple[str, ...] = ()
    """Exact origins of browsers; `*` for any. Empty: a request with an Origin is refused."""
    cookie_name: str = ""
    """Cookie in which a browser shows its credential, if the page is of one of `allowed_origins`; empty: none is read."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of proxies. Their X-Forwarded-For is believed."""
    handshake_s: float = 5.0
    """From accept to the last byte of the request, TLS included."""

    # Limits of what a peer sends.
    message_bytes_max: int = 65536
    fragments_max: int = 128
    control_frames_per_s_max: int = 100
    """Pings and Pongs per second, averaged between two ticks; more is a flood: close 1008."""

    # Compression.
    compression: Mode = "off"
    compression_bytes_min: int = 1024
    """Messages below it are sent as they are."""

    # The queue of writes to one peer. Full at these; at twice these the peer is a slow consumer: close 4508.
    send_queue_bytes_max: int = 1048576
    send_queue_messages_max: int = 1000
    send_queues_bytes_max: int = 100663296
    """Of all peers to which a write waits; beyond it the largest are closed with 4508."""

    # Times.
    ping_interval_s: float = 20.0
    """Silence of the peer before it gets a ping."""
    pong_timeout_s: float = 20.0
    """How long it may take to show any sign of life then; later is close 4408."""
    write_s: float = 10.0
    """How long the peer may take nothing of what we write; longer is close 4508."""
    close_s: float = 5.0
    """How long the peer may take to answer our Close."""
    linger_s: float = 0.5
    """How long a peer we failed may take to read why, before its TCP is cut."""

    # Admission.
    connections_max: int = 11000
    handshakes_in_progress_max: int = 4096
    strangers_bytes_max: int = 33554432
    """Received from all peers that are not admitted yet."""
    address_share: float = 0.5
    """Part of the connections, and of the set-ups, that one remote address (an IPv6 /64) may hold."""
    setups_in_progress_max: int = 256
    resume_reserved_share: float = 0.5
    """Share of the set-ups that only resumes may use."""
    connects_per_s: float = 0.0
    """Per remote address (an IPv6 /64 counts as one); 0: no limit."""
    connects_burst: int = 100
    retry_after_ms: int = 1000


def net_settings(config: Config, endpoints: Mapping[str, Endpoint] | Endpoints) -> NetSettings:
    """Return the listener's share of the configuration, for a node that serves `endpoints`."""
    limits, timeouts, admission = config.limits, config.timeouts, config.admission
    return NetSettings(
        endpoints=endpoints,
        allowed_origins=tuple(config.listen.allowed_origins),
        cookie_name=config.auth.cookie_name,
        trusted_proxies=tuple(config.listen.trusted_proxies),
        handshake_s=timeouts.handshake_s,
        message_bytes_max=limits.message_bytes_max,
        fragments_max=limits.fragments_max,
        compression=limits.compression,
        compression_bytes_min=limits.compression_bytes_min,
        send_queue_bytes_max=limits.send_queue_bytes_max,
        send_queue_messages_max=limits.send_queue_messages_max,
        send_queues_bytes_max=limits.send_queues_bytes_max,
        ping_interval_s=timeouts.ping_interval_s,
        pong_timeout_s=timeouts.pong_timeout_s,
        write_s=timeouts.write_s,
        close_s=timeouts.close_s,
        connections_max=admission.connections_max,
        handshakes_in_progress_max=admission.handshakes_in_progress_max,
        strangers_bytes_max=admission.strangers_bytes_max,
        address_share=admission.address_share,
        setups_in_progress_max=admission.setups_in_progress_max,
        resume_reserved_share=admission.resume_reserved_share,
        connects_per_s=admission.connects_per_s,
        connects_burst=admission.connects_burst,
        retry_after_ms=admission.retry_after_ms,
    )
