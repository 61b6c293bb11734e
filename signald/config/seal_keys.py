"""The file of the keys under which the store's values are sealed: `store.encryption_keys_file`.

One key is one line: a name, a blank, and 32 random bytes in base64, as `openssl rand -base64 32` prints them. Empty lines and lines that
begin with `#` are left out. The last line is the newest key. `retired ID` says that no value is under the key with that id any more, so
that its line may go. No message that is made here repeats a line, which holds a secret.
"""

import base64
import binascii
import os
import re
import stat
from pathlib import Path

from attrs import field, frozen

SECRET_BYTES = 32
"""AES-256 takes as many."""

KEYS_MAX = 16
"""A rotation needs two at a time; with a rotation each month these are more than a year's, and each is held in memory."""

FILE_BYTES_MAX = 4096
"""Sixteen lines with names of 64 characters and their comments."""

FORBIDDEN_MODE = 0o027
"""Of others, all; of the group, to write. Kubernetes lets the group of a pod read the files of a Secret."""

_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_id = re.compile(r"[0-9a-f]{8}")

RETIRED = "retired"
"""The first word of a line that names no key."""


@frozen
class SealKey:
    """One key. Its secret stays out of its repr."""

    name: str
    secret: bytes = field(repr=False)


@frozen
class KeyFile:
    """The content of a file."""

    keys: tuple[SealKey, ...] = ()
    """The newest last."""
    retired: frozenset[str] = frozenset()
    """Ids of keys under which no value is any more, as the operator says."""


def read_seal_keys(path: Path) -> KeyFile:
    """Return the content of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is open to others, or a line is no key; the text says where, and what to do.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
        found = os.fstat(opened.fileno())
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is no regular file")
        if mode & FORBIDDEN_MODE:
            raise ValueError(f"{path} is open to others (mode {mode:04o}): chmod 0400 {path}")
        if found.st_uid not in (0, os.geteuid()):
            raise ValueError(f"{path} belongs to another user: chown it to the user of signald, or to root")
        content = opened.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    lines = [(number, line.split()) for number, line in enumerate(content.splitlines(), 1) if _holds(line)]
    retired = frozenset([_retired(path, number, words) for number, words in lines if words[0] == RETIRED.encode()])
    keys = [_key(path, number, words) for number, words in lines if words[0] != RETIRED.encode()]
    if not keys:
        raise ValueError(f"{path} has no key: a key is a name, a blank and the output of `openssl rand -base64 32`")
    if len(keys) > KEYS_MAX:
        raise ValueError(f"{path} has more than {KEYS_MAX} keys: remove those that a reseal has replaced")
    for what, values in (("name", [key.name for key in keys]), ("secret", [key.secret for key in keys])):
        if len(set(values)) < len(keys):
            raise ValueError(f"{path} has two keys with one {what}")
    return KeyFile(tuple(keys), retired)


def _holds(line: bytes) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def _retired(path: Path, number: int, words: list[bytes]) -> str:
    found = words[-1].decode("ascii", errors="replace")
    if len(words) != 2 or not _id.fullmatch(found):
        raise ValueError(f"{path}:{number}: behind `{RETIRED}` stands the id of one key, as the log and errors show it")
    return found


def _key(path: Path, number: int, words: list[bytes]) -> SealKey:
    name = words[0].decode("ascii", errors="replace")
    if len(words) != 2 or not _name.fullmatch(name):
        raise ValueError(f"{path}:{number} is no key: a key is a name of letters, digits and ._-, a blank, and base64")
    try:
        secret = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ValueError(
            f"{path}:{number}: the secret is not {SECRET_BYTES} bytes in base64: `openssl rand -base64 32`"
        )
    return SealKey(name, secret)
