"""Names of sessions, workers and nodes, and the one source of randomness they are drawn from.

Nothing in signald calls `random` or `secrets` on its own: a part that needs randomness takes an `Entropy` as an argument,
so that a simulation can seed all of it.
"""

import base64
import hashlib
import random
import re
import secrets
from typing import Any, NewType, Protocol

SessionId = NewType("SessionId", str)
WorkerId = NewType("WorkerId", str)

_SESSION, _WORKER, _JOB, _SHELF, _BLOB = "s_", "w_", "j_", "p_", "b_"
_NAMED = f"{_WORKER}named_"

LETTERS = 24
"""How many letters the id of a session or worker has behind its prefix."""

JOB_DIGITS_MAX = 15
"""The longest number of a job: any number that a session will ever reach, and exact in every JSON reader."""

BLOB_LETTERS = 22
"""How many letters a shelf has behind its prefix, and a blob behind that of its shelf: 132 bits in the alphabet of URLs."""

_BLOB_ID = re.compile(rf"{_BLOB}([A-Za-z0-9_-]{{{BLOB_LETTERS}}})[A-Za-z0-9_-]{{{BLOB_LETTERS}}}")
_JOB_ID = re.compile(rf"{_JOB}([a-z2-7]{{{LETTERS}}})_([1-9][0-9]{{0,{JOB_DIGITS_MAX - 1}}})")


def as_session(name: str) -> SessionId | None:
    """Return `name` as the id of a session; None when it has not the form of one."""
    return SessionId(name) if name.startswith(_SESSION) else None


def as_worker(name: str) -> WorkerId | None:
    """Return `name` as the id of a worker; None when it has not the form of one."""
    return WorkerId(name) if name.startswith(_WORKER) else None


def job_id(session: str, number: int) -> str:
    """Return the id of a job: `j_`, the letters of its session's id, `_` and its number in the session."""
    return f"{_JOB}{session.removeprefix(_SESSION)}_{number}"


def parse_job(name: str) -> tuple[SessionId, int] | None:
    """Return the session and the number that the id of a job names; None when it has not the form of one."""
    found = _JOB_ID.fullmatch(name)
    return None if found is None else (SessionId(_SESSION + found[1]), int(found[2]))


def job_of(session: str, name: str) -> int:
    """Return the number of a job of `session`; 0 when `name` is no id of one. The letters of the session may be of any form."""
    number = name.removeprefix(f"{_JOB}{session.removeprefix(_SESSION)}_")
    is_number = number != name and number.isascii() and number.isdigit() and number[0] != "0"
    return int(number) if is_number and len(number) <= JOB_DIGITS_MAX else 0


def shelf_of_owner(principal: str, session: str) -> str:
    """Return the id of the shelf of `principal`, or of an anonymous `session` when that is empty.

    It is a digest, because ids of blobs have it in them and are shown to others. A principal that is named like a session has another one.
    """
    owner = f"principal {principal}" if principal else f"session {session}"
    return _SHELF + _letters(hashlib.sha256(owner.encode()).digest())


def shelf_of_blob(name: str) -> str | None:
    """Return the shelf that the id of a blob names; None when it has not the form of one."""
    found = _BLOB_ID.fullmatch(name)
    return None if found is None else _SHELF + found[1]


def _letters(data: bytes) -> str:
    return base64.urlsafe_b64encode(data)[:BLOB_LETTERS].decode()


class Entropy(Protocol):
    """Randomness as an argument."""

    def token_bytes(self, count: int, /) -> bytes:
        """Return `count` random bytes."""

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float between `low` and `high`."""

    def shuffle(self, items: list[Any], /) -> None:
        """Shuffle `items` in place."""


class SystemEntropy:
    """The operating system's randomness: what production uses."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token_bytes(self, count: int, /) -> bytes:
        """Return `count` bytes fit for secrets."""
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float between `low` and `high`."""
        return self._random.uniform(low, high)

    def shuffle(self, items: list[Any], /) -> None:
        """Shuffle `items` in place."""
        self._random.shuffle(items)


class SeededEntropy:
    """Repeatable randomness for simulations and tests; never for secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation wants to be repeated

    def token_bytes(self, count: int, /) -> bytes:
        """Return `count` bytes, the same for the same seed."""
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float between `low` and `high`."""
        return self._random.uniform(low, high)

    def shuffle(self, items: list[Any], /) -> None:
        """Shuffle `items` in place."""
        self._random.shuffle(items)


def _name(prefix: str, entropy: Entropy) -> str:
    # 15 bytes are 24 base32 letters without padding: 120 bits, so ids never meet by accident. They are not secrets.
    return prefix + base64.b32encode(entropy.token_bytes(15)).decode().lower()


def new_session_id(entropy: Entropy) -> SessionId:
    """Return an id for a session: `s_` and 24 letters."""
    return SessionId(_name(_SESSION, entropy))


def new_worker_id(entropy: Entropy) -> WorkerId:
    """Return an id for a worker: `w_` and 24 letters."""
    return WorkerId(_name(_WORKER, entropy))


def named_worker(name: str) -> WorkerId:
    """Return the id of the worker that is called `name`: `w_named_` and 24 letters. No worker that has a token gets such an id."""
    letters = base64.b32encode(hashlib.sha256(name.encode()).digest()[:15]).decode().lower()
    return WorkerId(f"{_NAMED}{letters}")


def is_named(worker: str) -> bool:
    """Tell whether the id of a worker follows from its name (`named_worker`)."""
    return worker.startswith(_NAMED)


def new_blob_id(shelf: str, entropy: Entropy) -> str:
    """Return an id for a blob of `shelf`: `b_`, the letters of the shelf, and 22 others. It is no secret."""
    return _BLOB + shelf.removeprefix(_SHELF) + _letters(entropy.token_bytes(18))


def new_nonce(entropy: Entropy) -> str:
    """Return a name for one attempt at a claim, so that repeating the attempt is not a second claim."""
    return _name("", entropy)
