"""The section `[listen]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class ListenConfig:
    """The addresses that signald listens on, and the origins that may open a WebSocket there."""

    websocket: tuple[str, ...] = key(
        ("127.0.0.1:8080",),
        "Addresses of the WebSocket listener for clients and workers: one, or a list. Port 0 lets the system choose one. "
        'An IPv6 address takes no IPv4: ["0.0.0.0:8080", "[::]:8080"] listens on both.',
        unit="host:port",
        one_or_more=True,
    )
    http: tuple[str, ...] = key(
        ("127.0.0.1:8081",),
        "Addresses of the HTTP listener, likewise: health and operation. Keep it off the public network.",
        unit="host:port",
        one_or_more=True,
    )
    tls_certificate_file: str = key(
        "",
        "PEM certificate chain of the WebSocket listener. Empty: plain TCP, TLS ends in front of signald.",
        unit="path",
        reload=True,
    )
    tls_key_file: str = key("", "PEM private key that belongs to the certificate.", unit="path", reload=True)
    backlog: int = key(
        4096,
        "TCP connections the kernel queues before they are accepted; a node that takes over another's "
        "parties sees them all arrive within seconds. The kernel's own limit (somaxconn) also applies.",
        unit="connections",
    )
    receive_buffer_bytes: int = key(
        0,
        "The kernel's receive buffer of each WebSocket connection (SO_RCVBUF); it doubles the number, and net.core.rmem_max applies. "
        "0: the kernel sizes it as needed, which is best unless its memory is short.",
        unit="bytes",
        at_least=0,
        at_most=16_777_216,
        reload=True,
    )
    send_buffer_bytes: int = key(
        0,
        "The same for sending (SO_SNDBUF, net.core.wmem_max). What is in it is no longer in the send queue: a small one lets "
        "limits.send_queue_bytes_max notice a slow peer sooner.",
        unit="bytes",
        at_least=0,
        at_most=16_777_216,
        reload=True,
    )
    allowed_origins: tuple[str, ...] = key(
        (),
        'Web origins (scheme://host[:port]) whose pages may connect; "*" admits all. Empty: any request with an '
        "Origin header is refused with 403, which leaves SDKs outside browsers.",
        reload=True,
    )
    trusted_proxies: tuple[str, ...] = key(
        (),
        "Addresses or networks (CIDR) of proxies whose X-Forwarded-For is believed. Empty: the TCP peer counts.",
        reload=True,
    )
