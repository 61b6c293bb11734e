"""The sink of log lines: a bounded queue, and a thread that writes them to a file descriptor.

Standard error may be closed, on a full disk, a pipe without a reader, or a terminal stopped with Ctrl-S. A write there may
block for ever or fail, and neither may reach the event loop. So a line is queued; when the queue is full, the line is dropped
and counted. The descriptor itself stays as it is, because other processes often share it and its non-blocking mode.

When lines can be written again, the first of them says how many are missing.
"""

import io
import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

QUEUE_BYTES_MAX = 1_048_576
"""Bytes that wait to be written: some thousand lines, a few seconds of a storm, and little for the smallest pod."""

WRITE_BYTES = 4096
"""Bytes of whole lines in one write. A pipe takes so many in one piece (PIPE_BUF), so lines of several processes do not mix."""

GATHER_S = 0.01
"""How long lines gather once all are written: the thread wakes a hundred times a second at most, unless it has more to
write."""

RETRY_S = 5.0
"""The pause before the next attempt after a failed write, while there are no new lines."""

_END = -1


class LogSink(io.TextIOBase):
    """A text file that neither blocks nor raises. Takes whole lines; `close` waits for the writer, within a bound."""

    def __init__(self, fd: int, *, queue_bytes_max: int = QUEUE_BYTES_MAX) -> None:
        """Write to `fd`, which stays the caller's to close."""
        super().__init__()
        self.dropped = 0
        """Lines that were not written, since the start."""
        self.notice: Callable[[int], str] = lambda count: f"{count} log lines were dropped\n"
        """Makes the line that says how many are missing. Called in the writer's thread."""
        self._fd = fd
        self._queue_bytes_max = queue_bytes_max
        self._waiting_bytes = 0
        # A finalizer may warn while a line is being queued, in the same thread: so neither lock nor queue may be one that
        # cannot be entered twice.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[bytes | int] = SimpleQueue()
        """Whole lines; a number stands for so many lines that were dropped at this place."""
        self._begun = ""
        self._missing = 0
        """Lines dropped at a full queue since the last queued line."""
        self._lost = 0
        """Lines with a failed write since the last successful one. The writer thread's own."""
        self._cut = False
        """The last write ended inside a line. The writer thread's own."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signald-log", daemon=True)
        self._thread.start()

    # ---- for the loggers

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of a text file."""
        return "utf-8"

    def writable(self) -> bool:
        """As of a text file."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, as of a file."""
        return self._fd

    def isatty(self) -> bool:
        """Whether the lines go to a terminal."""
        try:
            return os.isatty(self._fd)
        except OSError:
            return False

    def write(self, text: str, /) -> int:
        """Queue `text` once its line is complete."""
        with self._lock:
            self._begun += text
            end = self._begun.rfind("\n") + 1
            if not end and len(self._begun) > WRITE_BYTES:
                self._begun += "\n"
                end = len(self._begun)
            if end:
                whole, self._begun = self._begun[:end], self._begun[end:]
                self._put(whole.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Return at once: the thread writes the queued lines."""

    def close(self, within_s: float = 0.0) -> None:
        """Write the queued lines, waiting at most `within_s`; later lines are dropped."""
        with self._lock:
            if self._ending.is_set():
                return
            if self._begun:
                self.write("\n")
            self._ending.set()
            self._queue.put(_END)
        self._thread.join(within_s)

    def _put(self, lines: bytes) -> None:
        count = lines.count(b"\n")
        if self._ending.is_set() or self._waiting_bytes + len(lines) > self._queue_bytes_max:
            self.dropped += count
            self._missing += count
            return
        if self._missing:
            self._queue.put(self._missing)
            self._missing = 0
        self._waiting_bytes += len(lines)
        self._queue.put(lines)

    # ---- the writer's thread

    def _run(self) -> None:
        ended = False
        while not ended:
            try:
                item = self._queue.get(timeout=RETRY_S if self._lost else None)
            except Empty:
                self._tell_lost()
                continue
            lines, missing, ended = self._gather(item)
            if lines:
                self._write(lines)
            if missing:
                self._lost += missing
                self._tell_lost()
            if self._queue.empty():
                self._ending.wait(GATHER_S)

    def _gather(self, item: bytes | int) -> tuple[bytes, int, bool]:
        """Take lines from `item` on; return them, how many were dropped after them, and whether the queue has ended."""
        lines: list[bytes] = []
        size = 0
        while not isinstance(item, int):
            lines.append(item)
            size += len(item)
            if size >= WRITE_BYTES:
                return self._taken(lines, size), 0, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                with self._lock:
                    missing, self._missing = self._missing, 0
                return self._taken(lines, size), missing, False
        return self._taken(lines, size), max(item, 0), item == _END

    def _taken(self, lines: list[bytes], size: int) -> bytes:
        with self._lock:
            self._waiting_bytes -= size
        return b"".join(lines)

    def _write(self, lines: bytes) -> None:
        if self._lost and not self._tell_lost():
            self._lose(lines)
            return
        rest = self._written(lines)
        if rest:
            self._lose(rest)

    def _tell_lost(self) -> bool:
        """Write how many lines are missing; False when this write fails too."""
        notice = self.notice(self._lost).encode("utf-8", "backslashreplace")
        if self._written((b"\n" if self._cut else b"") + notice):
            return False
        self._lost = 0
        return True

    def _lose(self, lines: bytes) -> None:
        count = lines.count(b"\n")
        with self._lock:
            self.dropped += count
        self._lost += count

    def _written(self, data: bytes) -> bytes:
        """Write `data`; return the part that could not be written."""
        begun = 0
        while begun < len(data):
            try:
                end = data.rfind(b"\n", begun, begun + WRITE_BYTES) + 1
                begun += os.write(self._fd, data[begun : end or begun + WRITE_BYTES])
            except BlockingIOError:
                self._wait_writable()
            except OSError:
                break
        if begun:
            self._cut = data[begun - 1 : begun] != b"\n"
        return data[begun:]

    def _wait_writable(self) -> None:
        """Wait for a descriptor that another process made non-blocking, as a blocking one would; `close` bounds its wait."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()
