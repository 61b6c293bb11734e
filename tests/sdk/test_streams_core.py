"""Rolled-up pieces, texts that grow, and messages that are numbered anew. No I/O."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from signald.ids import SeededEntropy
from signald.sdk.core import NEVER, SessionCore
from signald.sdk.stream_fields import Of
from signald.sdk.streams_core import ROLL_UP_CHARS, RollUp, StreamText, StreamTexts
from signald.sdk.writing import Batch
from signald.wire.codec import decode_worker
from signald.wire.messages import ErrorMessage, Message, StreamState


def piece(
    seq: int, text: str, *, attempt: int = 1, end: bool = False, outcome: str | None = None
) -> tuple[Message, str]:
    """A piece of the stream `a`."""
    raw = Raw(json.dumps(text).encode())
    return Message(seq, raw, stream="a", attempt=attempt, fold="text", end=end, outcome=outcome), text


def test_the_first_piece_leaves_at_once_and_the_next_ones_together() -> None:
    """The first is due at once, what follows when the window is over, and what is long at once."""
    roll_up = RollUp(0.04)
    assert roll_up.due == NEVER
    roll_up.add("a")
    assert roll_up.due <= 0
    assert roll_up.take(10.0) == "a"
    roll_up.add("b")
    roll_up.add("c")
    assert roll_up.due == pytest.approx(10.04)
    assert roll_up.take(10.04) == "bc"
    roll_up.add("x" * ROLL_UP_CHARS)
    assert roll_up.due == -NEVER


def test_a_text_grows_and_ends() -> None:
    """Pieces are joined in order; the end keeps what was said."""
    texts = StreamTexts()
    for seq, text in enumerate(("He", "llo"), 1):
        texts.message(*piece(seq, text))
    assert texts.all()["a"] == StreamText("a", 1, "Hello", seq=2)
    texts.message(*piece(3, "!", end=True))
    assert (texts.all()["a"].text, texts.all()["a"].outcome) == ("Hello!", "complete")


def test_a_higher_attempt_begins_anew() -> None:
    """What was shown of a lower attempt is gone, and what still comes of it is passed over."""
    texts = StreamTexts()
    for message in (piece(1, "old"), piece(2, "ne", attempt=2), piece(3, "er"), piece(4, "w", attempt=2)):
        texts.message(*message)
    assert (texts.all()["a"].text, texts.all()["a"].attempt) == ("new", 2)


def test_an_entry_of_the_history_is_ahead_of_the_messages() -> None:
    """After a reload the entry is shown, and of the replay only what is behind it."""
    texts = StreamTexts()
    texts.entry({"from": "worker", "seq": 3, "stream": "a", "attempt": 1, "open": True, "data": "abc"})
    for seq, text in enumerate("abcde", 1):
        texts.message(*piece(seq, text))
    assert texts.all()["a"].text == "abcde"
    texts.entry({"from": "worker", "seq": 4, "stream": "a", "attempt": 1, "open": True, "data": "abcd"})
    assert texts.all()["a"].text == "abcde"


def test_ends_that_no_message_tells() -> None:
    """signald's own end, an entry that has ended, and the end of the session end the text as it is."""
    texts = StreamTexts()
    texts.message(*piece(1, "x"))
    texts.state(StreamState("a", 1, "interrupted"))
    assert texts.all()["a"] == StreamText("a", 1, "x", "interrupted", seq=1)
    assert texts.state(StreamState("a", 1, "interrupted")) is None
    texts.message(Message(2, Raw(b"1"), stream="b"), None)
    assert [text.stream for text in texts.end()] == ["b"]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.text("ab", max_size=3)), max_size=20),
    st.lists(st.integers(0, 20), max_size=4),
)
def test_what_is_shown_is_a_prefix_of_what_was_said(said: list[tuple[int, str]], reloads: list[int]) -> None:
    """At any time, over resumes that bring the history in between, a text is a prefix of what its attempt has said."""
    pieces: list[tuple[Message, str]] = []
    spoken: dict[int, str] = {}
    highest = 1
    for attempt, text in said:
        if attempt >= highest:
            highest = attempt
            pieces.append(piece(len(pieces) + 1, text, attempt=attempt))
            spoken[attempt] = spoken.get(attempt, "") + text
    texts = StreamTexts()
    for place, (message, text) in enumerate(pieces):
        if place in reloads:
            last = pieces[: place + 1 + place % 3]
            attempt = last[-1][0].attempt or 1
            whole = "".join(one for of, one in last if of.attempt == attempt)
            texts.entry({"from": "worker", "seq": last[-1][0].seq, "stream": "a", "attempt": attempt, "data": whole})
        texts.message(message, text)
        shown = texts.all()["a"]
        assert spoken[shown.attempt].startswith(shown.text)
    if pieces:
        assert texts.all()["a"].text == spoken[highest]


def test_what_is_behind_a_refused_message_is_numbered_anew() -> None:
    """The refused message is dropped, and the others go out once more under their new numbers; later errors change nothing."""
    session = SessionCore("s_1", SeededEntropy(1), next_seq=1)
    session.send("x", of=Of("a", fold="text"))
    session.send("late", of=Of("a", fold="text"))
    session.send({"n": 3})
    session.send(b"\0\1", kind="k")
    batch = Batch()
    session.write(0.0, batch)
    assert session.turned_down(ErrorMessage("stream_over", "", expected=2, stream="a"))
    assert (session.next_seq, session.unacked) == (4, 3)
    batch = Batch()
    session.write(0.0, batch)
    again = [decode_worker(*frame, 32) for frame in batch.frames]
    assert [(message.seq, binary) for message, binary in again] == [(2, None), (3, b"\0\1")]  # type: ignore[union-attr]
    assert [getattr(message, "kind", None) for message, _ in again] == [None, "k"]
    assert not session.turned_down(ErrorMessage("stream_over", "", expected=9, stream="a"))
    session.acked(3)
    assert session.unacked == 0


@pytest.mark.parametrize(
    "of",
    [
        Of(attempt=1),
        Of(end=True),
        Of(""),
        Of("x" * 65),
        Of("a", attempt=0),
        Of("a", fold="json"),
        Of("a", outcome="failed"),
    ],
    ids=str,
)
def test_what_signald_would_refuse_is_an_error_here(of: Of) -> None:
    """Fields that do not go together raise, and nothing is sent."""
    session = SessionCore("s_1", SeededEntropy(1))
    with pytest.raises(ValueError, match=r"[a-z]"):
        session.send("x", of=of)
    assert session.unacked == 0
