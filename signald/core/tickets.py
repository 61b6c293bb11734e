"""Admission tickets: what a GOAWAY gives a party to show at the successor, which lets it past the limiter.

`<expiry in ms>.<mac>`: an HMAC of the party's id and the expiry under a secret the cluster shares through its store. A
ticket admits and does nothing else: it is no credential, and resuming still takes the recovery token.
"""

import base64
import hashlib
import hmac

SECRET_BYTES = 32


def make(secret: bytes, owner: str, expires_ms: int) -> str:
    """Make a ticket for the session or worker `owner`, good until `expires_ms` (ms since 1970)."""
    return f"{expires_ms}.{_mac(secret, owner, expires_ms)}"


def valid(secret: bytes, owner: str, ticket: str, now_ms: int) -> bool:
    """Tell whether `ticket` was made for `owner` and has not expired."""
    expiry, dot, mac = ticket.partition(".")
    if not secret or not dot or not expiry.isdecimal() or len(expiry) > 15 or int(expiry) < now_ms:
        return False
    if expiry != str(int(expiry)):
        return False  # another spelling of the same number, with zeros before it or digits of another script
    return hmac.compare_digest(_mac(secret, owner, int(expiry)).encode(), mac.encode())


def _mac(secret: bytes, owner: str, expires_ms: int) -> str:
    digest = hmac.digest(secret, f"ticket:{owner}:{expires_ms}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
