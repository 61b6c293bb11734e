"""Bytes to messages: what is taken, what is refused and by which name, and that nothing else can come out."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.errors import BadMessage, UnknownType
from signald.wire import codec
from signald.wire import messages as m
from signald.wire.rooms import Publish, Snapshot
from tests.wire.frames import DEPTH_MAX, binary, text

SHARED: dict[str, dict[str, Any]] = {
    "message": {"seq": 3, "data": {"a": [1, None]}, "kind": "chat", "history": False, "trace": "00-1-2-01"},
    "ack": {"seq": 0},
    "receipt": {"seq": 7},
    "realtime": {"data": "typing", "trace": "00-1-2-01"},
    "ping": {},
    "pong": {},
    "bye": {"reason": "done"},
    "auth": {"auth": "jwt"},
    "error": {"code": "oops", "message": "it broke"},
    "join": {"room": "r:1", "received": 3, "epoch": "e", "presence": {"x": 1}, "state": True, "history": 5},
    "publish": {
        "room": "r:1",
        "seq": 1,
        "data": [1],
        "kind": "chat",
        "put": 1,
        "patch": {"a": {"b": None}},
        "remove": ["c"],
    },
    "presence": {"room": "r:1", "presence": None},
    "leave": {"room": "r:1"},
}
BINARY_ONLY = {"snapshot"}
CLIENT: dict[str, dict[str, Any]] = SHARED | {
    "connect": {"auth": "jwt", "want": {"lang": "en"}, "meta": {"app": 1}, "receipts": True, "trace": "t"},
    "restore_session": {
        "recovery_token": "s_1.x",
        "received": 4,
        "acked": 2,
        "attempt": 3,
        "auth": "jwt",
        "history": 5,
        "ticket": "t",
        "rooms": [{"room": "r:1", "received": 3, "epoch": "e", "state": True}],
    },
    "stream_cancel": {"stream": "a", "reason": "enough"},
}
WORKER: dict[str, dict[str, Any]] = SHARED | {
    "app_ready": {
        "instance_id": "i-1", "capacity": 4, "labels": {"lang": "en"}, "config": {"any": [1]}, "auth": "jwt",
        "reconnection": True, "last_close_code": 1006, "recovery_token": "w_1.x",
        "sessions": [{"session": "s_1", "received": 2, "acked": 1, "jobs": ["j_1_1"],
                      "rooms": [{"room": "r:1", "received": 3, "epoch": "e", "state": True}]}],
        "attempt": 3, "ticket": "t",
    },
    "session_accept": {"session": "s_1"},
    "job_progress": {"session": "s_1", "job": "j_1_1", "progress": 1},
    "session_refuse": {"session": "s_1", "reason": "busy", "state": {"any": [1]}},
    "app_state": {"capacity": 2, "load": 0.5, "leaving": True},
    "app_terminated": {"request_id": "r", "status": "OK", "message": "bye"},
}  # fmt: skip
EVERY = [("client", name, fields) for name, fields in CLIENT.items()] + [
    ("worker", name, fields | ({"session": "s_1"} if name in SHARED and fields and name != "auth" else {}))
    for name, fields in WORKER.items()
]


def decode(party: str, payload: bytes, *, is_text: bool = True) -> tuple[Any, bytes | None]:
    """Decode one frame of `party`."""
    if party == "client":
        return codec.decode_client(is_text, payload, DEPTH_MAX)
    return codec.decode_worker(is_text, payload, DEPTH_MAX)


def test_the_tables_of_types_name_every_message() -> None:
    """The names by which a wrong message is told from an unknown one are those of the messages themselves."""
    assert set(CLIENT) | BINARY_ONLY == codec.CLIENT_TYPES
    assert set(WORKER) | BINARY_ONLY == codec.WORKER_TYPES


@pytest.mark.parametrize(("party", "kind", "fields"), EVERY)
def test_every_message_is_read_field_by_field(party: str, kind: str, fields: dict[str, Any]) -> None:
    """What a party says is what the service sees; raw fields stay as they were written."""
    message, data = decode(party, text(type=kind, **fields))
    assert data is None
    for name, value in fields.items():
        seen = getattr(message, name)
        if isinstance(seen, msgspec.Raw):
            seen = json.loads(bytes(seen))
        elif name in ("sessions", "rooms"):
            seen = msgspec.to_builtins(seen)
        assert seen == value


@pytest.mark.parametrize(("party", "kind", "fields"), EVERY)
def test_unknown_fields_are_ignored(party: str, kind: str, fields: dict[str, Any]) -> None:
    """A newer party may say more than this release understands."""
    assert decode(party, text(type=kind, **fields, hologram={"x": 1})) == decode(party, text(type=kind, **fields))


@pytest.mark.parametrize("party", ["client", "worker"])
def test_binary_frames_carry_their_data_behind_the_header(party: str) -> None:
    """`message` and `realtime` have a binary form, even an empty one; nothing else has."""
    for data in (b"", b"\x00\xff{"):
        message, seen = decode(party, binary(data, type="message", seq=1, session="s_1"), is_text=False)
        assert (type(message), seen) == (m.Message, data)
        message, seen = decode(party, binary(data, type="realtime", session="s_1"), is_text=False)
        assert (type(message), seen) == (m.Realtime, data)
    with pytest.raises(BadMessage, match="may be binary"):
        decode(party, binary(b"", type="ping"), is_text=False)


@pytest.mark.parametrize(
    ("is_text", "payload", "why"),
    [
        (True, b"", "not valid JSON"),
        (True, b"{", "not valid JSON"),
        (True, b"[]", "JSON object"),
        (True, b"3", "JSON object"),
        (True, b"null", "JSON object"),
        (True, b"{}", "JSON object"),
        (True, b'{"type":5}', "JSON object"),
        (True, b'{"type":"ack","seq":NaN}', "not valid JSON"),
        (True, text(type="message", seq=1), "`data` belongs"),
        (True, text(type="realtime"), "`data` belongs"),
        (True, text(type="message", data=1), "message"),
        (True, text(type="message", seq=0, data=1), "message"),
        (True, text(type="message", seq=2**53, data=1), "message"),
        (True, text(type="message", seq="1", data=1), "message"),
        (True, text(type="message", seq=True, data=1), "message"),
        (True, text(type="message", seq=1.5, data=1), "message"),
        (True, text(type="message", seq=1, data=1, kind="k" * 65), "message"),
        (True, text(type="ack", seq=-1), "ack"),
        (True, text(type="bye", reason="r" * 513), "bye"),
        (True, text(type="connect", want={"k" * 65: "v"}), "connect"),
        (True, text(type="connect", want={str(i): "v" for i in range(33)}), "connect"),
        (True, text(type="connect", want={"lang": 5}), "connect"),
        (True, text(type="connect", auth=""), "connect"),
        (True, text(type="restore_session"), "restore_session"),
        (True, text(type="restore_session", recovery_token="t", history=1001), "restore_session"),
        (False, b"", "length of its header"),
        (False, b"\x00", "length of its header"),
        (False, b"\x00\x05{}", "longer than the frame"),
        (False, b"\x00\x02{}", "JSON object"),
        (False, binary(b"x", type="message", seq=1, data=1), "`data` belongs"),
    ],
)  # fmt: skip
def test_what_the_protocol_does_not_allow_is_a_bad_message(is_text: bool, payload: bytes, why: str) -> None:
    """Wrong shape, type or bound: `BadMessage`, whose text names the message and never repeats a value."""
    with pytest.raises(BadMessage, match=why):
        decode("client", payload, is_text=is_text)


def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    """The text of a refusal goes into answers and logs: a secret in a misshapen message stays out of them."""
    with pytest.raises(BadMessage) as caught:
        decode("client", text(type="restore_session", recovery_token=["hunter2"], auth="hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hologram", "session_started", "goaway", "x" * 1000, ""])
def test_other_types_are_unknown(kind: str) -> None:
    """A well-formed object of an unknown type, also one only the server sends, is `UnknownType`, cut to 64 letters."""
    with pytest.raises(UnknownType) as caught:
        decode("client", text(type=kind, seq=1))
    assert str(caught.value) == kind[:64]


def test_each_party_has_its_own_messages() -> None:
    """A client's opening is unknown from a worker, and the other way round."""
    with pytest.raises(UnknownType):
        decode("worker", text(type="connect"))
    with pytest.raises(UnknownType):
        decode("client", text(type="app_ready", instance_id="i"))


@pytest.mark.parametrize("depth", [30, 31, 32, 33, 100_000])
def test_json_is_at_most_as_deep_as_allowed(depth: int) -> None:
    """The message's own object counts; brackets inside strings do not."""
    frame = b'{"type":"message","seq":1,"data":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    if depth <= DEPTH_MAX:
        assert decode("client", frame)[0].seq == 1
    else:
        with pytest.raises(BadMessage, match="deeper"):
            decode("client", frame)
    quoted = text(type="message", seq=1, data="[" * depth + '\\"{' + "[" * depth)
    assert decode("client", quoted)[0].seq == 1
    flat = text(type="message", seq=1, data=[[]] * depth)
    assert decode("client", flat)[0].seq == 1


def test_an_endless_string_does_not_hold_up_the_node() -> None:
    """Measuring the depth takes time in proportion to the frame, whatever is in it.

    The search for the end of a string once began anew at every quote inside it: this frame took a quarter of a minute.
    """
    began = time.process_time()
    with pytest.raises(BadMessage):
        decode("client", b"[]" * 33 + b'"' + b'\\"' * 32_000)
    assert time.process_time() - began < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
TYPES = st.sampled_from(sorted(codec.CLIENT_TYPES | codec.WORKER_TYPES)) | st.text(max_size=10)
FIELDS = st.sampled_from(
    [
        "seq",
        "data",
        "session",
        "kind",
        "history",
        "recovery_token",
        "want",
        "meta",
        "sessions",
        "capacity",
        "instance_id",
    ]
)
NEARLY = st.builds(
    lambda kind, fields: json.dumps({"type": kind, **fields}).encode(), TYPES, st.dictionaries(FIELDS, JSON, max_size=6)
)
NASTY = st.sampled_from(
    [
        b"1" * 5000, b"1e400", b"NaN", b'"\\ud800"', b'"\x00"', b"\xff\xfe", b'{"a":1,"a":2}', b"9007199254740993",
        b'{"__proto__":{}}', b"true", b'"' + b"\\" * 99, b"[" * 100_000, b"-", b"1e", b'"\\q"', b'"\x80"',
    ]
)  # fmt: skip
WRAPPED = st.builds(lambda value: b'{"type":"message","seq":1,"data":' + value + b"}", NASTY)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Something like a message, with a few bytes changed, cut or doubled."""
    payload = bytearray(draw(NEARLY | WRAPPED))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(payload)))
        if draw(st.booleans()):
            payload[place:place] = draw(st.binary(min_size=1, max_size=4))
        else:
            del payload[place : place + draw(st.integers(1, 8))]
    return bytes(payload)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.sampled_from(["client", "worker"]), st.booleans(), st.binary(max_size=200) | NEARLY | WRAPPED | mutated())
def test_decoding_ends_in_a_message_or_one_of_two_errors(party: str, is_text: bool, payload: bytes) -> None:
    """No frame whatsoever raises anything but `BadMessage` and `UnknownType`; what is accepted can be read by the peer."""
    try:
        message, data = decode(party, payload, is_text=is_text)
    except (BadMessage, UnknownType):
        return
    if isinstance(message, m.Message | m.Realtime) and data is None and _is_utf8(payload):
        # Its receiver parses it: what other readers choke on must not get this far. A text frame that is not
        # UTF-8 never reaches the codec, and Python alone minds numbers of thousands of digits.
        raw = bytes(message.data)
        json.loads(raw, parse_int=len)


@given(st.sampled_from(["client", "worker"]), mutated(), st.integers(0, 70_000))
def test_binary_headers_are_decoded_as_strictly(party: str, header: bytes, length: int) -> None:
    """A binary frame whose header length is a lie is refused like any other."""
    payload = min(length, 65535).to_bytes(2, "big") + header
    try:
        message, data = decode(party, payload, is_text=False)
    except (BadMessage, UnknownType):
        return
    assert isinstance(message, m.Message | m.Realtime)
    assert data is not None


def test_answers_carry_the_names_of_the_protocol() -> None:
    """Unset fields are left out, `fatal` and `peer.id` never are, and seq-carrying frames read the same built either way."""
    assert json.loads(codec.encode(m.ErrorMessage("gap", "one is missing", fatal=False, expected=4))) == {
        "type": "error", "code": "gap", "message": "one is missing", "fatal": False, "expected": 4,
    }  # fmt: skip
    assert json.loads(codec.encode(m.PeerChanged("waiting"))) == {"type": "peer", "state": "waiting"}
    started = m.SessionStarted("s_1", "s_1.t", 5, m.Peer("waiting"), 1, m.Limits(1, 2.0, 3, 4), 6)
    assert json.loads(codec.encode(started))["peer"] == {"state": "waiting", "id": None}
    assert json.loads(codec.ack_frame(3, None)) == {"type": "ack", "seq": 3}
    assert json.loads(codec.ack_frame(3, "s_1")) == {"type": "ack", "session": "s_1", "seq": 3}
    assert json.loads(codec.receipt_frame(3, None)) == {"type": "receipt", "seq": 3}
    assert json.loads(codec.receipt_frame(3, "s_1")) == {"type": "receipt", "session": "s_1", "seq": 3}
    assert (json.loads(codec.PING), json.loads(codec.PONG)) == ({"type": "ping"}, {"type": "pong"})


def test_the_goaway_says_when_and_until_when() -> None:
    """`reason`, `not_before_ms` and `deadline_ms` are always there; hints only when there are any."""
    assert json.loads(codec.encode(m.GoAway("deploy", 0, 5000))) == {
        "type": "goaway", "reason": "deploy", "not_before_ms": 0, "deadline_ms": 5000,
    }  # fmt: skip
    assert json.loads(codec.encode(m.GoAway("deploy", 0, 5000, "wss://b", "t")))["ticket"] == "t"


def test_a_snapshot_is_a_binary_frame() -> None:
    """Its bytes are the snapshot; a text frame has none."""
    message, data = codec.decode_client(False, binary(b"\x00", type="snapshot", room="r:1", position=3), DEPTH_MAX)
    assert (message, data) == (Snapshot("r:1", 3), b"\x00")
    with pytest.raises(BadMessage):
        codec.decode_client(True, text(type="snapshot", room="r:1", position=3), DEPTH_MAX)


WRONG: list[dict[str, Any]] = [
    {"put": [1]}, {"patch": {"a": 1}}, {"remove": {"a": "b"}}, {"data": 1, "put": {}}, {"room": "no room"}, {"room": "x" * 500}
]  # fmt: skip


def test_wrong_content_of_a_publication_is_decoded() -> None:
    """What a party publishes is judged by the room: no content of it is a wrong frame, and neither is a name that no room has."""
    for wrong in WRONG:
        message, _ = codec.decode_client(True, text(**{"type": "publish", "room": "r:1", "seq": 1} | wrong), DEPTH_MAX)
        assert isinstance(message, Publish)
