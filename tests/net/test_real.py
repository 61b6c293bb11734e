"""Over real sockets and TLS, with a client we did not write: what memory streams cannot show."""

import datetime as dt
import os
import socket
import ssl
from functools import partial
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio_websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from signald.net.connection import Connection
from signald.net.ending import CloseInfo
from signald.testing.websocket import Client, close, frame, text
from tests.net.clients import Port, listening, until
from tests.net.settings import settings_of

pytestmark = pytest.mark.real


async def test_trio_websocket_talks_with_us() -> None:
    """A client we did not write: text, binary, fragments, pings both ways, subprotocol, and the close of either side."""
    async with listening() as port:
        url = f"ws://127.0.0.1:{port.number}/v1/client"
        async with trio_websocket.open_websocket_url(url, subprotocols=["signald.v1"]) as peer:
            assert peer.subprotocol == "signald.v1"
            for said in ("hello", "ä" * 1000, b"\x00\xff" * 30_000, "", b""):
                await peer.send_message(said)
                assert await peer.get_message() == said
            await peer.ping(b"are you there")
            (connection,) = port.server.connections.values()
            connection.tick(trio.current_time() + 21)  # as if it had been silent: asks, and trio-websocket answers
            await peer.send_message("and you?")
            assert await peer.get_message() == "and you?"
        assert (await connection.wait_closed()).code == 1000

        async with trio_websocket.open_websocket_url(url) as peer:
            await peer.send_message("close 4001")
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await peer.get_message()
            assert closed.value.reason is not None
            assert (closed.value.reason.code, closed.value.reason.reason) == (4001, "as you wish")
        await trio.aclose_forcefully(peer._stream)  # which trio-websocket leaves open when the other side closes


async def test_messages_larger_than_the_socket_buffers() -> None:
    """Short writes on a real socket come out whole and in order."""
    settings = settings_of(message_bytes_max=8_000_000, send_queue_bytes_max=64_000_000)
    async with listening(settings=settings) as port:
        client = await port.connect()
        said = [bytes((index,)) * 3_000_000 for index in range(8)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"".join(frame(2, piece, mask=b"\0\0\0\0") for piece in said))
            await trio.sleep(0.5)  # the server's writes run full meanwhile
            for piece in said:
                assert await client.frame() == (2, piece)
        await client.send(close())
        assert await client.closed_with() == (1000, "")
        await client.hung_up_after()


async def test_a_broken_rule_is_told_although_the_peer_keeps_sending() -> None:
    """Our Close survives the unread rest of what the peer sent: the socket is shut, drained, then closed."""
    async with listening(settings=settings_of(close_s=60.0)) as port:
        client = await port.connect()
        await client.send(frame(3) + b"\xff" * 200_000)
        assert await client.closed_with() == (1002, "reserved opcode")
        assert await client.hung_up_after() <= 30
        await client.stream.aclose()


async def test_a_peer_that_resets_its_tcp() -> None:
    """A reset, with data under way in both directions, ends that connection quietly."""
    async with listening() as port:
        bystander = await port.connect()
        client = await port.connect()
        await client.send(text("x" * 60_000) * 20)
        stream = client.stream
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await stream.aclose()
        await until(lambda: len(port.server.connections) == 1)
        await bystander.echo("unharmed")
        await bystander.stream.aclose()


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    """A full socket makes no progress: 4508 after `write_s`, a reset after that, and memory is let go."""
    ended: list[CloseInfo] = []

    async def talk(connection: Connection) -> None:
        while connection.room:
            connection.send_binary(b"x" * 100_000)
            connection.flush()
        ended.append(await connection.wait_closed())

    settings = settings_of(write_s=1.0, send_queue_bytes_max=4_000_000)
    async with listening(talk, settings) as port:
        client = await port.connect()
        await until(lambda: ended)
        assert ended == [CloseInfo(4508, "write timeout", "local")]
        assert port.server.connections == {}
        await client.hung_up_after()
        await client.stream.aclose()


async def test_many_come_and_go_and_leave_nothing() -> None:
    """Connections that end in every way, many at a time, leave no descriptor, task or place behind."""

    async def visit(port: Port, number: int) -> None:
        client = await port.dial()
        async with client.stream:
            if number % 5 == 0:
                return
            await client.open()
            if number % 5 == 1:
                await client.send(frame(3))
                await client.closed_with()
            elif number % 5 == 2:
                await client.send(text("close 1001") + close(1001))
                await client.closed_with()
            elif number % 5 == 3:
                await client.echo("half a frame is left")
                await client.send(frame(2, b"x" * 1000)[:500])
            else:
                await client.echo("bye")
                await client.send(close(1000))
                await client.hung_up_after()

    async with listening() as port:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(visit, port, number)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost, signed by itself; return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server on localhost shows, and what its clients trust."""
    certificate_file, key_file = certificate(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate_file, key_file)
    return tls, ssl.create_default_context(cafile=os.fspath(certificate_file))


async def connect_over_tls(port: Port, trusted: ssl.SSLContext) -> Client:
    """Return a client that has opened a WebSocket over TLS."""
    plain = await port.dial()
    client = Client(trio.SSLStream(plain.stream, trusted, server_hostname="localhost", https_compatible=True))
    await client.open()
    return client


async def test_a_broken_rule_is_told_over_tls_as_without(tmp_path: Path) -> None:
    """Our Close and then the end of our half: the peer need not guess when we have said all we had to say."""
    tls, trusted = contexts(tmp_path)
    async with listening(settings=settings_of(linger_s=3600.0), tls=tls) as port:
        client = await connect_over_tls(port, trusted)
        await client.send(frame(3))
        assert await client.closed_with() == (1002, "reserved opcode")
        await client.hung_up_after()
        assert len(port.server.connections) == 1, "it still listens to what the peer has to say"
        await trio.aclose_forcefully(client.stream)


@pytest.mark.parametrize(
    "cut", [b"", b"\x15\x03\x03\x00\x02\x02\x28", b"\x17\x03\x03\xff\xff", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_tls_in_the_middle_of_tls_ends_that_connection_only(tmp_path: Path, cut: bytes) -> None:
    """Noise, an alert, a record that is too long, or a TCP that just ends: nothing is logged as an error, others go on."""
    tls, trusted = contexts(tmp_path)
    with structlog.testing.capture_logs() as logged:
        async with listening(tls=tls) as port:
            bystander, attacker = await connect_over_tls(port, trusted), await connect_over_tls(port, trusted)
            await attacker.echo("before")
            below = port.clients[-1].stream
            await below.send_all(cut)
            assert isinstance(below, trio.SocketStream)
            await below.send_eof()
            await until(lambda: len(port.server.connections) == 1)
            await bystander.echo("unharmed")
            for client in (attacker, bystander):
                await trio.aclose_forcefully(client.stream)
    assert logged == []


async def test_an_abort_over_tls_resets_the_tcp(tmp_path: Path) -> None:
    """Unread data does not stay in the kernel: the peer sees a reset, not an end."""
    tls, trusted = contexts(tmp_path)
    async with listening(tls=tls) as port:
        client = await connect_over_tls(port, trusted)
        await client.echo("hello")
        (connection,) = port.server.connections.values()
        connection.abort("enough")
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.receive_some()
        await trio.aclose_forcefully(client.stream)


async def test_tls(tmp_path: Path) -> None:
    """TLS is the same service over the slow twin, and plain text on its port costs one handshake at most."""
    tls, trusted = contexts(tmp_path)
    async with listening(settings=settings_of(handshake_s=1.0), tls=tls) as port:
        plain = await port.dial()
        silent = await port.dial()
        await plain.send(b"GET /v1/client HTTP/1.1\r\n\r\n")
        await plain.hung_up_after()
        url = f"wss://localhost:{port.number}/v1/client"
        async with trio_websocket.open_websocket_url(url, ssl_context=trusted) as peer:
            for said in ("hello", b"x" * 60_000):
                await peer.send_message(said)
                assert await peer.get_message() == said
        await silent.hung_up_after()
        await plain.stream.aclose()
        await silent.stream.aclose()


def test_the_buffers_of_a_socket_are_the_operators() -> None:
    """A size that is set holds for each connection that is accepted; without one the kernel's own stands."""

    async def sizes(**buffers: int) -> list[int]:
        async with listening(settings=settings_of(**buffers)) as port:
            await port.connect()
            (connection,) = port.server.connections.values()
            sock = connection._transport._socket  # type: ignore[attr-defined]
            return [sock.getsockopt(socket.SOL_SOCKET, which) for which in (socket.SO_RCVBUF, socket.SO_SNDBUF)]

    usual = trio.run(sizes)
    # Linux doubles what is asked for, for what it keeps beside the bytes.
    assert trio.run(partial(sizes, receive_buffer_bytes=16_384, send_buffer_bytes=32_768)) == [32_768, 65_536]
    assert trio.run(sizes) == usual
