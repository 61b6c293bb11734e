"""permessage-deflate: what is agreed on, what is deflated, and what a bomb costs."""

import tracemalloc
import zlib
from typing import Any

import pytest
import trio
from websockets.sync.client import connect

from signald.net.compression import OFFERS_MAX, Compression, Deflater, Inflater, Terms, agree, inflater_of
from signald.net.connection import Connection
from signald.net.frames import INFLATED_BYTES_MAX, FrameDecoder, Message, ProtocolError
from signald.tally import Traffic
from signald.testing.websocket import Client, close, frame, text
from signald.wire.close_codes import CloseCode
from tests.net.clients import Net, echo, listening, served, simulated
from tests.net.settings import settings_of

SAID = b'{"type": "message", "data": "as people write it, again and again"}' * 20
OFFER = b"permessage-deflate; client_max_window_bits"
BOMB = 1_073_741_824


def deflate(payload: bytes, bits: int = 15) -> bytes:
    """Return a message as a client of RFC 7692 deflates it."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(payload: bytes) -> bytes:
    """Return what a client reads of it."""
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def bomb(size: int) -> bytes:
    """Return `size` zeros, deflated without ever being in memory together."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    step = b"\x00" * 1_048_576
    parts = [stream.compress(step) for _ in range(size // len(step))]
    return (b"".join(parts) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflated(payload: bytes, opcode: int = 1, **kwargs: Any) -> bytes:
    """Return the frame of a deflated message."""
    return frame(opcode, deflate(payload), rsv=4, **kwargs)


def decoder(message_bytes_max: int = 65536, *, keeps: bool = False, fragments_max: int = 128) -> FrameDecoder:
    """Return a decoder of a connection that is compressed."""
    inflater = Inflater(15, keeps=keeps)
    return FrameDecoder(message_bytes_max=message_bytes_max, fragments_max=fragments_max, inflater=inflater)


def failure(decoder: FrameDecoder) -> tuple[int, str] | None:
    """Return the code and the reason of what has ended it."""
    return None if decoder.failed is None else (decoder.failed.code.value, decoder.failed.reason)


# ---- what is agreed on


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        ("permessage-deflate", "client_no_context_takeover; server_no_context_takeover"),
        (
            "permessage-deflate; client_max_window_bits",
            "client_no_context_takeover; server_no_context_takeover; client_max_window_bits=15",
        ),
        (
            "permessage-deflate;server_max_window_bits=10 ; client_max_window_bits=9",
            "client_no_context_takeover; server_no_context_takeover; client_max_window_bits=9; server_max_window_bits=10",
        ),
    ],
)
def test_each_message_stands_for_itself(offer: str, said: str) -> None:
    """Neither side may refer to earlier messages, whether the client has offered that or not."""
    terms = agree([offer], "messages")
    assert terms is not None
    assert terms.said == f"permessage-deflate; {said}"
    assert (terms.server_keeps, terms.client_keeps) == (False, False)


def test_context_is_kept_where_it_is_asked_for() -> None:
    """With `context` each side may refer to earlier messages, as far as the client bears it."""
    assert agree(["permessage-deflate"], "context") == Terms("permessage-deflate", 15, 15, True, True)
    terms = agree(["permessage-deflate; server_no_context_takeover; server_max_window_bits=12"], "context")
    said = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"
    assert terms == Terms(said, 12, 15, False, True)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_max_window_bits=abc",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits=15; client_max_window_bits=10",
        "permessage-deflate; mem_level=9",
        "permessage-deflate; client_max_window_bits=" + "9" * 5000,
        "permessage-deflate;",
        "permessage-deflated",
        "x-webkit-deflate-frame",
        "",
    ],
)
def test_an_offer_that_breaks_the_rules_is_declined(offer: str) -> None:
    """A declined offer costs the compression, never the connection or the process; the next offer is looked at."""
    for mode in ("messages", "context"):
        assert agree([offer], mode) is None
        assert agree([offer, "permessage-deflate"], mode) is not None


def test_few_offers_are_looked_at_and_none_when_it_is_off() -> None:
    """The work for a header is bounded, and the operator decides."""
    assert agree(["permessage-deflate"], "off") is None
    assert agree(["other"] * OFFERS_MAX + ["permessage-deflate"], "messages") is None


@pytest.mark.parametrize("mode", ["off", "messages", "context"])
@simulated
async def test_the_answer_says_what_was_agreed_on(mode: str) -> None:
    """The header is there exactly when messages may be deflated."""
    async with served(settings=settings_of(compression=mode)) as net:
        peer = net.dial()
        head = await peer.open((b"Sec-WebSocket-Extensions", OFFER))
        assert (b"permessage-deflate" in head.lower()) == (mode != "off")
        assert (b"server_no_context_takeover" in head) == (mode == "messages")
        await peer.send(close())
        other = await net.connect()
        await other.send(deflated(SAID))
        assert await other.closed_with() == (1002, "reserved bit set"), "one that has offered nothing"


# ---- what comes


@pytest.mark.parametrize("size", [0, 1, 125, 1024, 65536])
def test_what_was_deflated_comes_out(size: int) -> None:
    """Text and binary of any size, whole, in fragments, and byte by byte."""
    said = (b"abc " * size)[:size]
    half = len(deflate(said)) // 2
    for opcode in (1, 2):
        whole = deflated(said, opcode)
        first = frame(opcode, deflate(said)[:half], rsv=4, fin=False)
        parts = first + frame(0, b"", fin=False) + frame(9, b"ping") + frame(0, deflate(said)[half:])
        one = decoder()
        got = one.feed(whole + text("plain") + parts)
        for at in range(0, len(whole), max(1, len(whole) // 200)):
            got += one.feed(whole[at : at + max(1, len(whole) // 200)])
        messages = [event for event in got if isinstance(event, Message)]
        assert messages == [
            Message(opcode == 1, said),
            Message(True, b"plain"),
            Message(opcode == 1, said),
            Message(opcode == 1, said),
        ]


def test_the_examples_of_the_rfc() -> None:
    """RFC 7692 7.2.3: one block, a block without compression, a last block, two blocks."""
    for payload in (
        "f248cdc9c90700",
        "000500faff48656c6c6f00",
        "f348cdc9c90700" + "00",
        "f24805000000ffffcac9c90700",
    ):
        assert decoder().feed(frame(1, bytes.fromhex(payload), rsv=4)) == [Message(True, b"Hello")]
    one = decoder(keeps=True)
    assert one.feed(frame(1, bytes.fromhex("f248cdc9c90700"), rsv=4)) == [Message(True, b"Hello")]
    assert one.feed(frame(1, bytes.fromhex("f200110000"), rsv=4)) == [Message(True, b"Hello")]


def test_without_context_nothing_is_remembered() -> None:
    """A message that refers to an earlier one cannot be inflated where that was not agreed on."""
    one = decoder()
    one.feed(frame(1, bytes.fromhex("f248cdc9c90700"), rsv=4))
    assert one.feed(frame(1, bytes.fromhex("f200110000"), rsv=4)) == []
    assert failure(one) == (1007, "message cannot be inflated")


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (frame(1, b"\xff\xff\xff", rsv=4), (1007, "message cannot be inflated")),
        (frame(1, bytes.fromhex("f348cdc9c907000000"), rsv=4), (1007, "more behind the last block")),
        (frame(1, deflate(b"\xff\xfe"), rsv=4), (1007, "text is not UTF-8")),
        (frame(9, b"ping", rsv=4), (1002, "reserved bit set")),
        (frame(8, b"", rsv=4), (1002, "reserved bit set")),
        (frame(1, b"", rsv=4, fin=False) + frame(0, b"", rsv=4), (1002, "reserved bit set")),
        (frame(1, b"", rsv=6), (1002, "reserved bit set")),
        (frame(1, b"", rsv=2), (1002, "reserved bit set")),
    ],
)
def test_what_breaks_the_rules_ends_the_connection(wire: bytes, said: tuple[int, str]) -> None:
    """Each with its code, and what came before it is kept."""
    one = decoder()
    assert one.feed(text("before") + wire) == [Message(True, b"before")]
    assert failure(one) == said


def test_a_message_may_be_as_long_as_the_limit_and_no_longer() -> None:
    """The limit is that of what comes out, in one frame or in many; what cannot be made shorter may take more on the wire."""
    noise = bytes(zlib.crc32(b"%d" % number) & 0xFF for number in range(2048))
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    wire = (stored.compress(noise) + stored.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(wire) > len(noise)
    assert decoder(2048).feed(frame(2, wire, rsv=4)) == [Message(False, noise)]
    for size in (2049, 1_000_000):
        payload = deflate(b"x" * size)
        for wire in (
            frame(1, payload, rsv=4),
            frame(1, payload[:5], rsv=4, fin=False) + frame(0, payload[5:]),
        ):
            one = decoder(2048)
            assert one.feed(wire) == []
            assert failure(one) == (1009, "message over 2048 bytes")
    one = decoder(2048)
    one.feed(frame(2, b"", rsv=4, length=4096)[:14])
    assert failure(one) == (1009, "message over 2048 bytes"), "by the announced length, before any of it is kept"


def test_fragments_of_a_deflated_message_count() -> None:
    """Neither the bytes nor the frames of one message are without an end."""
    one = decoder(2048)
    part = deflate(b"x" * 1000) + b"\x00\x00\xff\xff"
    assert one.feed(frame(1, part, rsv=4, fin=False) + frame(0, part, fin=False) + frame(0, part, fin=False)) == []
    assert failure(one) == (1009, "message over 2048 bytes")
    other = decoder(fragments_max=4)
    assert other.feed(frame(1, b"", rsv=4, fin=False) + frame(0, b"", fin=False) * 4) == []
    assert failure(other) == (1009, "message over 4 fragments")


def test_a_bomb_takes_no_more_memory_than_a_message() -> None:
    """A gigabyte in one message is noticed one byte beyond the limit."""
    wire = frame(2, bomb(BOMB), rsv=4, mask=b"\x00\x00\x00\x00")
    limit = 2_097_152
    one = decoder(limit)
    tracemalloc.start()
    try:
        assert one.feed(wire) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert failure(one) == (1009, f"message over {limit} bytes")
    assert peak < 3 * limit + 2 * len(wire)


def test_many_small_bombs_in_one_read_are_one() -> None:
    """What a read inflates to is bounded, also where each message is within its limit."""
    one = decoder()
    wire = deflated(b"\x00" * 65536, 2)
    got = one.feed(wire * 400)
    assert len(got) == INFLATED_BYTES_MAX // 65536
    assert failure(one) == (1009, "inflates too much")
    other = decoder()
    for _ in range(4):
        assert len(other.feed(wire * 100)) == 100, "each read for itself"


# ---- what goes out


def test_short_messages_and_those_that_do_not_become_shorter_are_left_alone() -> None:
    """Each of them is the frame that it would be without compression."""
    traffic = Traffic()
    deflater = Deflater(15, 1024, traffic)
    noise = zlib.compress(b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(600)))
    for payload in (b"", b"x" * 1023, noise):
        header, sent = deflater.parts(payload, text=False)
        assert (header[0], sent) == (0x82, payload)
    assert traffic.deflatable_bytes == 0
    header, sent = deflater.parts(b"x" * 1024, text=True)
    assert (header[0], inflate(sent)) == (0xC1, b"x" * 1024)
    assert (traffic.deflatable_bytes, traffic.deflated_bytes) == (1024, len(sent))


def test_the_window_of_the_client_is_kept() -> None:
    """What is sent to a client with a small window refers no further back than that."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(1024))
    _, small = Deflater(9, 0, Traffic(), keeps=True).parts(noise + noise, text=False)
    _, large = Deflater(15, 0, Traffic()).parts(noise + noise, text=False)
    assert zlib.decompressobj(-9).decompress(small + b"\x00\x00\xff\xff") == noise + noise
    assert len(large) < len(small), "the second half is the first one, four kilobytes earlier"


def test_connections_share_a_deflater_without_context_and_have_their_own_with_it() -> None:
    """What many are told is deflated once for all whose window is the same, whether they keep context or not."""
    compression = Compression("context", 1024, Traffic())
    alone, keeping = Terms("", 15, 15, False, False), Terms("", 15, 15, True, True)
    assert compression.shared(alone) is compression.shared(keeping) is compression.own(alone)
    assert compression.own(keeping) is not compression.own(keeping)
    assert compression.shared(Terms("", 10, 15, False, False)) is not compression.shared(alone)
    assert (compression.shared(None), compression.own(None), inflater_of(None)) == (None, None, None)


@simulated
async def test_context_begins_anew_behind_what_many_were_told() -> None:
    """A frame that was made for many is not in the context of any of them, so that no later one refers past it."""
    made = Deflater(15, 1024, Traffic())

    async def handler(connection: Connection) -> None:
        await connection.receive()
        for _ in range(2):
            connection.send_text(SAID)
            connection.send_frames(b"".join(made.parts(SAID[::-1], text=True)), 1)
        connection.send_text(SAID)
        connection.send_text(SAID)
        await echo(connection)

    async with served(handler, settings_of(compression="context")) as net:
        peer = await net.connect((b"Sec-WebSocket-Extensions", OFFER))
        await peer.send(text("go"))
        stream = zlib.decompressobj(-15)
        sizes = []
        for said in (SAID, SAID[::-1], SAID, SAID[::-1], SAID, SAID):
            payload = await _deflated(peer)
            sizes.append(len(payload))
            assert stream.decompress(payload + b"\x00\x00\xff\xff") == said
        assert sizes[-1] * 2 < sizes[0], "the last one refers to the one before"
        await peer.send(close())
        assert await peer.closed_with() == (1000, "")


async def _deflated(peer: Client) -> bytes:
    while len(peer.received) < 2 or len(peer.received) < 2 + peer.received[1]:
        peer.received += await peer.stream.receive_some()
    assert peer.received[0] == 0xC1
    size = peer.received[1]
    assert size < 126
    payload = bytes(peer.received[2 : 2 + size])
    del peer.received[: 2 + size]
    return payload


# ---- over TCP, with a client that is not ours


@pytest.mark.parametrize("mode", ["messages", "context"])
def test_a_client_of_websockets_talks_to_it(mode: str) -> None:
    """Short and long texts, text and binary, come back as they were, and fewer bytes were on the wire."""
    heard: list[str | bytes] = []
    said: list[str | bytes] = ["short", SAID.decode(), SAID, "ä" * 20_000, b"\x00" * 60_000, SAID.decode(), ""]

    def talk(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}/v1/client", compression="deflate", proxy=None) as party:
            for one in said:
                party.send(one)
                heard.append(party.recv())

    async def main() -> None:
        async with listening(settings=settings_of(compression=mode)) as port:
            await trio.to_thread.run_sync(talk, port.number)

    trio.run(main)
    assert heard == said


@simulated
async def test_a_bomb_costs_its_own_connection() -> None:
    """It is closed with 1009; the other connections of the node go on."""
    async with served(settings=settings_of(compression="messages")) as net:
        peer, bystander = await _pair(net)
        await bystander.echo("before")
        await peer.send(frame(1, bomb(16_777_216), rsv=4))
        assert await peer.closed_with() == (1009, "message over 65536 bytes")
        await bystander.echo("after")
        await bystander.send(close())
        assert await bystander.closed_with() == (1000, "")


async def _pair(net: Net) -> tuple[Client, Client]:
    offer = (b"Sec-WebSocket-Extensions", OFFER)
    return await net.connect(offer), await net.connect(offer)


def test_an_inflater_says_where_it_stops() -> None:
    """None stands for more than was allowed; an error for what is not deflated."""
    assert Inflater(15, keeps=False).inflate(deflate(b"12345"), 5, last=True) == b"12345"
    assert Inflater(15, keeps=False).inflate(deflate(b"12345"), 4, last=True) is None
    assert Inflater(15, keeps=False).inflate(deflate(b""), 0, last=True) == b""
    with pytest.raises(ProtocolError) as caught:
        Inflater(15, keeps=False).inflate(b"\xff", 5, last=True)
    assert caught.value.code is CloseCode.INVALID_DATA
