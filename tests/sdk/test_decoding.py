"""Tests of reading what signald says."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.sdk.decoding import ToClient, ToWorker, decode_for_client, decode_for_worker
from signald.sdk.errors import LinkBroken
from signald.wire.codec import encode
from signald.wire.messages import (
    AppAccepted,
    AssignedClient,
    GoAway,
    Message,
    Peer,
    PeerChanged,
    SessionAssigned,
    SessionRestored,
)


@pytest.mark.parametrize(
    "message",
    [
        SessionRestored("s", "t", 1, 5, 0, Peer("paired", "w"), 20_000),
        PeerChanged("waiting"),
        GoAway("drain", 0, 1000, "ws://b", "t"),
    ],
)
def test_what_signald_encodes_is_what_a_client_reads(message: SessionRestored | PeerChanged | GoAway) -> None:
    """Every field survives the way through the wire, the absent ones as absent."""
    assert decode_for_client(encode(message).decode()) == (message, None)


@pytest.mark.parametrize("message", [AppAccepted("ok", "w", "t", 1, 20_000), SessionAssigned("s", AssignedClient(), 4)])
def test_what_signald_encodes_is_what_a_worker_reads(message: AppAccepted | SessionAssigned) -> None:
    """The same on a worker's connection."""
    assert decode_for_worker(encode(message).decode()) == (message, None)


def test_unknown_types_and_fields_are_passed_over() -> None:
    """A newer signald may say more than this SDK knows."""
    assert decode_for_client('{"type":"from_the_future"}') == (None, None)
    message, _ = decode_for_client('{"type":"ack","seq":4,"more":1}')
    assert message is not None
    assert decode_for_client('{"type":"session_assigned","session":"s"}') == (None, None)


def test_a_binary_frame_has_its_data_behind_the_header() -> None:
    """Header length, header, raw data."""
    header = b'{"type":"message","seq":3}'
    message, data = decode_for_client(len(header).to_bytes(2, "big") + header + b"\x00raw")
    assert isinstance(message, Message)
    assert (message.seq, data) == (3, b"\x00raw")


@pytest.mark.parametrize(
    "frame", ["", "[]", "{}", '{"type":"ack","seq":"4"}', '{"type":"message","seq":0}', b"", b"\x00", b"\x00\x09{}"]
)
def test_what_is_malformed_breaks_the_connection(frame: str | bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(LinkBroken):
        decode_for_client(frame)


@given(
    st.one_of(
        st.text(), st.binary(), st.recursive(st.integers(), st.lists).map(lambda v: msgspec.json.encode(v).decode())
    )
)
def test_nothing_else_is_ever_raised(frame: str | bytes) -> None:
    """A message, nothing, or `LinkBroken`."""
    for decode in (decode_for_client, decode_for_worker):
        try:
            message, _ = decode(frame)
        except LinkBroken:
            continue
        assert message is None or isinstance(message, ToClient | ToWorker)
