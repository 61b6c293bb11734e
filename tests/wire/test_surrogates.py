"""Halves of surrogate pairs: carried byte for byte in what is raw, refused in what is read as text."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from signald.errors import BadMessage, UnknownType
from signald.sdk.decoding import decode_for_client, decode_for_worker
from signald.wire import codec, surrogates
from signald.wire import messages as m
from tests.wire.frames import DEPTH_MAX

HALVES = [
    rb"\ud83d",
    rb"\uDE00",
    rb"\uD83D\ud83d",
    rb"\ude00\ud83d",
    rb"\ud83d\\ud83d",
    rb"<0>\ud83d<1>",
    rb"\ud83d\ud83d\ude00",
]
WHOLE = [rb"\ud83d\ude00", rb"\\ud83d", rb"\u00e9", b"<0>"]


@pytest.mark.parametrize("literal", HALVES + WHOLE)
@pytest.mark.parametrize("frame", [b'"%b"', b'{"%b":["x","%b"]}'], ids=["text", "object"])
def test_data_is_carried_byte_for_byte(literal: bytes, frame: bytes) -> None:
    """The node and both SDKs have the very bytes, in a key, in a value, in any order of the fields."""
    data = frame.replace(b"%b", literal)
    for payload in (
        b'{"type":"message","seq":1,"data":%b}' % data,
        b'{"data": %b ,"x":"\\ud83d","seq":1,"type":"message"}' % data,
    ):
        message, _ = codec.decode_client(True, payload, DEPTH_MAX)
        assert isinstance(message, m.Message)
        assert bytes(message.data) == data
    received, _ = decode_for_client((b'{"type":"message","seq":1,"data":%b}' % data).decode())
    assert isinstance(received, m.Message)
    assert bytes(received.data) == data


def test_meta_config_and_history_are_carried_byte_for_byte() -> None:
    """Raw parts that lie deeper are restored too."""
    half = rb'{"a":"\ud83d"}'
    connect, _ = codec.decode_client(True, b'{"type":"connect","meta":%b,"want":{"a":"b"}}' % half, DEPTH_MAX)
    assert isinstance(connect, m.Connect)
    assert (bytes(connect.meta), connect.want) == (half, {"a": "b"})
    ready, _ = codec.decode_worker(True, b'{"type":"app_ready","instance_id":"i","config":%b}' % half, DEPTH_MAX)
    assert isinstance(ready, m.AppReady)
    assert bytes(ready.config) == half
    front = b'{"type":"session_assigned","session":"s","client":{"meta":%b},"next_seq":1,' % half
    assigned, _ = decode_for_worker((front + b'"chat_history":[1,%b]}' % half).decode())
    assert isinstance(assigned, m.SessionAssigned)
    assert isinstance(assigned.client.meta, Raw)
    assert isinstance(assigned.chat_history, list)
    assert bytes(assigned.client.meta) == half
    assert [bytes(one) for one in assigned.chat_history] == [b"1", half]


@pytest.mark.parametrize(
    "payload",
    [
        rb'{"type":"message","seq":1,"data":1,"kind":"\ud83d"}',
        rb'{"type":"message","seq":1,"data":1,"trace":"\ud83d"}',
        rb'{"type":"realtime","data":1,"trace":"\udc00"}',
        rb'{"type":"bye","reason":"\ud83d"}',
        rb'{"type":"connect","want":{"a":"\ud83d"}}',
        rb'{"type":"connect","want":{"\ud83d":"a"}}',
    ],
)
def test_a_text_that_signald_reads_cannot_hold_half_a_pair(payload: bytes) -> None:
    """It would break a later encoding, so it is refused where it comes in, with a clear word."""
    with pytest.raises(BadMessage, match="half of a surrogate pair"):
        codec.decode_client(True, payload, DEPTH_MAX)


def test_an_unknown_type_with_half_a_pair_is_unknown() -> None:
    """What is not known is passed over, whatever is in it."""
    with pytest.raises(UnknownType):
        codec.decode_client(True, rb'{"type":"new","x":"\ud83d"}', DEPTH_MAX)
    assert decode_for_client(r'{"type":"new","x":"\ud83d"}') == (None, None)


def test_what_is_wrong_stays_wrong() -> None:
    """Half a pair makes nothing valid that is not."""
    for wrong in (
        rb'{"type":"message","seq":1,"data":\ud83d}',
        rb'{"type":"message","seq":1,"data":"\ud83d}',
        rb'["\ud83d"]',
    ):
        with pytest.raises(BadMessage):
            codec.decode_client(True, wrong, DEPTH_MAX)


@given(st.lists(st.sampled_from([*HALVES, *WHOLE, b"<", b">", b"1", rb"\n", rb"\"", b"\xc3\xa9"]), max_size=30))
def test_marking_is_undone_exactly(parts: list[bytes]) -> None:
    """Whatever the text around them is, the halves come back as they were, and the marked text has none."""
    text = b'"' + b"".join(parts) + b'"'
    marked = surrogates.mark(text)
    if marked is None:
        json.loads(text).encode()
    else:
        json.loads(marked.text).encode()
        assert marked.text.replace(marked.mark, rb"\u") == text


def test_marking_is_linear() -> None:
    """A payload full of marks and halves costs no more than its length."""
    payload = b'"' + b"".join(b"<%d>" % number for number in range(200_000)) + rb"\ud83d" * 200_000 + b'"'
    began = time.process_time()
    marked = surrogates.mark(payload)
    assert marked is not None
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("text", "payload", "session"),
    [
        (True, b'{"type":"message","session":"s_1","seq":"x","data":1}', "s_1"),
        (True, b'{"seq":1,"data":1e999,"session":"s_1"}', "s_1"),
        (True, b'{"type":"message","session":"s_1","seq":1,"data":NaN}', "s_1"),
        (True, b'{"type":"message","session":"s_1","seq":1,"data":' + b"[" * 5000, "s_1"),
        (True, rb'{"kind":"\ud83d","session":"s_1"}', "s_1"),
        (False, b"\x00\x1c" + b'{"type":"x","session":"s_1"}' + b"data", "s_1"),
        (False, b"\x00\x40" + b'{"type":"x","session":"s_1"}', "s_1"),
        (False, b"\x00", None),
        (True, b'{"session":7}', None),
        (True, b'{"type":"message","seq":1}', None),
        (True, b'"session"', None),
        (True, b"\xff", None),
        (True, b'{"data":{"session":"s_1"}}', None),
    ],
)
def test_the_session_of_a_wrong_frame(text: bool, payload: bytes, session: str | None) -> None:
    """It is read where the frame names it at its top, and nowhere else."""
    assert codec.session_of(text, payload) == session
