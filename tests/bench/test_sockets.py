"""The generator's frames are those a WebSocket server reads, and it finds a server's frames wherever a read ends."""

import pytest
import wsproto.frame_protocol
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from tests.bench.sockets import TEXT, frame, frame_span, server_header


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_a_server_reads_the_frames_of_the_generator(length: int) -> None:
    """A frame of any length is one message to an independent server."""
    server = Connection(ConnectionType.SERVER)
    server.receive_data(frame(b"x" * length))
    events = [event for event in server.events() if isinstance(event, TextMessage)]
    assert "".join(event.data for event in events) == "x" * length
    assert [event.message_finished for event in events][-1:] == [True]


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_a_frame_is_found_only_when_all_of_it_is_there(length: int) -> None:
    """No cut of a frame is taken for a frame, and what follows it is left alone."""
    whole = server_header(TEXT, length) + b"x" * length
    for cut in {0, 1, 2, 3, 5, 9, len(whole) - 1}:
        assert cut >= len(whole) or frame_span(b"?" + whole[:cut], 1) is None
    span = frame_span(b"?" + whole + b"\x81", 1)
    assert span is not None
    assert (span[1] - span[0], span[1]) == (length, 1 + len(whole))


def test_the_generators_head_of_a_server_frame_is_the_one_servers_write() -> None:
    """What the generator waits for is what an independent server sends."""
    for length in (0, 125, 126, 65_535, 65_536):
        server = wsproto.frame_protocol.FrameProtocol(client=False, extensions=[])
        assert bytes(server.send_data(b"x" * length, fin=True)) == server_header(0x82, length) + b"x" * length
