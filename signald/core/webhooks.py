"""Signatures of Standard Webhooks (specification 1.0.0): how a receiver knows that a request is from this cluster, whole and new.

A request carries three headers: `webhook-id`, the same in each attempt, by which a receiver drops a duplicate;
`webhook-timestamp`, the time of the attempt in seconds since 1970; and `webhook-signature`, which has one `v1,` signature for each
secret: HMAC-SHA256 over `id.timestamp.body`, in base64.

A secret is `whsec_` and the base64 of 24 to 64 bytes. While it rotates two secrets sign, so a receiver may know either.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from msgspec import Struct

PREFIX = "whsec_"

SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""Bounds of the specification. A shorter secret can be guessed, and HMAC-SHA256 hashes a longer one to 32 bytes anyway."""

TOLERANCE_S = 300
"""How far the timestamp may be from the receiver's clock: the bound of the reference libraries. An older request may be a replay."""

SIGNATURES_MAX = 16
"""Signatures of one header that are compared: no sender rotates more secrets, and a header is text of a stranger."""


class BadSecret(ValueError):
    """The text is no secret. The message tells why and holds nothing of it."""


class BadSignature(ValueError):
    """The request is not from a holder of the secrets, or not from now."""


class Secrets(Struct, frozen=True):
    """The keys that sign: the present one first, and the previous one while it rotates."""

    keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Secrets(keys={len(self.keys)})"

    def __bool__(self) -> bool:
        return bool(self.keys)


def parse_secret(text: str) -> bytes:
    """Return the key of a `whsec_` secret. Raises BadSecret."""
    if not text.startswith(PREFIX):
        raise BadSecret(f'a secret begins with "{PREFIX}"')
    try:
        key = base64.b64decode(text[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(f'behind "{PREFIX}" stands base64 with its padding') from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise BadSecret(f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one has {len(key)}")
    return key


def secrets_of(*texts: str) -> Secrets:
    """Return the secrets of `texts`, in this order; an empty text stands for none. Raises BadSecret."""
    return Secrets(tuple([parse_secret(text) for text in texts if text]))


def sign(message_id: str, timestamp_s: int, body: bytes, secrets: Secrets) -> str:
    """Return the value of `webhook-signature`."""
    signed = b"%s.%d." % (message_id.encode(), timestamp_s) + body
    return " ".join([f"v1,{_mac(key, signed)}" for key in secrets.keys])


def signed_headers(message_id: str, timestamp_s: int, body: bytes, secrets: Secrets) -> dict[str, str]:
    """Return the three headers of a request; without a secret there is no signature."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
    if secrets:
        headers["webhook-signature"] = sign(message_id, timestamp_s, body, secrets)
    return headers


def verify(headers: Mapping[str, str], body: bytes, secrets: Secrets, now_s: float) -> None:
    """Judge a request by its `headers`, whose names are in lower case. Raises BadSignature.

    One right signature is enough. Signatures of other versions are passed over.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise BadSignature("webhook-id or webhook-timestamp is missing, or no number")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise BadSignature("webhook-timestamp is too far from now")
    given = headers.get("webhook-signature", "").split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX]
    right = sign(message_id, int(timestamp), body, secrets).split(" ") if secrets else []
    if not any(hmac.compare_digest(one.encode(), other.encode()) for one in given for other in right):
        raise BadSignature("no signature is right")


def _mac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
