"""A listening socket is closed, and the kernel resets no connection at it."""

import socket
import sys

import pytest
import trio

from signald.ids import SeededEntropy
from signald.net import backlog
from signald.net.admission import Admission
from signald.net.listener import Server
from signald.testing.websocket import Client, close
from tests.net.clients import echo
from tests.net.settings import settings_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to begin no further connection"),
]


class LateSocket(socket.socket):
    """A listening socket to which a client connects between the last accept and the close."""

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family)
        self.late = socket.socket(family)
        self.late.setblocking(False)
        self.dead = 0
        """Connections that die in the queue, as accept(2) says of a client that has reset its own."""

    def accept(self) -> tuple[socket.socket, object]:
        """Fail for each dead connection first."""
        if self.dead:
            self.dead -= 1
            raise ConnectionAbortedError
        return super().accept()

    def close(self) -> None:
        """Let the late client connect, then close."""
        if self.fileno() != -1:
            self.late.connect_ex(self.getsockname())
        super().close()


def _listen(host: str) -> LateSocket:
    listening = LateSocket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setblocking(False)
    listening.bind((host, 0))
    listening.listen()
    return listening


def _connected(one: socket.socket) -> bool:
    """Tell whether the client's kernel has made the connection: from then on the client sends requests."""
    try:
        one.getpeername()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_is_served_or_never_connected(host: str) -> None:
    """A client that is connected when the port closes is served; one that comes a moment later gets no connection, hence no reset."""
    try:
        listening = _listen(host)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    settings = settings_of()
    admission = Admission(settings, entropy=SeededEntropy(0))
    with trio.fail_after(20):
        async with trio.open_nursery() as connections:
            server = Server(echo, settings=settings, admission=admission, nursery=connections)
            early = Client(await trio.open_tcp_stream(host, listening.getsockname()[1]))
            listening.dead = 2
            await server.close_at_last([listening])
            assert listening.fileno() == -1
            assert not _connected(listening.late)
            await early.open()
            await early.echo("accepted at last")
            await early.send(close())
            await early.hung_up_after()
            await early.stream.aclose()
    listening.late.close()


async def test_the_client_of_a_discarded_syn_finds_the_port_closed() -> None:
    """Its SYN is sent again a second later, by its kernel."""
    listening = _listen("127.0.0.1")
    assert backlog.take_no_more(listening)
    listening.close()
    with trio.fail_after(20):
        await trio.lowlevel.wait_writable(listening.late)
    assert isinstance(_error_of(listening.late), ConnectionRefusedError)
    listening.late.close()


async def test_another_process_that_listens_on_the_port_gets_the_client() -> None:
    """With `listen.reuse_port`, the SYN that is sent again reaches the successor."""
    with socket.socket() as old, socket.socket() as new, socket.socket() as client:
        for one in (old, new):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        old.bind(("127.0.0.1", 0))
        old.listen()
        assert backlog.take_no_more(old)
        client.setblocking(False)
        client.connect_ex(old.getsockname())
        new.bind(old.getsockname())
        new.listen()
        old.close()
        with trio.fail_after(20):
            await trio.lowlevel.wait_writable(client)
        assert _connected(client)


def _error_of(one: socket.socket) -> OSError | None:
    number = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(number, "") if number else None
