"""Digests in header fields (RFC 9530): what `Content-Digest` says of a body, and how an answer says it of what it shows.

A field is a dictionary of structured fields (RFC 8941): `sha-256=:<base64>:, sha-512=:<base64>:`. Only SHA-256 is compared; other
algorithms are passed over. A field that cannot be read is refused: its sender wanted the body to be checked, and it would not be.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Sequence

SHA256_BYTES = 32

_MEMBER = re.compile(
    r"[ \t]*([a-z*][a-z0-9_\-.*]*)=:([A-Za-z0-9+/]*)(={0,2}):((?:[ ]*;[ ]*[a-z*][a-z0-9_\-.*]*(?:=[^,;\"]*|=\"[^\"]*\")?)*)[ \t]*(,|$)"
)


def sha256_of(values: Sequence[str]) -> bytes | None:
    """Return the SHA-256 that the lines of a digest field name; None when they name none. Raises ValueError for what is no such field.

    Lines are one list (RFC 9110, section 5.2), and the last member of a name counts (RFC 8941, section 3.2).
    """
    field = ",".join(values)
    place, found, more = 0, None, bool(field.strip(" \t"))
    while more:
        member = _MEMBER.match(field, place)
        if member is None:
            raise ValueError("is no list of digests such as sha-256=:<base64>:")
        if member[1] == "sha-256":
            found = _decoded(member[2])
        place, more = member.end(), bool(member[5])
    return found


def digest_field(sha256: bytes) -> str:
    """Return the value of a field that names this digest."""
    return f"sha-256=:{b64encode(sha256).decode()}:"


def _decoded(text: str) -> bytes:
    """Return the bytes of base64 whose padding is left off (RFC 8941, section 4.2.7, has readers take either form)."""
    try:
        decoded = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except NoBase64:
        raise ValueError("is no base64") from None
    if len(decoded) != SHA256_BYTES:
        raise ValueError("has not the length of a SHA-256")
    return decoded
