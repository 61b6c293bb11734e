"""The head of an HTTP request: where it ends, and how large it may be. Holds for handshakes and for HTTP alike."""

import re
from collections.abc import Iterable

TARGET_BYTES_MAX = 8192
"""Bytes of the request line: what common proxies and servers take."""
HEAD_BYTES_MAX = 16384
"""Bytes of the whole head."""
HEADERS_MAX = 100

END_OF_HEAD = re.compile(rb"\n\r?\n")
_METHOD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def size_problem(head: bytes) -> tuple[int, str] | None:
    """Return the status and the reason that refuse a head, complete or not; None when it is no larger than allowed."""
    line_end = head.find(b"\n")
    if (line_end if line_end >= 0 else len(head)) > TARGET_BYTES_MAX:
        return 414, "request line too long"
    if len(head) > HEAD_BYTES_MAX or head.count(b"\n") > HEADERS_MAX + 2:
        return 431, "too many or too long headers"
    return None


def path_of(head: bytes) -> str | None:
    """Return the path that the request line of `head` names, as far as it is there; None when it is no request line."""
    line = head.partition(b"\n")[0]
    method, blank, rest = line.partition(b" ")
    if not blank or _METHOD.fullmatch(method) is None:
        return None
    return rest.partition(b" ")[0].rstrip(b"\r").partition(b"?")[0].decode("latin-1")


def cookies_in(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    """Return the values of the cookies called `name` (RFC 6265) in `headers`: those that are not empty, without quotes around them."""
    found = []
    for key, value in headers:
        if key == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                label, equals, text = pair.strip().partition("=")
                if equals and label == name and text.strip('"'):
                    found.append(text.strip('"'))
    return found
