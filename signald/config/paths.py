"""Where a node and `signald ctl` on the same host look for each other."""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEMD_DIRECTORY = Path("/run/signald")


def socket_directory(env: Mapping[str, str]) -> Path:
    """Return the directory a node puts its admin socket into; it need not exist yet."""
    if runtime := env.get("RUNTIME_DIRECTORY"):
        return Path(runtime.partition(":")[0])
    return _own_directory(env)


def admin_sockets(env: Mapping[str, str]) -> list[Path]:
    """Return the admin sockets that may belong to nodes of this host, whether anybody answers there or not."""
    places = [SYSTEMD_DIRECTORY, *SYSTEMD_DIRECTORY.parent.glob("signald-*"), _own_directory(env)]
    return sorted({path for place in places for path in place.glob("*.sock")})


def _own_directory(env: Mapping[str, str]) -> Path:
    if runtime := env.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "signald"
    return Path("/tmp") / f"signald-{os.getuid()}"  # noqa: S108 - made with 0700 and refused if it is somebody else's
