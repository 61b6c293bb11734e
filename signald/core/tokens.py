"""Recovery tokens: `<session or worker id>.<256-bit secret>`, opaque to their holders, kept as hashes only.

Two slots (the rule of XEP-0484): a resume issues a new token into `current` and keeps the presented one in `previous`. It
stays there until the holder has shown the new one, or has sent any frame after receiving it. So an answer lost on the way
locks out no holder. Once retired, a token that is shown again is theft or a bug: the whole lineage is revoked (RFC 9700 §4.14).
"""

import base64
import hashlib
import hmac
from enum import Enum

from msgspec import Struct

from signald.ids import Entropy, SessionId, WorkerId, as_session, as_worker

SECRET_BYTES = 32
RETIRED_MAX = 8
"""How many retired hashes are remembered. Older ones are refused as unknown, which is as safe and merely less telling."""


class Verdict(Enum):
    """The verdict on a presented token."""

    GRANTED = "granted"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    REUSED = "token_reuse"


class Slots(Struct, frozen=True):
    """The token hashes of one party. No `current` means revoked."""

    current: bytes = b""
    previous: bytes = b""
    retired: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Slots(current={bool(self.current)}, previous={bool(self.previous)}, retired={len(self.retired)})"


def issue(owner: str, entropy: Entropy) -> tuple[str, bytes]:
    """Make a token for the session or worker `owner`: (token for its holder, hash for the store)."""
    secret = entropy.token_bytes(SECRET_BYTES)
    return f"{owner}.{_text(secret)}", hashlib.sha256(secret).digest()


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def parse(token: str) -> tuple[str, bytes] | None:
    """Split a presented token into (owner, hash of its secret); None when it has not the form of a token."""
    owner, dot, text = token.partition(".")
    if not dot or not owner.isascii() or len(owner) > 64 or not owner.replace("_", "").isalnum() or len(text) != 43:
        return None
    try:
        secret = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        return None
    if _text(secret) != text:
        return None  # another spelling of the same bits, or too few of them
    return owner, hashlib.sha256(secret).digest()


def parse_session(token: str) -> tuple[SessionId, bytes] | None:
    """Split the token of a client into (session, hash of its secret); None when it is none."""
    parsed = parse(token)
    session = as_session(parsed[0]) if parsed is not None else None
    return (session, parsed[1]) if parsed is not None and session is not None else None


def parse_worker(token: str) -> tuple[WorkerId, bytes] | None:
    """Split the token of a worker into (worker, hash of its secret); None when it is none."""
    parsed = parse(token)
    worker = as_worker(parsed[0]) if parsed is not None else None
    return (worker, parsed[1]) if parsed is not None and worker is not None else None


def _same(left: bytes, right: bytes) -> bool:
    return bool(left) and hmac.compare_digest(left, right)


def present(slots: Slots, presented: bytes, issued: bytes) -> tuple[Slots, Verdict]:
    """Judge `presented` and, when granted, put `issued` in its place.

    A granted holder of `previous` has never seen `current` (the answer was lost), so `current` is retired unseen.
    """
    if any([_same(old, presented) for old in slots.retired]):  # noqa: C419 - all are compared, so time tells nothing
        return revoke(slots), Verdict.REUSED
    if not slots.current:
        return slots, Verdict.REVOKED
    if _same(slots.current, presented):
        return Slots(issued, presented, _retire(slots.retired, slots.previous)), Verdict.GRANTED
    if _same(slots.previous, presented):
        return Slots(issued, presented, _retire(slots.retired, slots.current)), Verdict.GRANTED
    return slots, Verdict.UNKNOWN


def is_previous(slots: Slots, presented: bytes) -> bool:
    """Tell whether `presented` is good only because `current` was never shown."""
    return _same(slots.previous, presented)


def confirm(slots: Slots) -> Slots:
    """The holder has shown that it has `current`: retire `previous`."""
    return Slots(slots.current, b"", _retire(slots.retired, slots.previous)) if slots.previous else slots


def revoke(slots: Slots) -> Slots:
    """Let no token of this lineage resume again; all of them count as retired from now on."""
    retired = _retire(_retire(slots.retired, slots.previous), slots.current)
    return Slots(retired=retired)


def _retire(retired: tuple[bytes, ...], token: bytes) -> tuple[bytes, ...]:
    return (*retired, token)[-RETIRED_MAX:] if token else retired
