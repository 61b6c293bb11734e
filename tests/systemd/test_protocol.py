"""The two protocols of systemd, word for word."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from signald import systemd
from signald.systemd import Inherited, Notifier, SocketRefused, inherited_sockets, open_notifier


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def notifier(heard: socket.socket) -> Iterator[Notifier]:
    """A notifier that is heard."""
    opened = open_notifier({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "3000000"})
    assert opened is not None
    yield opened
    opened.close()


def test_a_reload_is_one_datagram_with_the_time_it_began(heard: socket.socket, notifier: Notifier) -> None:
    """RELOADING=1 and MONOTONIC_USEC are said together: systemd matches the READY that follows by that time."""
    before_us = time.monotonic_ns() // 1000
    assert notifier.reloading()
    word, _, stamp = heard.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before_us <= int(stamp) <= time.monotonic_ns() // 1000


def test_each_word_is_as_systemd_reads_it(heard: socket.socket, notifier: Notifier) -> None:
    """Ready, alive, more time and stopping are the assignments of sd_notify(3)."""
    for said, expected in (
        (notifier.ready("serving"), "READY=1\nSTATUS=serving"),
        (notifier.alive(), "WATCHDOG=1"),
        (notifier.extend(15, "x"), "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=x"),
        (notifier.stopping("x"), "STOPPING=1\nSTATUS=x"),
    ):
        assert said
        assert heard.recv(4096).decode() == expected
    assert notifier.watchdog_s == 3.0


def test_a_status_cannot_say_another_word(heard: socket.socket, notifier: Notifier) -> None:
    """A line break within a status does not begin an assignment, and a status is not longer than a line."""
    notifier.status("a\nSTOPPING=1\r\n b" + "c" * 1000)
    said = heard.recv(4096).decode()
    assert said.startswith("STATUS=a STOPPING=1 bcc")
    assert "\n" not in said
    assert len(said) < 250


def test_what_is_not_taken_is_reported_and_never_waited_for(heard: socket.socket, notifier: Notifier) -> None:
    """A manager that does not read, or is gone, blocks no task: sending says False."""
    sent = 0
    while notifier.alive():
        sent += 1
        assert sent < 100_000
    heard.close()
    assert not notifier.ready("serving")


@pytest.mark.parametrize("address", ["", "/", "relative", "vsock:2:1"])
def test_nobody_is_told_where_no_socket_is_named(address: str) -> None:
    """Without a usable NOTIFY_SOCKET there is no manager to tell, and no variable is left for children."""
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    assert open_notifier(env) is None
    assert env == {"HOME": "/"}


@pytest.mark.parametrize(
    ("usec", "pid", "asked"), [("5", "1", False), ("x", "", False), ("0", "", False), ("5", "", True)]
)
def test_only_the_named_process_is_watched(heard: socket.socket, usec: str, pid: str, asked: bool) -> None:
    """The watchdog is for the process that WATCHDOG_PID names, and for none when its time is no number."""
    opened = open_notifier({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})
    assert opened is not None
    assert (opened.watchdog_s is not None) == asked
    opened.close()


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Two neighbouring descriptors, as systemd passes them: one that listens, and one that is a datagram socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(type=socket.SOCK_DGRAM) as other:
        first = max(listening.fileno(), other.fileno()) + 50
        for index, one in enumerate((listening, other)):
            os.dup2(one.fileno(), first + index)
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", first)
        yield [listening, other]
        for index in range(2):
            try:
                os.close(first + index)
            except OSError:
                continue  # its adopter has closed it


def variables(count: int, names: str, pid: int) -> dict[str, str]:
    """What systemd sets."""
    return {"LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, "LISTEN_PID": str(pid), "LISTEN_PIDFDID": "7"}


def test_a_named_socket_is_adopted(passed: list[socket.socket]) -> None:
    """The descriptor is taken as it is, closed in children, and the variables are gone."""
    env = variables(1, "http", os.getpid())
    inherited = inherited_sockets(env)
    assert env == {}
    assert not inherited.websocket
    (adopted,) = inherited.http
    assert adopted.getsockname() == passed[0].getsockname()
    assert not adopted.get_inheritable()
    assert not adopted.getblocking()
    inherited.close()
    with socket.create_connection(passed[0].getsockname(), 5):
        accepted, _ = passed[0].accept()  # it goes on listening at systemd
        accepted.close()


def test_sockets_for_another_process_are_left_alone(passed: list[socket.socket]) -> None:
    """LISTEN_PID names another process: the variables came by inheritance, and mean nothing here."""
    env = variables(1, "ws", 1)
    assert inherited_sockets(env) == Inherited()
    assert env == {}


@pytest.mark.parametrize(
    ("count", "names", "says"),
    [(1, "web", "'web'"), (1, "", "FileDescriptorName=ws"), (2, "ws", "''"), (2, "ws:http", "does not listen")],
)
def test_a_socket_that_does_not_fit_is_refused(passed: list[socket.socket], count: int, names: str, says: str) -> None:
    """A socket without a known name, or of another kind, is a mistake in the unit; the message says which."""
    with pytest.raises(SocketRefused, match=says):
        inherited_sockets(variables(count, names, os.getpid()))
