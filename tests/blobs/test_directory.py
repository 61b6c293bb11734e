"""Media in a directory: it is signald's own, a killed upload leaves nothing, and a full disk is said."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from signald.blobs import spool
from signald.blobs.directory import CALLS_MAX, UNFINISHED, DirectoryMedia, open_directory
from signald.blobs.media import HELD_BYTES
from signald.errors import MediaAway, MediaFull, MediaMissing, ResourceRefused
from tests.blobs.test_contract import KEY, get, noise, put


async def until(ready: Callable[[], bool]) -> None:
    """Wait for the work of threads, which tell the loop nothing."""
    with trio.fail_after(30):
        while not ready():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def until_empty(folder: Path) -> None:
    """Wait until files that threads remove are gone."""
    await until(lambda: not list(folder.iterdir()))


async def test_the_directory_is_made_for_this_user_alone(tmp_path: Path) -> None:
    """Also with a mask that would open it, and when a volume has opened it to a group."""
    before = os.umask(0)
    try:
        async with open_directory(tmp_path / "blobs", threads=2) as media:
            await put(media, KEY, b"secret")
    finally:
        os.umask(before)
    paths = [tmp_path / "blobs", tmp_path / "blobs" / UNFINISHED]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700]
    assert (tmp_path / "blobs" / KEY).stat().st_mode & 0o777 == 0o600
    for path in paths:
        path.chmod(0o2775)
    async with open_directory(tmp_path / "blobs", threads=2):
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700]


async def test_a_directory_that_is_not_signalds_own_is_refused(tmp_path: Path) -> None:
    """A link leads where another user decides; a file is no directory; a parent must be there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name, why in (("link", "it is a link"), ("file", "exists"), ("absent/blobs", "No such file")):
        with pytest.raises(ResourceRefused, match=f"blobs.url: .*{why}.*; name a directory"):
            async with open_directory(tmp_path / name, threads=2):
                pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_the_folder_of_uploads_is_no_link(tmp_path: Path) -> None:
    """Else the bytes of uploads would be written where it leads."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / UNFINISHED).symlink_to(tmp_path)
    with pytest.raises(ResourceRefused, match="it is a link"):
        async with open_directory(tmp_path / "blobs", threads=2):
            pass


async def test_few_calls_are_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of readers and of threads."""
    held = threading.Event()
    reading = 0

    async with open_directory(tmp_path / "blobs", threads=16) as media:
        await put(media, KEY, b"bytes")
        read = media.piece

        def piece(key: str, first: int, buffer: memoryview) -> int:
            nonlocal reading
            reading += 1
            held.wait(30)
            return read(key, first, buffer)

        monkeypatch.setattr(media, "piece", piece)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(get, media, KEY, 0, 5)
            await until(lambda: media.threads.limiter.statistics().tasks_waiting == 8 - CALLS_MAX)
            assert reading <= CALLS_MAX
            held.set()
        assert reading == 8


async def test_a_link_in_the_directory_is_no_object(tmp_path: Path) -> None:
    """Its target, which may be any file that signald can read, is never given out; to remove it removes the link alone."""
    (tmp_path / "passwd").write_bytes(b"root")
    async with open_directory(tmp_path / "blobs", threads=2) as media:
        (tmp_path / "blobs" / KEY).symlink_to(tmp_path / "passwd")
        with pytest.raises(MediaAway):
            await get(media, KEY, 0, 4)
        await media.delete(KEY)
        assert (tmp_path / "passwd").read_bytes() == b"root"


async def test_a_volume_that_is_gone_loses_no_object(tmp_path: Path) -> None:
    """While it is not mounted its objects are away, and not missing."""
    async with open_directory(tmp_path / "blobs", threads=2) as media:
        await put(media, KEY, b"whole")
        (tmp_path / "blobs").rename(tmp_path / "elsewhere")
        (tmp_path / "blobs").mkdir()
        with pytest.raises(MediaAway):
            await get(media, KEY, 0, 5)
        with pytest.raises(MediaAway):
            await put(media, "other", b"whole")
        (tmp_path / "blobs").rmdir()
        (tmp_path / "elsewhere").rename(tmp_path / "blobs")
        assert await get(media, KEY, 0, 5) == [b"whole"]


async def test_an_upload_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    """The spool file goes, as soon as no thread writes to it."""
    async with open_directory(tmp_path / "blobs", threads=2) as media:
        async with media.write(KEY) as writing:
            await writing.send(noise(3 * HELD_BYTES))
            assert len(list((tmp_path / "blobs" / UNFINISHED).iterdir())) == 1
        await until_empty(tmp_path / "blobs" / UNFINISHED)
        assert [path.name for path in (tmp_path / "blobs").iterdir()] == [UNFINISHED]


UPLOAD = """
import sys, trio
from pathlib import Path
from signald.blobs.directory import open_directory
async def main():
    async with open_directory(Path(sys.argv[1]), threads=2) as media, media.write("killed") as writing:
        await writing.send(bytes(200_000))
        print("begun", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.real
async def test_what_a_killed_upload_leaves_is_swept_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    """Whatever the age of the files: the lock of the process decides."""
    folder = tmp_path / "blobs" / UNFINISHED
    async with open_directory(tmp_path / "blobs", threads=2) as media, media.write(KEY) as writing:
        await writing.send(noise(3 * HELD_BYTES))
        other = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", UPLOAD, str(tmp_path / "blobs")], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert await trio.to_thread.run_sync(other.stdout.readline) == "begun\n"
        assert len(list(folder.iterdir())) == 2
        assert await media.sweep() == 0
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
        async with open_directory(tmp_path / "blobs", threads=2) as started:
            assert started.counts.swept == 1
        assert len(list(folder.iterdir())) == 1
        await writing.finish()
        assert list(folder.iterdir()) == []
        assert b"".join(await get(media, KEY, 0, 3 * HELD_BYTES)) == noise(3 * HELD_BYTES)


async def test_a_sweep_that_meets_a_file_without_its_lock_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of a file and its lock a sweep may take it: another one is made."""
    async with open_directory(tmp_path / "blobs", threads=2) as media:
        made: list[Path] = []
        real = fcntl.flock

        def late(fd: int, operation: int) -> None:
            if not made:
                made.extend((tmp_path / "blobs" / UNFINISHED).iterdir())
                made[0].unlink()
            real(fd, operation)

        monkeypatch.setattr(fcntl, "flock", late)
        await put(media, KEY, b"whole")
        assert made
        assert await get(media, KEY, 0, 5) == [b"whole"]


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, MediaFull), (errno.EDQUOT, MediaFull), (errno.EIO, MediaAway)]
)
async def test_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[MediaAway]
) -> None:
    """The error has no path in it; nothing of the upload is left."""

    def full(_fd: int, _data: object) -> int:
        raise OSError(number, os.strerror(number), "/a/path")

    async with open_directory(tmp_path / "blobs", threads=2) as media:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(MediaAway) as caught:
            await put(media, KEY, noise(10))
        assert (type(caught.value), str(caught.value)) == (kind, os.strerror(number))
        assert media.counts.failed == 1
        monkeypatch.undo()
        await until_empty(tmp_path / "blobs" / UNFINISHED)
        with pytest.raises(MediaMissing):
            await get(media, KEY, 0, 1)


async def test_a_finish_that_is_cancelled_late_leaves_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread finds after its rename that its caller has gone, and undoes it."""
    async with open_directory(tmp_path / "blobs", threads=2) as media:
        with trio.CancelScope() as scope:
            renamed = DirectoryMedia.publish

            def slow(self: DirectoryMedia, file: spool.SpoolFile, key: str, content_type: str) -> None:
                renamed(self, file, key, content_type)
                trio.from_thread.run_sync(scope.cancel, trio_token=token)
                trio.from_thread.run(trio.testing.wait_all_tasks_blocked, trio_token=token)

            token = trio.lowlevel.current_trio_token()
            monkeypatch.setattr(DirectoryMedia, "publish", slow)
            async with media.write(KEY) as writing:
                await writing.send(noise(10))
                await writing.finish()
        assert scope.cancelled_caught
        await until(lambda: not media.counts.abandoned)
        with pytest.raises(MediaMissing):
            await get(media, KEY, 0, 1)
