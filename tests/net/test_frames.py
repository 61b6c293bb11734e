"""The frame codec: what RFC 6455 demands, the limits, and no difference from wsproto."""

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.events import Pong as WsprotoPong
from wsproto.frame_protocol import FrameProtocol

from signald.net import frames
from signald.net.frames import Close, Event, FrameDecoder, Message, Ping, Pong, ProtocolError
from signald.testing.websocket import close, frame, text
from signald.wire.close_codes import CloseCode


def decoder(message_bytes_max: int = 65536, fragments_max: int = 128) -> FrameDecoder:
    return FrameDecoder(message_bytes_max=message_bytes_max, fragments_max=fragments_max)


def refused(data: bytes, **limits: int) -> tuple[CloseCode, list[Event]]:
    """Feed `data`; return the close code the decoder failed with and the events before it."""
    under_test = decoder(**limits)
    events = under_test.feed(data)
    assert under_test.failed is not None, events
    return under_test.failed.code, events


class TestDecoding:
    """Well-formed input."""

    def test_one_read_yields_every_frame_in_it_in_order(self) -> None:
        """Data and control frames that arrive together come out together, in order."""
        data = text("hi") + frame(9, b"p") + frame(2, b"\x00\xff") + frame(10, b"q") + close(4001, b"moved")
        assert decoder().feed(data) == [
            Message(True, b"hi"),
            Ping(b"p"),
            Message(False, b"\x00\xff"),
            Pong(b"q"),
            Close(4001, "moved"),
        ]

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
    def test_every_form_of_length(self, size: int) -> None:
        """Lengths of 7, 16 and 64 bits carry their payload unharmed."""
        payload = bytes(index % 251 for index in range(size))
        assert decoder().feed(frame(2, payload)) == [Message(False, payload)]

    def test_a_frame_that_arrives_byte_by_byte(self) -> None:
        """Wherever the network cuts, the message comes out whole, and `missing` says what is still to come."""
        under_test = decoder()
        data = frame(2, b"x" * 200)
        for byte in data[:-1]:
            assert under_test.feed(bytes((byte,))) == []
            assert under_test.missing > 0
        assert under_test.remainder == data[:-1]
        assert under_test.missing == 1
        assert under_test.feed(data[-1:]) == [Message(False, b"x" * 200)]
        assert under_test.remainder == b""
        assert under_test.missing == 0

    def test_control_frames_may_stand_between_fragments(self) -> None:
        """A Ping inside a fragmented message is seen at once and does not disturb the message."""
        under_test = decoder()
        assert under_test.feed(frame(1, b"a\xc3", fin=False) + frame(9)) == [Ping(b"")]
        assert not under_test.between_messages
        assert under_test.feed(frame(0, b"", fin=False) + frame(0, b"\xa4")) == [Message(True, "aä".encode())]
        assert under_test.between_messages

    def test_what_follows_a_close_is_ignored(self) -> None:
        """After a Close nothing is decoded any more, be it well or ill formed."""
        under_test = decoder()
        assert under_test.feed(close(None) + text("late") + b"\xff\xff") == [Close(None, "")]
        assert under_test.feed(b"\xff\xff") == []
        assert under_test.failed is None
        assert under_test.remainder == b""

    def test_remainder_is_the_whole_state_between_messages(self) -> None:
        """A second decoder that is fed the first one's remainder goes on where it stopped."""
        data = text("one") + frame(2, b"two" * 100)
        first, second = decoder(), decoder()
        assert first.feed(data[:50]) == [Message(True, b"one")]
        assert second.feed(first.remainder + data[50:]) == [Message(False, b"two" * 100)]

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
    def test_masking_without_the_c_helper_is_the_same(self, size: int) -> None:
        """The Python fallback unmasks exactly like the C helper."""
        data = bytes(index % 256 for index in range(size))
        assert frames.apply_mask_slowly(data, b"\x01\x02\x03\xf4") == frames.apply_mask(data, b"\x01\x02\x03\xf4")


class TestRefusal:
    """Malformed input and limits, each with the close code it earns."""

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(frame(1, b"x", mask=None), CloseCode.PROTOCOL_ERROR, id="unmasked"),
            pytest.param(frame(1, b"x", rsv=4), CloseCode.PROTOCOL_ERROR, id="rsv1-without-extension"),
            pytest.param(frame(2, b"x", rsv=1), CloseCode.PROTOCOL_ERROR, id="rsv3"),
            pytest.param(frame(3), CloseCode.PROTOCOL_ERROR, id="reserved-data-opcode"),
            pytest.param(frame(11), CloseCode.PROTOCOL_ERROR, id="reserved-control-opcode"),
            pytest.param(frame(9, fin=False), CloseCode.PROTOCOL_ERROR, id="fragmented-ping"),
            pytest.param(frame(9, b"x" * 126), CloseCode.PROTOCOL_ERROR, id="long-ping"),
            pytest.param(frame(0, b"x"), CloseCode.PROTOCOL_ERROR, id="continuation-of-nothing"),
            pytest.param(frame(1, b"a", fin=False) + text("b"), CloseCode.PROTOCOL_ERROR, id="interleaved"),
            pytest.param(frame(1, b"x", width=2), CloseCode.PROTOCOL_ERROR, id="16-bit-length-for-1"),
            pytest.param(frame(1, b"x" * 125, width=2), CloseCode.PROTOCOL_ERROR, id="16-bit-length-for-125"),
            pytest.param(frame(1, b"x" * 65535, width=8), CloseCode.PROTOCOL_ERROR, id="64-bit-length-for-65535"),
            pytest.param(frame(1, b"x", width=8), CloseCode.PROTOCOL_ERROR, id="64-bit-length-for-1"),
            pytest.param(frame(1, length=1 << 63, width=8), CloseCode.PROTOCOL_ERROR, id="length-msb"),
            pytest.param(frame(8, b"\x03"), CloseCode.PROTOCOL_ERROR, id="half-a-close-code"),
            pytest.param(text(b"\xff"), CloseCode.INVALID_DATA, id="not-utf8"),
            pytest.param(text(b"\xed\xa0\x80"), CloseCode.INVALID_DATA, id="surrogate"),
            pytest.param(frame(1, b"\xff", fin=False), CloseCode.INVALID_DATA, id="not-utf8-in-a-fragment"),
            pytest.param(frame(1, b"\xc3", fin=False) + frame(0), CloseCode.INVALID_DATA, id="cut-character"),
            pytest.param(close(1000, b"\xff"), CloseCode.INVALID_DATA, id="reason-not-utf8"),
        ],
    )
    def test_malformed_frames(self, data: bytes, code: CloseCode) -> None:
        """Each violation fails with the code RFC 6455 gives it; what came before is still delivered."""
        assert refused(text("before") + data) == (code, [Message(True, b"before")])

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65535])
    def test_close_codes_that_must_not_be_sent(self, code: int) -> None:
        """A Close with a code no endpoint may send is a protocol error."""
        assert refused(close(code))[0] == CloseCode.PROTOCOL_ERROR

    def test_feeding_a_failed_decoder_raises_its_error(self) -> None:
        """After a failure nothing is decoded: the same error is raised again."""
        under_test = decoder()
        under_test.feed(frame(3))
        with pytest.raises(ProtocolError, match="reserved opcode") as raised:
            under_test.feed(text("x"))
        assert raised.value is under_test.failed

    def test_an_oversized_message_is_refused_by_its_header(self) -> None:
        """The announced length is enough: none of an oversized payload is awaited or kept."""
        header = frame(2, length=1001, width=2)
        assert refused(header, message_bytes_max=1000)[0] == CloseCode.TOO_BIG

    def test_fragments_count_together_against_the_limit(self) -> None:
        """A message may not pass the limit by being cut into pieces."""
        data = frame(2, b"x" * 600, fin=False) + frame(0, b"x" * 401)
        assert refused(data, message_bytes_max=1000)[0] == CloseCode.TOO_BIG
        exact = frame(2, b"x" * 600, fin=False) + frame(0, b"x" * 400)
        assert decoder(message_bytes_max=1000).feed(exact) == [Message(False, b"x" * 1000)]

    @pytest.mark.parametrize("payload", [b"", b"x"])
    def test_a_flood_of_tiny_fragments_ends_at_the_fragment_limit(self, payload: bytes) -> None:
        """Empty and one-byte fragments count by number: the 129th of a message is refused."""
        allowed = frame(2, payload, fin=False) + frame(0, payload, fin=False) * 126 + frame(0, payload)
        assert decoder().feed(allowed) == [Message(False, payload * 128)]
        flood = frame(2, payload, fin=False) + frame(0, payload, fin=False) * 128
        assert refused(flood)[0] == CloseCode.TOO_BIG

    def test_a_limit_below_a_control_frame_is_a_mistake(self) -> None:
        """A decoder that could not hold a control frame is refused when it is made."""
        with pytest.raises(ValueError, match="at least 125"):
            decoder(message_bytes_max=124)


class TestEncoding:
    """What we send, judged by wsproto in the client role."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
    @pytest.mark.parametrize(
        ("encode", "opcode"),
        [(frames.encode_text, 1), (frames.encode_binary, 2)],
    )
    def test_data_frames(self, encode: Callable[[bytes], bytes], opcode: int, size: int) -> None:
        """Another implementation reads our data frames of every length form as whole messages."""
        peer = FrameProtocol(client=True, extensions=[])
        peer.receive_bytes(encode(b"x" * size))
        (read,) = peer.received_frames()
        payload = read.payload.encode() if isinstance(read.payload, str) else read.payload
        assert (int(read.opcode), payload, read.message_finished) == (opcode, b"x" * size, True)

    def test_control_frames(self) -> None:
        """Another implementation reads our Ping, Pong and Close."""
        peer = FrameProtocol(client=True, extensions=[])
        peer.receive_bytes(frames.encode_ping(b"a") + frames.encode_pong(b"b") + frames.encode_close(4001, "moved"))
        assert [read.payload for read in peer.received_frames()] == [b"a", b"b", (4001, "moved")]

    def test_a_close_without_a_code_is_empty(self) -> None:
        """`encode_close(None)` is a Close that says nothing, as an echo of one that said nothing."""
        assert frames.encode_close(None) == b"\x88\x00"

    def test_a_long_reason_is_cut_at_a_character(self) -> None:
        """A close reason never passes 123 bytes and never ends inside a character."""
        peer = FrameProtocol(client=True, extensions=[])
        peer.receive_bytes(frames.encode_close(1011, "é" * 200))
        (read,) = peer.received_frames()
        assert read.payload == (1011, "é" * 61)

    def test_control_payloads_over_125_bytes_are_our_mistake(self) -> None:
        """We never build a control frame that the peer would have to refuse."""
        with pytest.raises(ValueError, match="at most 125"):
            frames.encode_ping(b"x" * 126)


# ---- the oracle -----------------------------------------------------------------------------------------------------

ORACLE_BYTES_MAX = 70_000
Verdict = tuple[list[tuple[object, ...]], int | None]
"""What was understood, and the code of the failure, if any."""


def ours(chunks: list[bytes]) -> tuple[Verdict, bytes]:
    """Decode with the code under test, completing a cut frame with zeros; return the verdict and that padding."""
    under_test = decoder(message_bytes_max=ORACLE_BYTES_MAX, fragments_max=10_000)
    events: list[Event] = []
    padding = b""
    for chunk in chunks:
        events += under_test.feed(chunk)
        if under_test.failed is not None:
            break
    while under_test.failed is None and under_test.missing:
        zeros = bytes(under_test.missing)
        padding += zeros
        events += under_test.feed(zeros)
    failure = under_test.failed.code if under_test.failed is not None else None
    return ([(type(event).__name__, *event) for event in events], failure), padding


def wsprotos(data: bytes) -> Verdict:
    """Decode the same bytes with wsproto in the server role."""
    connection = WsprotoConnection(ConnectionType.SERVER)
    understood: list[tuple[object, ...]] = []
    parts: list[bytes] = []
    connection.receive_data(data)
    for event in connection.events():
        if isinstance(event, (TextMessage, BytesMessage)):
            parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                understood.append(("Message", isinstance(event, TextMessage), b"".join(parts)))
                parts = []
        elif isinstance(event, WsprotoPing):
            understood.append(("Ping", bytes(event.payload)))
        elif isinstance(event, WsprotoPong):
            understood.append(("Pong", bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            if connection.state is ConnectionState.OPEN:  # wsproto's way to say that it failed
                return understood, int(event.code)
            understood.append(("Close", None if event.code == 1005 else int(event.code), event.reason))
    return understood, None


PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([125, 126, 127, 65535, 65536]).map(lambda size: b"x" * size),
    st.sampled_from([b"\xff", b"\xc3", b"\xa4", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x03", b"\x03\xe8\xff"]),
    st.tuples(st.integers(0, 65535), st.binary(max_size=4)).map(lambda pair: struct.pack("!H", pair[0]) + pair[1]),
)
MASKS = st.binary(min_size=4, max_size=4)
GOOD_FRAMES = st.one_of(
    st.builds(frame, st.sampled_from([1, 2]), PAYLOADS, mask=MASKS),
    st.builds(frame, st.sampled_from([9, 10]), st.binary(max_size=125), mask=MASKS),
    st.builds(frame, st.sampled_from([0, 1, 2]), PAYLOADS, fin=st.booleans(), mask=MASKS),
    st.builds(
        lambda kind, parts, control: b"".join(
            frame(0 if index else kind, part, fin=index == len(parts) - 1) + control for index, part in enumerate(parts)
        ),
        st.sampled_from([1, 2]),
        st.text(min_size=1, max_size=8).map(str.encode).map(lambda said: [said[i : i + 1] for i in range(len(said))]),
        st.sampled_from([b"", frame(9, b"mid")]),
    ),
)
ANY_FRAMES = st.one_of(
    GOOD_FRAMES,
    st.builds(
        frame,
        st.integers(0, 15),
        PAYLOADS,
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1, 2, 4]),
        mask=st.one_of(MASKS, MASKS, st.none()),
        width=st.sampled_from([None, None, 0, 2, 8]),
    ),
    st.builds(frame, st.just(8), PAYLOADS, mask=MASKS),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Several frames, then, sometimes, damage: bytes overwritten, removed or inserted anywhere."""
    data = bytearray(b"".join(draw(st.lists(ANY_FRAMES, max_size=8))))
    for at, how, value in draw(
        st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from("odi"), st.integers(0, 255)), max_size=3)
    ):
        if data:
            index = at % len(data)
            if how == "o":
                data[index] = value
            elif how == "d":
                del data[index]
            else:
                data.insert(index, value)
    return bytes(data)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at every point of `cuts` (taken modulo its length)."""
    points = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(points)]


def judge(data: bytes, cuts: list[int]) -> None:
    """Fail when the two implementations understand `data` differently."""
    mine, padding = ours(split(data, cuts))
    if mine[1] == CloseCode.TOO_BIG:
        return  # wsproto has no limits; ours are tested above
    if mine[1] is not None:
        padding += bytes(frames.HEADER_BYTES_MAX + 1)  # wsproto may want the rest of a header we refused early
    assert mine == wsprotos(data + padding)


@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 200_000), max_size=6))
@example(frame(1, b"\xc3", fin=False) + frame(9) + frame(0, b"\xa4"), [1, 2, 3, 4])
@example(frame(1, b"\xc3", fin=False) + frame(2, b"\xa4"), [])
@example(close(1000) + b"\xff" * 20, [5])
def test_no_difference_from_wsproto_on_mutated_and_split_frames(data: bytes, cuts: list[int]) -> None:
    """Whatever frames arrive, damaged or not and cut anywhere, wsproto understands the same and fails alike."""
    judge(data, cuts)


@settings(max_examples=200, deadline=None)
@given(st.lists(GOOD_FRAMES, max_size=10).map(b"".join), st.lists(st.integers(0, 200_000), max_size=10))
def test_no_difference_from_wsproto_on_good_frames(data: bytes, cuts: list[int]) -> None:
    """Long runs of valid frames are understood like wsproto understands them."""
    judge(data, cuts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_no_difference_from_wsproto_on_random_bytes(data: bytes, cuts: list[int]) -> None:
    """Noise is refused, and with the code wsproto gives it."""
    judge(data, cuts)


@settings(max_examples=200, deadline=None)
@given(streams(), st.lists(st.integers(0, 200_000), max_size=10))
def test_where_the_network_cuts_does_not_matter(data: bytes, cuts: list[int]) -> None:
    """The verdict on a stream is the same in one piece and in many, and memory stays within the limits."""
    whole = decoder(message_bytes_max=1000, fragments_max=3)
    cut = decoder(message_bytes_max=1000, fragments_max=3)
    expected = whole.feed(data)
    events: list[Event] = []
    for chunk in split(data, cuts):
        events += cut.feed(chunk)
        assert len(cut.remainder) <= 1000 + frames.HEADER_BYTES_MAX
        if cut.failed is not None:
            break
    assert events == expected
    assert (cut.failed and cut.failed.code) == (whole.failed and whole.failed.code)
