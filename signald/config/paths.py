"""The directory and names by which `signald ctl` finds the nodes of its host."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from signald.config.checks import SOCKET_PATH_BYTES_MAX

SYSTEMD_DIRECTORY = Path("/run/signald")


def socket_directory(env: Mapping[str, str]) -> Path:
    """Return the directory a node puts its admin socket into; it need not exist yet."""
    if runtime := env.get("RUNTIME_DIRECTORY"):
        return Path(runtime.partition(":")[0])
    return _own_directory(env)


def admin_socket(directory: Path, node: str, suffix: str = "") -> Path:
    """Return where a node puts its admin socket: a node id may be longer than a socket's path, and is shortened then."""
    path = directory / f"{node}{suffix}.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    return directory / f"{short_name(node)}{suffix}.sock"


def short_name(node: str) -> str:
    """Return a name for `node` of 33 characters at most: its beginning, and a fingerprint of all of it."""
    return f"{node[:20]}-{hashlib.sha256(node.encode()).hexdigest()[:12]}"


def admin_sockets(env: Mapping[str, str]) -> list[Path]:
    """Return the admin sockets that may belong to nodes of this host; a node may have left its socket behind."""
    places = [SYSTEMD_DIRECTORY, *SYSTEMD_DIRECTORY.parent.glob("signald-*"), _own_directory(env)]
    return sorted({path for place in places for path in place.glob("*.sock")})


def _own_directory(env: Mapping[str, str]) -> Path:
    if runtime := env.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "signald"
    return Path("/tmp") / f"signald-{os.getuid()}"  # noqa: S108 - made with 0700, and refused if another user owns it
