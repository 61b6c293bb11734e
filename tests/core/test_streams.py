"""What a message is of its stream, and the rule of one stream."""

import json

import pytest
from msgspec import Raw

from signald.core.streams import STREAM, Mark, Rank, Stage, StreamFault, Verdict, is_piece, judge, mark_of, mark_of_body
from signald.wire import codec, records
from signald.wire.messages import Message, StreamError


def said(**fields: object) -> tuple[Message, bytes | None]:
    """A message as a worker's frame says it."""
    payload = json.dumps({"type": "message", "session": "s_1", "seq": 5, "data": "x", **fields}).encode()
    message, binary = codec.decode_worker(True, payload, 32)
    assert isinstance(message, Message)
    return message, binary


def test_a_plain_message_is_of_no_stream() -> None:
    """A message without any field of a stream is no piece; a `content_type` makes it none."""
    assert not is_piece(said()[0])
    assert not is_piece(said(content_type="text/plain")[0])


@pytest.mark.parametrize(
    ("fields", "mark"),
    [
        ({"stream": "a"}, Mark("a")),
        ({"stream": "a", "attempt": 3, "kind": "tokens"}, Mark("a", 3, kind="tokens")),
        ({"stream": "a", "fold": "text", "data": "né\n"}, Mark("a", fold=b"n\\u00e9\\n")),
        ({"stream": "a", "end": True}, Mark("a", end="complete")),
        ({"stream": "a", "end": True, "outcome": "cancelled"}, Mark("a", end="cancelled")),
        (
            {"stream": "a", "end": True, "outcome": "failed", "error": {"code": "c", "message": "m", "more": 1}},
            Mark("a", end="failed", error=b'{"code":"c","message":"m"}'),
        ),
    ],
)
def test_marks(fields: dict[str, object], mark: Mark) -> None:
    """A piece has its attempt, its text as it was written, and its end; the body that is kept of it says the same."""
    message, binary = said(**fields)
    assert is_piece(message)
    assert mark_of(message, binary) == mark
    assert mark_of_body(records.message_body(message, binary)) == mark


@pytest.mark.parametrize(
    "fields",
    [
        {"end": True},
        {"attempt": 1},
        {"fold": "text"},
        {"outcome": "failed"},
        {"error": {"code": "c"}},
        {"stream": ""},
        {"stream": "a", "attempt": 0},
        {"stream": "a", "attempt": -1},
        {"stream": "a", "fold": "json"},
        {"stream": "a", "fold": "text", "data": 5},
        {"stream": "a", "fold": "text", "data": ["x"]},
        {"stream": "a", "fold": "text", "data": "\ud83d"},
        {"stream": "a", "outcome": "failed"},
        {"stream": "a", "error": {"code": "c"}},
        {"stream": "a", "end": True, "outcome": "wonderful"},
    ],
    ids=str,
)
def test_fields_that_do_not_go_together(fields: dict[str, object]) -> None:
    """A wrong combination of fields is refused with a text, and the frame itself can be read."""
    message, binary = said(**fields)
    assert is_piece(message)
    with pytest.raises(StreamFault) as fault:
        mark_of(message, binary)
    assert str(fault.value)


def test_binary_data_is_no_text() -> None:
    """A binary message is a piece of a stream, but of no text."""
    message = Message(5, stream="a", content_type="audio/ogg", end=True)
    assert mark_of(message, b"\0") == Mark("a", end="complete")
    assert mark_of_body(records.message_body(message, b"\0")) == Mark("a", end="complete")
    with pytest.raises(StreamFault):
        mark_of(Message(5, stream="a", fold="text"), b"\0")


def test_halves_in_data_that_is_no_piece_of_a_text_are_carried() -> None:
    """Half of a surrogate pair in the data of a stream without a text is kept, and its mark is found in the body."""
    message, binary = said(stream="a", data="\ud83d")
    assert mark_of_body(records.message_body(message, binary)) == Mark("a")


@pytest.mark.parametrize("body", [b't"seq":1,"stream":5,"data":1}', b't"seq":1,"stream":', b't"stream":"a"}', b"t\xff"])
def test_a_body_that_no_node_has_made_has_no_mark(body: bytes) -> None:
    """A damaged body is of no stream: it hurts nothing else."""
    assert mark_of_body(body) is None


def test_all_fields_are_carried() -> None:
    """The peer gets every field of a stream as it was said, and none that was not."""
    fields = {
        "stream": "a", "attempt": 2, "fold": "text", "kind": "tokens", "end": True, "outcome": "failed", "data": "x",
        "content_type": "text/plain", "error": {"code": "c", "message": "m"},
    }  # fmt: skip
    message, binary = said(**fields)
    _, payload = records.frame(records.head(b"message", None), records.message_body(message, binary))
    assert json.loads(payload) == {"type": "message", "seq": 5, **fields}


def test_a_stream_that_is_over_takes_nothing_more() -> None:
    """An ended stream refuses each attempt, and an open one only what is lower than its highest."""
    assert [judge(attempt, highest=2, outcome="complete") for attempt in (1, 2, 3)] == [Verdict.OVER] * 3
    assert [judge(attempt, highest=2, outcome="") for attempt in (1, 2, 3)] == [
        Verdict.SUPERSEDED, Verdict.GOES_ON, Verdict.BEGINS_ANEW,
    ]  # fmt: skip
    assert judge(7, highest=0, outcome="") is Verdict.BEGINS


def test_the_table_is_whole() -> None:
    """Each stage of a stream that is known has a verdict for each rank."""
    known = {(stage, rank) for stage in (Stage.OPEN, Stage.OVER) for rank in Rank}
    assert set(STREAM) == known | {(Stage.UNKNOWN, Rank.HIGHER)}


def test_history_takes_the_texts_of_streams() -> None:
    """The text of a stream stands in the chat history whatever its kind, unless its sender says no; other streams do not stand there."""
    text = {"stream": "a", "fold": "text"}
    assert records.in_history(*said(**text))
    assert records.in_history(*said(**text, kind="tokens"))
    assert not records.in_history(*said(**text, history=False))
    assert not records.in_history(*said(stream="a", history=True))


def test_an_error_is_bounded() -> None:
    """The words of an `error` are bounded as those of any other text."""
    assert (
        mark_of(Message(1, Raw(b"1"), stream="a", end=True, error=StreamError("c")), None).error
        == b'{"code":"c","message":""}'
    )
