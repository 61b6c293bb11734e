"""The file beneath a talk: what must be in it after a death, disks that fill up, and locks that others hold.

Promises      the messages acked to each sender, as the senders know them
copy, check   the file and its WAL as a kill left them, recovered apart from the node that will recover them itself
Disk          room for the file, which a test takes away and gives back
"""

import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import trio

from signald.demo.cluster import Node
from signald.store.session.ops import Look, Looked
from signald.store.sqlite import open_sqlite
from tests.real.harness import DRAIN, Talk, descriptors, probe, threads, until

CAP_SYS_ADMIN = 21
EVERYTHING = 100_000
HASTE = {**DRAIN, "successor_timeout_s": 0.2, "flush_timeout_s": 0.5, "close_timeout_s": 0.5}
"""For a node that is stopped where nothing can be waited for."""


class Promise(NamedTuple):
    """What the parties of one session know of its logs."""

    up_acked: int
    """The last seq of the client's that signald said it has."""
    up_finished: int
    """The last one the worker's application has finished with: what comes after must be kept for it."""
    down_acked: int
    down_finished: int


def promises(talk: Talk) -> dict[str, Promise]:
    """The present promises, by session; complete only while no party is connected."""
    known = {}
    sides = {session: side for worker in talk.workers for session, side in worker.sessions.items()}
    for chatter in talk.chatters:
        client, worker = chatter.client._conversation, sides[chatter.client.session]._conversation
        known[chatter.client.session] = Promise(client.accepted, worker.finished, worker.accepted, client.finished)
    return known


def _copy_sound(path: Path, copy: Path) -> None:
    copy.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file() and not file.name.endswith("-shm"):  # rebuilt from the WAL, as after a power cut
            shutil.copy(file, copy / file.name)
    with closing(sqlite3.connect(copy / path.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def check_copy(path: Path, copy: Path, promised: dict[str, Promise]) -> None:
    """Recover a copy of the file and its WAL: it must be sound and hold everything that was promised."""
    _copy_sound(path, copy)
    async with open_sqlite(
        f"sqlite:{copy / path.name}", "reader", ack="process", poll_interval_s=1, busy_timeout_s=5
    ) as store:
        for session, promise in promised.items():
            up, down = await store.execute(
                [
                    Look(session, "worker", promise.up_finished, EVERYTHING),
                    Look(session, "client", promise.down_finished, EVERYTHING),
                ]
            )
            assert isinstance(up, Looked)
            assert isinstance(down, Looked)
            head = up.head
            assert head.up_last >= promise.up_acked, (session, promise, head)
            assert head.down_last >= promise.down_acked, (session, promise, head)
            assert [entry.seq for entry in up.entries] == list(range(promise.up_finished + 1, head.up_last + 1))
            assert [entry.seq for entry in down.entries] == list(range(promise.down_finished + 1, head.down_last + 1))
    shutil.rmtree(copy)


def wal_of(path: Path) -> Path:
    """The write-ahead log beside a file."""
    return path.with_name(f"{path.name}-wal")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the one write lock, as another program does that forgot to commit."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def is_locked(path: Path, within_s: float) -> bool:
    """Whether another process keeps the write lock for longer than `within_s`."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=within_s)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        other.execute("ROLLBACK")
        return False


async def stopped_in_a_transaction(node: Node, path: Path, within_s: float = 60.0) -> None:
    """Freeze a node at a moment when it holds the write lock, that is in the middle of a batch."""
    with trio.fail_after(within_s):
        while True:
            node.send_signal(signal.SIGSTOP)
            await until(lambda: _state_of(node) == "T", 5, "it has stopped")
            # Another node's lock is gone within this time, a frozen one's is not.
            if await trio.to_thread.run_sync(is_locked, path, 1.0):
                return
            node.send_signal(signal.SIGCONT)
            await trio.sleep(random.uniform(0.002, 0.02))  # so that it gets something done on a busy machine, too


def _state_of(node: Node) -> str:
    states = {
        (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{node.process.pid}/task").iterdir()
    }
    return states.pop() if len(states) == 1 else ""


async def check_away(node: Node, talk: Talk, for_s: float) -> None:
    """See for a while what an outage is: the node lives, says that it is degraded, and acks nothing."""
    await until(lambda: _degraded(node), 20, "the node says that its store is away")
    await trio.sleep(1)  # what was answered before is on its way
    before = promises(talk)
    with trio.move_on_after(for_s):
        while True:
            assert await probe(node) == (503, "degraded")
            assert (await probe(node, "/livez"))[0] == 200
            await trio.sleep(0.2)
    after = promises(talk)
    for session, promise in before.items():
        assert (promise.up_acked, promise.down_acked) == (after[session].up_acked, after[session].down_acked)


async def _degraded(node: Node) -> bool:
    return await probe(node) == (503, "degraded")


class Footprint(NamedTuple):
    """What a node uses of its process."""

    descriptors: int
    threads: int

    @classmethod
    def of(cls, node: Node) -> "Footprint":
        """Count now."""
        return cls(descriptors(node), threads(node))


# --- room ---------------------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of its own that can be filled: SQLite is told ENOSPC."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self, _node: Node) -> None:
        """Leave no byte free."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

    def free(self, _node: Node) -> None:
        """Make room again."""
        self._ballast.unlink()


class SizeLimit:
    """A limit on the size of a process's files: SQLite is told EFBIG, an I/O error like any other of a disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, node: Node) -> None:
        """Let no file grow beyond the largest there is."""
        now = max(file.stat().st_size for file in self.directory.iterdir())
        assert now > node.log.stat().st_size + 65536, "the node can still write its log"
        self._set(node, now)

    def free(self, node: Node) -> None:
        """Lift the limit; it goes with its process, too."""
        if node.process.poll() is None:
            self._set(node, resource.RLIM_INFINITY)

    def _set(self, node: Node, size: int) -> None:
        _, hard = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def _may_mount() -> bool:
    capabilities = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    return bool(int(capabilities.split()[1], 16) >> CAP_SYS_ADMIN & 1)


KINDS = ("size limit", "small disk") if _may_mount() else ("size limit",)
"""A disk of one's own takes the right to mount one."""

Disk = SmallDisk | SizeLimit


@contextmanager
def disk(kind: str, directory: Path) -> Iterator[Disk]:
    """Room for a file, of one of KINDS."""
    directory.mkdir()
    if kind == "size limit":
        yield SizeLimit(directory)
        return
    # The journal alone may take 16 MB before it is begun anew: what is to be full is full of ballast.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "signald-test", directory], check=True)
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
