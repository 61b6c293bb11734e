"""The memory that a node may use with all its bounds reached, and whether a unit, a manifest or a cgroup grants it.

The kernel kills a process that exceeds its limit, and with it every connection. So the sum of all budgets is compared with the
limit before: by `check-config --systemd` and `--k8s`, and at the start, where the limit of the process's own cgroup is known.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from signald.config.manifests import read_pods
from signald.config.media_urls import media_scheme
from signald.config.problems import Problem
from signald.config.sections import Config, RoomsConfig
from signald.config.stop_timeouts import read_document
from signald.config.units import read_unit

MIB = 1 << 20

BASE_BYTES = 80 * MIB
"""A node at rest: the interpreter, the libraries and the store's client take 70 MiB."""

CONNECTION_BYTES = 16 * 1024
"""A connection with its session and empty queues: 11 KiB measured, and what the allocator cannot give back."""

CONTEXT_BYTES = 304 * 1024
"""What a connection keeps with limits.compression context: zlib takes 256 KiB and 6 to deflate, 32 and 7 to inflate."""

INFLATED_BYTES = 32 * MIB
"""What one read inflates to, as frames and once more as the messages that are made of them; reads are handled one at a time."""

STRANGER_BYTES = 12 * 1024
"""A peer in its handshake, or before its opening message: its task, buffers and parser, 9 and 10 KiB measured. The bytes
that it has sent are stored once beside that (30 KiB for 30 KiB), and have budgets of their own."""

HTTP_BYTES = 24 * MIB
"""All connections of `listen.http` and of the Unix socket, 1,024, each with a request that never ends: 23 KiB measured."""

PUBLIC_HTTP_BYTES = 72 * 1024
"""An HTTP connection of the public listener: 14 KiB measured when it is idle, 25 with a request under way, 68 with a large head
and a body that an application does not read."""

UPLOAD_BYTES = 128 * 1024
"""An upload of a blob: 64 KiB gathered, and as much on its way to the spool file."""

DOWNLOAD_BYTES = 128 * 1024
"""A download of a blob: a piece of 64 KiB on its way to the socket, and the next one."""

MEDIA_THREAD_BYTES = 256 * 1024
"""A thread at the media: its stack, and what an allocator keeps for it."""

S3_BYTES = 16 * MIB
"""obstore with its connections takes 5 MiB, the large object on its way 7 MiB, and small ones 256 KiB for each of sixteen threads."""

MEMORY_MEDIA_BYTES = 256 * MIB
"""All objects of media in memory (`signald/blobs/memory.py`)."""

CORE_ANSWERS_BYTES = 16 * MIB
"""Answers of the core server that are remembered (`core/authorising.py`)."""

ROOM_STATES_BYTES = 16 * MIB
"""Records of rooms that are read over HTTP at once, and their documents: one of the largest room by default, or a hundred usual ones."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@attrs.frozen
class Share:
    """One part of the sum."""

    what: str
    bytes: int


def memory_shares(config: Config) -> tuple[Share, ...]:
    """Return the memory used with all bounds reached together, part by part."""
    limits, admission = config.limits, config.admission
    strangers = 2 * admission.handshakes_in_progress_max * STRANGER_BYTES
    return (
        Share("the process", BASE_BYTES),
        Share(
            f"admission.connections_max {admission.connections_max} x 16 KiB",
            admission.connections_max * CONNECTION_BYTES,
        ),
        Share(f"admission.handshakes_in_progress_max 2 x {admission.handshakes_in_progress_max} x 12 KiB", strangers),
        *_of_compression(config),
        Share("2 x admission.strangers_bytes_max", 2 * admission.strangers_bytes_max),
        Share("HTTP connections", HTTP_BYTES),
        Share(
            f"admission.http_connections_max {admission.http_connections_max} x 72 KiB",
            admission.http_connections_max * PUBLIC_HTTP_BYTES,
        ),
        Share("core.authorize_cache_max", CORE_ANSWERS_BYTES if config.core.authorize_url else 0),
        Share("limits.request_bodies_bytes_max", limits.request_bodies_bytes_max),
        Share("limits.send_queues_bytes_max", limits.send_queues_bytes_max),
        Share("limits.logs_bytes_max", limits.logs_bytes_max),
        Share("records read over HTTP", room_states_bytes(config.rooms)),
        *_of_blobs(config),
    )


def _of_compression(config: Config) -> Iterator[Share]:
    mode, connections = config.limits.compression, config.admission.connections_max
    if mode != "off":
        yield Share("messages that are inflated", max(INFLATED_BYTES, 2 * config.limits.message_bytes_max))
    if mode == "context":
        yield Share(f"limits.compression: {connections} x 304 KiB", connections * CONTEXT_BYTES)


def room_states_bytes(rooms: RoomsConfig) -> int:
    """Return the budget of records that are read over HTTP: enough for one room, however large, with its document."""
    return max(ROOM_STATES_BYTES, 2 * rooms.room_bytes_max)


def _of_blobs(config: Config) -> Iterator[Share]:
    blobs, scheme = config.blobs, media_scheme(config)
    if not scheme:
        return
    uploads, downloads = blobs.uploads_in_progress_max, blobs.downloads_in_progress_max
    yield Share(f"blobs.uploads_in_progress_max {uploads} x 128 KiB", uploads * UPLOAD_BYTES)
    yield Share(f"blobs.downloads_in_progress_max {downloads} x 128 KiB", downloads * DOWNLOAD_BYTES)
    if scheme == "memory":
        yield Share("blobs in memory", MEMORY_MEDIA_BYTES)
        return
    yield Share(f"blobs.threads {blobs.threads} x 256 KiB", blobs.threads * MEDIA_THREAD_BYTES)
    if scheme == "s3":
        yield Share("blobs on their way to S3", S3_BYTES)


def memory_problem(config: Config, limit_bytes: float, where: str, key: str) -> Problem | None:
    """Return what is wrong with a limit of memory, with the whole sum; None when it is enough."""
    shares = memory_shares(config)
    total = sum(share.bytes for share in shares)
    if total <= limit_bytes:
        return None
    terms = " + ".join(f"{_mib(share.bytes)} ({share.what})" for share in shares)
    message = (
        f"grants {_mib(limit_bytes)}, the budgets add up to {_mib(total)}: {terms}. Raise it, or lower one of them"
    )
    return Problem(where, key, message)


def check_memory(
    config: Config, *, units: Sequence[Path], manifests: Sequence[Path], standard_input: str = ""
) -> list[Problem]:
    """Return the problems of the memory that a unit (with its drop-ins) and manifests grant.

    `check_stop_timeouts` reports files that cannot be read. A file without a memory limit grants all memory there is.
    """
    granted = [*_of_units(units), *_of_manifests(manifests, standard_input)]
    found = [memory_problem(config, limit, where, key) for where, key, limit in granted]
    return [problem for problem in found if problem is not None]


def _of_units(paths: Sequence[Path]) -> Iterator[tuple[str, str, float]]:
    texts = [(str(path), text) for path in paths if (text := read_document(path, [])) is not None]
    if texts:
        unit = read_unit(texts)
        if unit.memory is not None:
            yield unit.memory


def _of_manifests(paths: Sequence[Path], standard_input: str) -> Iterator[tuple[str, str, float]]:
    for path in paths:
        text = standard_input if str(path) == "-" else read_document(path, [])
        where = "standard input" if str(path) == "-" else str(path)
        for pod in read_pods(where, text, []) if text is not None else ():
            if pod.memory_bytes is not None:
                yield where, f"{pod.name}: resources.limits.memory", pod.memory_bytes


def cgroup_limit() -> tuple[str, float] | None:
    """Return the file that limits the memory of this process's container, and the limit; None when there is none."""
    for path in CGROUP_LIMITS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        # Version 1 says "no limit" with a number near 2^63.
        if text.isdigit() and int(text) < 1 << 60:
            return path, int(text)
    return None


def _mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB"
