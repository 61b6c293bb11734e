"""Web origins as browsers write them (RFC 6454, section 6.2). An origin in any other form loads and never matches a request."""

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def origin_problem(text: str) -> str | None:
    """Return what is wrong with an entry of `listen.allowed_origins`, and the form that would match; None when it matches."""
    if text == "*":
        return None
    if "*" in text:
        return f'"{text}": an origin has no wildcard; list each origin, or write "*" for all'
    try:
        parts = urlsplit(text)
        port = parts.port
        host = _host(parts.hostname or "")
    except (ValueError, UnicodeError):
        return _unlike(text)
    if not parts.scheme or not host:
        return _unlike(text)
    default = port is not None and _DEFAULT_PORTS.get(parts.scheme) == port
    sent = f"{parts.scheme}://{host}" + (f":{port}" if port is not None and not default else "")
    if text == sent:
        return None
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        return _unlike(text)
    return f'"{text}" never matches: browsers send "{sent}"'


def _unlike(text: str) -> str:
    return f'expected scheme://host[:port] or "*", got "{text}"'


def _host(name: str) -> str:
    """Return a host name in the form that a browser sends: lower case, in ASCII (IDNA), IPv6 in brackets."""
    if ":" in name:
        return f"[{name}]"
    return name if name.isascii() else name.encode("idna").decode("ascii")
