"""Whether a server speaks TLS where the URL says that it does not, or the other way round.

Neither side says so by itself: a Redis without TLS waits for the rest of what it takes for a command, one with TLS ends the
connection. So a server that cannot be used at the start is asked once more, in the other way. No credentials are sent.
"""

import socket
import ssl

from signald.store.redis_url import Address, Target

ASKED_MAX = 3
"""Servers of the URL that are asked, each for `store.connect_timeout_s` at most: they are set up alike."""

_PING = b"*1\r\n$4\r\nPING\r\n"


def scheme_fault(target: Target, timeout_s: float) -> str | None:
    """Say what to change about the scheme of `target`; None when that is not the reason why its servers cannot be used."""
    for address in target.addresses[:ASKED_MAX]:
        try:
            if target.tls and _speaks_plain(address, timeout_s):
                return f"Redis at {address} does not speak TLS: write redis instead of rediss in store.url, or give it a tls-port"
            if not target.tls and _speaks_tls(address, timeout_s):
                return f"Redis at {address} speaks TLS: write rediss instead of redis in store.url"
        except OSError:
            continue
    return None


def _speaks_plain(address: Address, timeout_s: float) -> bool:
    with socket.create_connection(address, timeout_s) as plain:
        plain.settimeout(timeout_s)
        plain.sendall(_PING)
        # PONG, or that it wants a login first.
        return plain.recv(1) in (b"+", b"-")


def _speaks_tls(address: Address, timeout_s: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # No secret is sent: any server may answer, and it is only asked whether it speaks TLS.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(address, timeout_s) as plain:
        plain.settimeout(timeout_s)
        with context.wrap_socket(plain):
            return True
