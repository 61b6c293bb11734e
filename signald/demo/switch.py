"""A small TCP switch: the load balancer of the demo, in a process of its own.

New connections go to the current node; established ones stay with theirs until they end. It copies bytes and knows
nothing of what they mean. It runs as its own process so that its work does not wait for the Python of the parties, and
without Trio because copying is all it does: one event loop, two system calls per piece.

It is spoken to in lines. On stdin: `target HOST PORT` (where new connections go), `watch PGID` and `forget PGID`. Each is
answered with `ok` on stdout, after a first line `listening HOST PORT`. When stdin ends, so does the switch, and it kills the process
groups it was asked to watch: the process that started them has died without cleaning up, even by SIGKILL.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

READ_BYTES: Final = 65536
BACKLOG: Final = 4096
ACCEPTS_AT_ONCE: Final = 64  # a storm of new connections must not hold up the established ones


class Pipe:
    """One end of a switched connection: what is read here is written to `other`."""

    __slots__ = ("connecting", "events", "finished", "other", "pending", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other: Pipe | None = None
        self.pending = b""
        """What `sock` has not taken yet. Bounded by one read: while it is not empty, `other` is not read."""
        self.events = 0
        self.connecting = False
        self.finished = False
        """Whether `sock` has said that nothing more will come from it."""


class Switch:
    """Copies between the connections it accepts and the ones it opens to the current target."""

    def __init__(self, listener: socket.socket) -> None:
        self.target: tuple[str, int] | None = None
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self, control_fd: int, on_line: Callable[[str], None]) -> None:
        """Copy until `control_fd` ends; every line read from it goes to `on_line`."""
        heard = bytearray()
        self._selector.register(control_fd, selectors.EVENT_READ, None)
        while True:
            for key, ready in self._selector.select():
                end = key.data
                if type(end) is Pipe:
                    if end.events:  # else it was closed by an event before it in this same batch
                        self._serve(end, ready)
                elif end is not None:
                    end()
                else:
                    said = os.read(control_fd, READ_BYTES)
                    if not said:
                        return
                    heard += said
                    *lines, rest = heard.split(b"\n")
                    heard = bytearray(rest)
                    for line in lines:
                        on_line(line.decode())

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, _address = self._listener.accept()
            except OSError:  # no client is waiting any more, or no descriptors are left: the next event tries again
                return
            if self.target is None:
                sock.close()
                continue
            party, node = Pipe(sock), Pipe(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            party.other, node.other = node, party
            for end in (party, node):
                end.sock.setblocking(False)
                end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            node.connecting = True
            with contextlib.suppress(BlockingIOError, OSError):  # a refusal is found by `_serve`
                node.sock.connect(self.target)
            self._watch(node, party)

    def _watch(self, end: Pipe, other: Pipe) -> None:
        """Hear of what concerns `end`: its data while `other` can take it, its room while something waits for it."""
        events = 0
        if end.connecting or end.pending:
            events |= selectors.EVENT_WRITE
        if not (end.connecting or other.connecting or end.finished or other.pending):
            events |= selectors.EVENT_READ
        self._register(end, events)

    def _register(self, end: Pipe, events: int) -> None:
        if events == end.events:
            return
        if not end.events:
            self._selector.register(end.sock, events, end)
        elif events:
            self._selector.modify(end.sock, events, end)
        else:
            self._selector.unregister(end.sock)
        end.events = events

    def _serve(self, end: Pipe, ready: int) -> None:
        other = end.other
        assert other is not None
        try:
            if ready & selectors.EVENT_WRITE:
                self._write(end, other)
            if ready & selectors.EVENT_READ and end.events & selectors.EVENT_READ:
                self._copy(end, other)
        except BlockingIOError:
            return
        except OSError:
            # Refused, reset or broken: the other side learns it by a close, as from any load balancer.
            self._close(end, other)

    def _write(self, end: Pipe, other: Pipe) -> None:
        if end.connecting:
            error = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "the node refused")
            end.connecting = False
        else:
            end.pending = end.pending[end.sock.send(end.pending) :]
        if not end.pending:  # `other`, unread while something was pending, cannot have finished meanwhile
            self._watch(end, other)
            self._watch(other, end)

    def _copy(self, source: Pipe, sink: Pipe) -> None:
        data = source.sock.recv(READ_BYTES)
        if not data:
            source.finished = True
            self._finish(source, sink)
            return
        try:
            sent = sink.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            sink.pending = data[sent:]
            self._watch(sink, source)
            self._watch(source, sink)

    def _finish(self, source: Pipe, sink: Pipe) -> None:
        """`source` has said its last and `sink` has it all: pass the goodbye on; when both have said theirs, close."""
        if sink.finished:
            self._close(source, sink)
            return
        sink.sock.shutdown(socket.SHUT_WR)
        self._watch(source, sink)
        self._watch(sink, source)

    def _close(self, *ends: Pipe) -> None:
        for end in ends:
            self._register(end, 0)
            end.sock.close()


def main() -> int:
    """Run one switch, controlled through stdin and stdout; `argv[1]` is the address to listen on."""
    # Ctrl-C goes to the whole foreground group; the demo decides when its switches end, not the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0").rpartition(":")
    watched: set[int] = set()

    def obey(line: str) -> None:
        match line.split():
            case ["target", to_host, to_port]:
                switch.target = (to_host, int(to_port))
            case ["watch", group]:
                watched.add(int(group))
            case ["forget", group]:
                watched.discard(int(group))
            case _:
                print("what?", flush=True)
                return
        print("ok", flush=True)

    with socket.create_server((host, int(port)), backlog=BACKLOG) as listener:
        switch = Switch(listener)
        print("listening", *listener.getsockname(), flush=True)
        with contextlib.suppress(BrokenPipeError):
            switch.run(sys.stdin.fileno(), obey)
    for group in watched:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
