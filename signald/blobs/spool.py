"""A file for an upload that is not finished: its bytes wait on a disk and not in memory. All functions block: threads call them.

The process that writes the file holds a lock on it, which ends with the process. So a file without a lock was left by a killed
process, whatever its age, and `sweep` of any node that shares the directory may remove it.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from signald.errors import MediaAway, MediaFull, ResourceRefused

PREFIX = "upload-"

_MODE = 0o600
_FULL = {errno.ENOSPC, errno.EDQUOT}


class SpoolFile:
    """The bytes of one upload. The lock is for a thread that still writes while the caller, cancelled, discards the file."""

    def __init__(self, directory: Path, *, named: bool) -> None:
        """Create it; without a name it needs no sweeping, and cannot be kept. Raises MediaAway."""
        self._lock = threading.Lock()
        self._path: Path | None = None
        self.size = 0
        with media_errors():
            self._fd, path = _create(directory)
            if named:
                self._path = path
            else:
                path.unlink()

    def write(self, data: bytes | bytearray) -> None:
        """Add bytes. Raises MediaFull, MediaAway."""
        with self._lock, media_errors():
            view = memoryview(data)
            while view:
                view = view[os.write(self._open(), view) :]
            self.size += len(data)

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at` on. Raises MediaAway."""
        with self._lock, media_errors():
            return os.pread(self._open(), count, at)

    def keep(self, target: Path) -> None:
        """Give the file its final name, when its bytes are on the disk. Raises MediaFull, MediaAway."""
        with self._lock, media_errors():
            assert self._path is not None, "a file without a name cannot be kept"
            os.fsync(self._open())
            self._path.rename(target)
            self._path = None
            self._close()
            sync_directory(target.parent)

    def discard(self) -> None:
        """Remove the file, if it was not kept; after a write that is under way."""
        with self._lock:
            if self._path is not None:
                with contextlib.suppress(OSError):  # the sweep takes what cannot be removed now
                    self._path.unlink()
                self._path = None
            self._close()

    def _open(self) -> int:
        if self._fd < 0:
            raise MediaAway("the upload was given up")
        return self._fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def sweep(directory: Path) -> int:
    """Remove the files of uploads whose process has ended; returns how many. Raises MediaAway."""
    with media_errors():
        return sum(_remove_if_left(path) for path in directory.glob(f"{PREFIX}*"))


def own_directory(key: str, path: Path) -> None:
    """Make `path` a directory that only this user can open: an object must not be a link that another user has put there.

    Raises ResourceRefused, with a remedy for the operator of `key`.
    """
    try:
        _make_directory(path)
    except OSError as error:
        raise ResourceRefused(key, f"{path} cannot be used", error, "name a directory of signald's own") from None


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        what = "it is a link" if stat.S_ISLNK(found.st_mode) else "it belongs to another user"
        raise PermissionError(errno.EPERM, what)
    if found.st_mode & 0o077:
        # A volume that is mounted for a group opens the directories on it to that group.
        path.chmod(0o700)


def check_spool(key: str, path: Path) -> None:
    """Check that files can be made in `path`. Raises ResourceRefused, with a remedy for the operator of `key`."""
    try:
        fd, file = _create(path)
        file.unlink()
        os.close(fd)
    except OSError as error:
        raise ResourceRefused(key, f"no file can be made in {path}", error, "name a directory on a disk") from None


def sync_directory(path: Path) -> None:
    """Have the entries of a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create(directory: Path) -> tuple[int, Path]:
    while True:
        path = directory / f"{PREFIX}{secrets.token_hex(16)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd, path
        except BlockingIOError:
            pass  # a sweep came between, and removes the file
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        os.close(fd)


def _remove_if_left(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # another sweep has removed it
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:  # its process lives
        return False
    else:
        return True
    finally:
        os.close(fd)


@contextlib.contextmanager
def media_errors() -> Iterator[None]:
    """Turn an error of the system into one of the media, whose text has no path of the machine."""
    try:
        yield
    except OSError as error:
        kind = MediaFull if error.errno in _FULL else MediaAway
        raise kind(error.strerror or type(error).__name__) from None
