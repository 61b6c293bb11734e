"""The sink of log lines: it neither blocks nor raises, whatever the descriptor does, and says how much is missing."""

import errno
import fcntl
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO, cast

import pytest
import structlog

from signald.config import LogConfig
from signald.logs import lines_dropped, logging_to, writing_logs
from signald.logsink import QUEUE_BYTES_MAX, WRITE_BYTES, LogSink

PATIENCE_S = 30.0


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """A pipe, [read, write]; a test that closes an end puts -1 in its place."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def until(holds: Callable[[], bool]) -> None:
    """Wait for the writer's thread to have come so far."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fill(fd: int) -> int:
    """Write to a pipe what it takes; returns how many bytes that was."""
    size = 0
    os.set_blocking(fd, False)
    try:
        while True:
            size += os.write(fd, b"." * 4096)
    except BlockingIOError:
        return size
    finally:
        os.set_blocking(fd, True)


def drain(fd: int, count: int) -> bytes:
    """Read `count` bytes."""
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def read_lines(fd: int, last: str) -> list[str]:
    """Read lines up to `last`."""
    data = b""
    while not data.endswith(f"{last}\n".encode()):
        data += os.read(fd, 65536)
    return data.decode().splitlines()


def test_lines_arrive_whole_and_in_order(pipe: list[int]) -> None:
    """Pieces of a line are gathered; `close` waits for what is queued, and writes a line that was only begun."""
    sink = LogSink(pipe[1])
    lines = [f"line {number}" for number in range(500)]
    for line in lines[:-1]:
        print(line, file=sink)
    sink.write(lines[-1])
    sink.close(PATIENCE_S)
    assert read_lines(pipe[0], lines[-1]) == lines
    assert sink.dropped == 0


def test_an_unread_pipe_neither_blocks_nor_grows(pipe: list[int]) -> None:
    """What the queue does not hold is dropped and counted; when the pipe is read, one line says how many are missing."""
    sink = LogSink(pipe[1], queue_bytes_max=10_000)
    taken = fill(pipe[1])
    for number in range(5000):
        print(f"line {number:04}", file=sink)
    dropped = sink.dropped
    assert 5000 - 10_000 // 10 - 2 * WRITE_BYTES // 10 <= dropped < 5000
    drain(pipe[0], taken)
    until(lambda: not sink._waiting_bytes)
    print("after", file=sink)
    lines = read_lines(pipe[0], "after")
    sink.close(PATIENCE_S)
    assert lines[:2] == ["line 0000", "line 0001"]
    said = [int(line.split()[0]) for line in lines if line.endswith(" log lines were dropped")]
    assert sum(said) == dropped
    assert len(said) <= 2  # the writer may have taken the first lot while the others came
    assert len(lines) - len(said) - 1 + dropped == 5000
    assert sink.dropped == dropped


def test_what_is_missing_is_said_where_it_is_missing(pipe: list[int]) -> None:
    """Lines that are queued after some were dropped come after the line that says so."""
    sink = LogSink(pipe[1], queue_bytes_max=3 * WRITE_BYTES)
    taken = fill(pipe[1])
    block = f"{'x' * (WRITE_BYTES - 1)}\n"
    for _ in range(8):
        sink.write(block)
    dropped = sink.dropped
    drain(pipe[0], taken)
    until(lambda: sink._waiting_bytes < 2 * WRITE_BYTES)
    print("later", file=sink)
    lines = read_lines(pipe[0], "later")
    sink.close(PATIENCE_S)
    assert lines.index(f"{dropped} log lines were dropped") == 8 - dropped


def test_a_pipe_whose_reader_has_gone(pipe: list[int]) -> None:
    """Every line is dropped and counted, none raises, and the end is not waited for."""
    sink = LogSink(pipe[1])
    os.close(pipe[0])
    pipe[0] = -1
    for number in range(10):
        print(f"line {number}", file=sink)
    until(lambda: sink.dropped == 10)
    sink.close(PATIENCE_S)
    print("too late", file=sink)
    assert sink.dropped == 11


def test_a_closed_descriptor() -> None:
    """As a pipe without a reader: EBADF is no more an error of the caller's."""
    read, write = os.pipe()
    sink = LogSink(write)
    os.close(read)
    os.close(write)
    print("line", file=sink)
    until(lambda: sink.dropped == 1)
    assert not sink.isatty()
    sink.close(PATIENCE_S)


class FullDisk:
    """A descriptor on a disk that has room for so many bytes; the log is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.kept = b""
        monkeypatch.setattr("signald.logsink.os.write", self.write)

    def write(self, _fd: int, data: bytes) -> int:
        """As write(2)."""
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = data[: self.room]
        self.room -= len(written)
        self.kept += written
        return len(written)


def test_a_disk_that_is_full_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was cut is ended, then it is said how many lines are missing, then the log goes on."""
    disk = FullDisk(monkeypatch, room=14)
    sink = LogSink(2)
    print("line 1", file=sink)
    until(lambda: disk.room == 7)
    print("a longer line", file=sink)
    until(lambda: sink.dropped == 1)
    print("line 3", file=sink)
    until(lambda: sink.dropped == 2)
    disk.room = 1000
    print("line 4", file=sink)
    sink.close(PATIENCE_S)
    assert disk.kept.decode().splitlines() == ["line 1", "a longe", "2 log lines were dropped", "line 4"]


def test_it_is_said_when_no_line_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet node tries again by itself, and then says what is missing."""
    monkeypatch.setattr("signald.logsink.RETRY_S", 0.01)
    disk = FullDisk(monkeypatch, room=0)
    sink = LogSink(2)
    print("line", file=sink)
    until(lambda: sink.dropped == 1)
    disk.room = 1000
    until(lambda: disk.kept == b"1 log lines were dropped\n")
    sink.close(PATIENCE_S)


def test_a_descriptor_that_others_made_nonblocking(pipe: list[int]) -> None:
    """It is waited for as if it were not, and its mode is left alone: the description is shared with other processes."""
    taken = fill(pipe[1])
    os.set_blocking(pipe[1], False)
    sink = LogSink(pipe[1])
    lines = [f"{number:04} {'x' * 200}" for number in range(2000)]
    for line in lines:
        print(line, file=sink)
    drain(pipe[0], taken)
    assert read_lines(pipe[0], lines[-1]) == lines
    sink.close(PATIENCE_S)
    assert sink.dropped == 0
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK


def test_more_lines_than_writes_in_a_second(pipe: list[int]) -> None:
    """A storm is written as fast as it is read: lines gather only while there is nothing to write."""
    sink = LogSink(pipe[1], queue_bytes_max=16 * QUEUE_BYTES_MAX)
    lines = [f"{number:05} {'x' * 200}" for number in range(20_000)]
    for line in lines:
        print(line, file=sink)
    assert read_lines(pipe[0], lines[-1]) == lines
    sink.close(PATIENCE_S)
    assert sink.dropped == 0


def test_the_end_waits_no_longer_than_told(pipe: list[int]) -> None:
    """A pipe without a reader does not hold up the end of the process."""
    sink = LogSink(pipe[1])
    taken = fill(pipe[1])
    print("line", file=sink)
    sink.close(0.05)
    assert sink._thread.is_alive()
    drain(pipe[0], taken)
    assert read_lines(pipe[0], "line") == ["line"]
    sink._thread.join(PATIENCE_S)


def test_a_finalizer_may_write_meanwhile(pipe: list[int]) -> None:
    """A warning of the garbage collector comes in the middle of a write, in the same thread: no lock is taken twice."""

    class Loud:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            print("from a finalizer", file=sink)

    sink = LogSink(pipe[1])
    threshold = gc.get_threshold()
    try:
        gc.set_threshold(1)
        for _ in range(200):
            Loud()
            print("line", file=sink)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    print("last", file=sink)
    lines = read_lines(pipe[0], "last")
    sink.close(PATIENCE_S)
    assert (lines.count("line"), lines.count("from a finalizer")) == (200, 200)


def test_what_is_not_text_is_written_all_the_same(pipe: list[int]) -> None:
    """Half a pair of a surrogate has no UTF-8."""
    sink = LogSink(pipe[1])
    print("half \ud83d", file=sink)
    sink.close(PATIENCE_S)
    assert drain(pipe[0], 12) == b"half \\ud83d\n"


def test_all_of_standard_error_goes_through_it(pipe: list[int]) -> None:
    """Print, warnings and the end of a thread, while a node runs; afterwards everything is as before."""
    before, factory = sys.stderr, structlog.get_config()["logger_factory"]
    with writing_logs(LogConfig(), error_fd=pipe[1], output_fd=pipe[1]):
        print("printed", file=sys.stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("something is odd", UserWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: [][0], name="lane")
        thread.start()
        thread.join()
        structlog.get_logger().info("logged")
    assert (sys.stderr, structlog.get_config()["logger_factory"]) == (before, factory)
    os.close(pipe[1])
    pipe[1] = -1
    with os.fdopen(pipe[0]) as all_of_it:
        pipe[0] = -1
        lines = all_of_it.read().splitlines()
    assert lines[0] == "printed"
    assert '"event": "logged"' in lines[-1]
    assert "something is odd" in lines[1]
    assert '"event": "thread_failed"' in lines[2]
    assert '"thread": "lane"' in lines[2]
    assert "IndexError" in lines[2]
    assert lines_dropped() == 0


def test_the_line_that_says_what_is_missing_has_the_form_of_the_log(pipe: list[int]) -> None:
    """A collector reads JSON, also there."""
    sink = LogSink(pipe[1])
    with logging_to(cast("TextIO", sink), LogConfig()):
        line = sink.notice(3)
    sink.close(PATIENCE_S)
    assert line.startswith('{"event": "log_lines_dropped", "level": "warning", "timestamp": "')
    assert line.endswith('"count": 3}\n')
