"""What the log keeps of a message, and that gluing a head before it gives the frame its sender meant."""

import json

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from signald.wire import records
from signald.wire.messages import Message, Realtime
from tests.wire.frames import read

LETTERS = st.text(max_size=20).filter(lambda text: text.isprintable())
SEQS = st.integers(1, 2**53 - 1)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | LETTERS | st.lists(LETTERS, max_size=3)


def given_message(seq: int, value: object, kind: str | None, history: bool | None, trace: str | None) -> Message:
    """A message as the codec would have decoded it."""
    return Message(seq, Raw(json.dumps(value).encode()), None, kind, history, trace)


@given(SEQS, VALUES, st.none() | LETTERS, st.none() | st.booleans(), st.none() | LETTERS, st.booleans())
def test_a_text_message_arrives_with_all_its_fields(
    seq: int, value: object, kind: str | None, history: bool | None, trace: str | None, to_worker: bool
) -> None:
    """Each field comes through as it was, a worker's frame names the session, and what was not said stays unsaid."""
    message = given_message(seq, value, kind, history, trace)
    front = records.head(b"message", "s_1" if to_worker else None)
    is_text, payload = records.frame(front, records.message_body(message, None))
    assert is_text
    wanted = {"type": "message", "seq": seq, "data": value}
    wanted |= {"session": "s_1"} if to_worker else {}
    wanted |= {k: v for k, v in (("kind", kind), ("history", history), ("trace", trace)) if v is not None}
    assert read(payload, is_text=True) == wanted


@given(SEQS, st.binary(max_size=100), st.none() | LETTERS, st.none() | LETTERS, st.booleans())
def test_a_binary_message_arrives_byte_for_byte(
    seq: int, data: bytes, kind: str | None, trace: str | None, to_worker: bool
) -> None:
    """The header holds everything but the data, and its length is right."""
    message = Message(seq, Raw(), None, kind, None, trace)
    front = records.head(b"message", "s_1" if to_worker else None)
    is_text, payload = records.frame(front, records.message_body(message, data))
    assert not is_text
    wanted = {"type": "message", "seq": seq, "data": data}
    wanted |= {"session": "s_1"} if to_worker else {}
    wanted |= {k: v for k, v in (("kind", kind), ("trace", trace)) if v is not None}
    assert read(payload, is_text=False) == wanted


@given(SEQS, st.none() | st.binary(max_size=20), LETTERS, st.none() | LETTERS)
def test_a_blob_is_named_in_both_forms(seq: int, data: bytes | None, blob: str, kind: str | None) -> None:
    """The name of a blob arrives with any other field, in the frame and in the chat history."""
    message = Message(seq, Raw(b"1") if data is None else Raw(), None, kind, blob=blob)
    body = records.message_body(message, data, at_ms=1_700_000_000_000 if data is None else 0)
    is_text, payload = records.frame(records.head(b"message", None), body)
    wanted = {"type": "message", "seq": seq, "data": 1 if data is None else data, "blob": blob}
    wanted |= {} if kind is None else {"kind": kind}
    assert read(payload, is_text=is_text) == wanted
    if data is None:
        assert json.loads(records.history_entry("client", body))["blob"] == blob


@given(VALUES, st.none() | st.binary(max_size=50), st.none() | LETTERS, st.booleans())
def test_realtime_takes_the_same_forms(value: object, data: bytes | None, trace: str | None, to_worker: bool) -> None:
    """Text or binary, with or without trace and session: a header is never left with a comma too many."""
    message = Realtime(Raw(json.dumps(value).encode()) if data is None else Raw(), None, trace)
    front = records.head(b"realtime", "s_1" if to_worker else None)
    is_text, payload = records.frame(front, records.realtime_body(message, data))
    assert is_text is (data is None)
    wanted = {"type": "realtime", "data": value if data is None else data}
    wanted |= {"session": "s_1"} if to_worker else {}
    wanted |= {"trace": trace} if trace is not None else {}
    assert read(payload, is_text=is_text) == wanted


def test_history_is_what_the_sender_says_else_chat() -> None:
    """Unsaid, the chat history takes what has no kind or the kind `chat`; binary data never enters it."""
    rows = [
        (None, None, True),
        ("chat", None, True),
        ("typing", None, False),
        ("typing", True, True),
        ("chat", False, False),
        (None, False, False),
    ]
    for kind, history, wanted in rows:
        assert records.in_history(given_message(1, 0, kind, history, None), None) is wanted
        assert records.in_history(given_message(1, 0, kind, True, None), b"") is False


def test_the_chat_history_names_who_said_what() -> None:
    """An entry is the message's object with `from` in the place of `type`."""
    body = records.message_body(given_message(1, {"a": 1}, "chat", None, None), None)
    assert json.loads(records.history_entry("worker", body)) == {
        "from": "worker", "seq": 1, "kind": "chat", "data": {"a": 1},
    }  # fmt: skip


@given(SEQS, VALUES, st.none() | LETTERS, st.integers(10**12, 10**13 - 1))
def test_the_time_of_arrival_is_kept_and_in_no_frame(seq: int, value: object, kind: str | None, at_ms: int) -> None:
    """A body knows when its message arrived, and makes the same frame and entry as one that does not."""
    message = given_message(seq, value, kind, None, None)
    timed, plain = records.message_body(message, None, at_ms), records.message_body(message, None)
    assert records.seq_and_time(timed) == (seq, at_ms)
    assert records.seq_and_time(plain) == (seq, 0)
    assert records.frame(b"{", timed) == records.frame(b"{", plain)
    assert records.history_entry("client", timed) == records.history_entry("client", plain)


def test_data_that_looks_like_a_time_stays() -> None:
    """What the sender says is never taken for the time of the node."""
    message = given_message(5, {"a": 1, "at_ms": 1_700_000_000_000}, None, None, None)
    for at_ms in (0, 1_700_000_000_000):
        _, payload = records.frame(b"{", records.message_body(message, None, at_ms))
        assert json.loads(payload) == {"seq": 5, "data": {"a": 1, "at_ms": 1_700_000_000_000}}
