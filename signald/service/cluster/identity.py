"""The right to a node id: of all processes on a store, one live process holds it.

    PutNode ─▸ Done                  this process holds the id
            └▸ NodeTaken             another process does. It is alive, dead, or cannot be told yet:
                 renewed meanwhile     alive: this process is refused
                 dead on this host     its entry is replaced at once
                 neither               wait; its entry is replaced when one lease has gone by without a renewal

The store decides, in one atomic step; what is judged here is only whether an entry may be replaced before its lease ends.
Host names, process ids and boot ids prove nothing across containers. A file that only the holder can have locked does
(`HostFile`), and without that proof the process waits.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog
import trio

from signald.errors import SignaldError
from signald.store.base import Result
from signald.store.registry.ops import NodeTaken

log = structlog.get_logger(__name__)

POLL_S = 0.2
"""How often a process that waits for an id asks again: a dead holder is replaced within a fifth of a second."""

POKE_S = 1.0
"""How often the holder is woken. A wake-up may be lost, and a holder that stands still shall not find hundreds."""

SAY_S = 5.0
"""How often the supervisor is asked for more time while this process waits: a third of what is asked for at once."""

NAMES_MAX = 32
"""Incarnations kept in a host's file. Only the last that reached the store matters; the rest are starts that failed since."""

FORGET_FILE_S = 86_400.0
"""Age of another id's unlocked file that is removed: no lease is that long, so the file proves nothing any more."""


class NodeIdTaken(SignaldError):
    """Another live process holds the id of this node."""

    def __init__(self, node: str) -> None:
        super().__init__(
            f'node.id "{node}" is in use: another live process holds it on this store. '
            "Stop that node, or give this one an id of its own (node.id, SIGNALD_NODE__ID)"
        )


class StartCalledOff(SignaldError):
    """A signal ended the process before it became a node."""


class Host(Protocol):
    """What the host knows of the processes that held an id."""

    def dead(self, incarnation: str, secret: bytes) -> frozenset[str]:
        """Return incarnations of this id that are certainly dead, and remember `incarnation` as the next one.

        `secret` is the cluster's: ids of two clusters on one host have nothing to do with each other.
        """

    def close(self) -> None:
        """This process has given the id back to the store: its end needs no proof."""


class NoHost:
    """Proves nothing: every entry is waited for."""

    def dead(self, incarnation: str, secret: bytes) -> frozenset[str]:
        """Return nothing."""
        del incarnation, secret
        return frozenset()

    def close(self) -> None:
        """Do nothing."""


class HostFile:
    """A locked file with the incarnations that have held an id on this host.

    Each process appends its own while it has the lock, and keeps the lock until it ends; the kernel releases it however the
    process ends. So when this process has the lock, all other incarnations in the file are dead, whatever their namespaces.
    """

    def __init__(self, directory: Path, node: str) -> None:
        self._directory = directory
        self._node = node
        self._path: Path | None = None
        self._descriptor = -1
        self._dead: frozenset[str] = frozenset()

    def dead(self, incarnation: str, secret: bytes) -> frozenset[str]:
        """See `Host.dead`. A directory that cannot be used proves nothing."""
        if self._descriptor < 0:
            with suppress(OSError):
                self._lock(incarnation, secret)
        return self._dead

    def _lock(self, incarnation: str, secret: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._directory.stat().st_uid not in (0, os.getuid()):
            return  # another user could write names into the file
        # A fingerprint of the cluster's secret: it tells clusters apart and gives nothing away.
        cluster = hashlib.sha256(b"host file" + secret).hexdigest()[:12]
        name = hashlib.sha256(self._node.encode()).hexdigest()[:12]  # an id may be longer than a file's name
        path = self._directory / f"{name}-{cluster}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino != os.fstat(descriptor).st_ino:  # noqa: PTH116 - beside its twin for descriptors
                os.close(descriptor)  # the last holder has just removed it: the next attempt makes a new one
                return
            names = os.read(descriptor, 65_536).decode("ascii", "replace").split()
            os.ftruncate(descriptor, 0)
            # Before the store hears of it: an incarnation in the store that is not in the file would be waited for.
            os.pwrite(descriptor, "\n".join([*names, incarnation][-NAMES_MAX:]).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._path, self._descriptor, self._dead = path, descriptor, frozenset(names)
        self._forget_old()

    def _forget_old(self) -> None:
        """Remove the files of processes that were killed long ago and have not come back under their id."""
        for path in self._directory.glob("*.lock"):
            with suppress(OSError):
                found = path.lstat()
                if (
                    path == self._path
                    or not stat.S_ISREG(found.st_mode)
                    or found.st_mtime > time.time() - FORGET_FILE_S
                ):
                    continue
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)

    def close(self) -> None:
        """Remove the file and release the lock: this process has given the id back to the store."""
        if self._descriptor >= 0 and self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


class Claimant:
    """A process that asks for an id at its start."""

    def __init__(
        self, host: Host | None = None, tell: Callable[[str], object] = lambda _: None, stop: trio.Event | None = None
    ) -> None:
        """`tell` is told every few seconds what is waited for; `stop` ends the waiting."""
        self.host: Host = host or NoHost()
        self._tell = tell
        self._stop = stop if stop is not None else trio.Event()

    def returned(self) -> None:
        """The store has no entry of this process any more: nothing is left to prove."""
        self.host.close()

    async def take(
        self,
        node: str,
        incarnation: str,
        secret: bytes,
        put: Callable[[str, int], Awaitable[Result]],
        poke: Callable[[], Awaitable[object]],
    ) -> None:
        """Take the id `node`. `put` sends `PutNode` with its `over` and `over_ms`; `poke` wakes the holder, which renews its lease then.

        Raises NodeIdTaken, StartCalledOff, StoreUnavailable.
        """
        self.host.dead(incarnation, secret)  # names this process in the file before the store knows it
        first: NodeTaken | None = None
        began = told_at = trio.current_time()
        poked_at = -POKE_S
        over, over_ms = "", 0
        while True:
            found = await put(over, over_ms)
            if not isinstance(found, NodeTaken):
                return
            now = trio.current_time()
            if first is None:
                first = found
            if (found.incarnation, found.renewed_ms) != (first.incarnation, first.renewed_ms):
                raise NodeIdTaken(node)
            lease_s = (found.lease_until_ms - found.renewed_ms) / 1000
            # The lease also ends by this process's own clock: the store's may have been set back.
            if found.incarnation in self.host.dead(incarnation, secret) or now - began >= lease_s:
                over, over_ms = found.incarnation, found.renewed_ms
            if first is found or now - told_at >= SAY_S:
                self._say(node, max(0.0, lease_s - (now - began)), over_ms)
                told_at = now
            if over_ms and first is found:
                continue
            if now - poked_at >= POKE_S:
                # A live holder shows itself at once, and not with its next renewal a third of a lease later.
                await poke()
                poked_at = now
            with trio.move_on_after(POLL_S):
                await self._stop.wait()
                raise StartCalledOff("a signal came while this node waited for its id")

    def _say(self, node: str, left_s: float, over_ms: int) -> None:
        if over_ms:
            log.info("node_id_recovered", node=node, why="the process that held it on this host is dead")
            return
        line = f'waiting up to {left_s:.0f} s: another process may still hold node.id "{node}"'
        log.warning("node_id_waited_for", node=node, line=line)
        self._tell(line)
