"""Which entries the items of a chat history are shown as."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from signald.core.chat_history import end_item, piece_item, piece_of, shown, unfold
from signald.core.head import Party
from signald.core.streams import Mark

AT_MS = 1_700_000_000_000

Items = list[tuple[Party, bytes]]


def plain(seq: int, text: str, party: Party = "client") -> tuple[Party, bytes]:
    """A plain message."""
    return party, b't"seq":%d,"at_ms":%d,"data":"%b"}' % (seq, AT_MS + seq, text.encode())


def piece(
    seq: int, index: int, text: str, *, stream: str = "a", attempt: int = 1, end: str = ""
) -> tuple[Party, bytes]:
    """A piece of the worker's."""
    mark = Mark(stream, attempt, json.dumps(text)[1:-1].encode(), end, "tokens")
    return "worker", piece_item(index, piece_of(mark, seq, AT_MS + seq))


def read(items: Items, limit: int = 100, before: int = 0) -> list[dict[str, Any]]:
    """Return what a party is shown."""
    return [json.loads(bytes(one)) for one in shown(unfold(items, limit, before)[0])]


def test_a_stream_is_one_entry() -> None:
    """The pieces of a stream are one entry that stands where the first one stood, with the seq of the last and the time of the first."""
    items = [plain(1, "hi"), piece(1, 0, "He"), plain(2, "go"), piece(2, 1, "llo 😀")]
    assert read(items) == [
        {"from": "client", "seq": 1, "data": "hi"},
        {
            "from": "worker", "seq": 2, "kind": "tokens", "stream": "a", "attempt": 1, "open": True,
            "data": "Hello 😀",
        },
        {"from": "client", "seq": 2, "data": "go"},
    ]  # fmt: skip
    assert [entry.at_ms - AT_MS for entry in unfold(items, 9)[0]] == [1, 1, 2]


def test_an_end_closes_the_entry() -> None:
    """The last piece has the outcome, and so has the end that signald makes."""
    assert read([piece(1, 0, "x", end="complete")])[0]["outcome"] == "complete"
    (entry,) = read([piece(1, 0, "x"), ("worker", end_item("a", 1, 7, 9, "interrupted"))])
    assert (entry["outcome"], entry["seq"], entry["data"], "open" in entry) == ("interrupted", 7, "x", False)


def test_a_higher_attempt_takes_the_place_of_a_lower_one() -> None:
    """Nothing of a lower attempt is shown once a higher one has begun, and what comes of it later is skipped."""
    items = [piece(1, 0, "old"), plain(1, "?"), piece(2, 0, "new", attempt=2), piece(3, 1, "er", attempt=1)]
    entry = read(items)[0]
    assert (entry["data"], entry["attempt"], entry["seq"]) == ("new", 2, 2)


def test_a_text_is_shown_from_behind_a_gap_on() -> None:
    """What was cut in front or is damaged makes the text begin behind it, as truncated."""
    cut = read([piece(5, 4, "x"), piece(6, 5, "y")])[0]
    assert (cut["data"], cut["truncated"]) == ("xy", True)
    gap = read([piece(1, 0, "a"), ("worker", b"p1 \xff"), piece(3, 2, "c")])[0]
    assert (gap["data"], gap["truncated"]) == ("c", True)
    assert "truncated" not in read([piece(1, 0, "a")])[0]


def test_pages() -> None:
    """A page ends before the entry it names; nothing is before one that is kept no more."""
    items: Items = [plain(seq, str(seq)) for seq in range(1, 4)] + [piece(1, 0, "x"), piece(2, 1, "y"), plain(4, "4")]
    last, more = unfold(items, 2)
    assert ([entry.seq for entry in last], more) == ([2, 4], True)
    first, more = unfold(items, 9, last[0].number)
    assert ([entry.seq for entry in first], more) == ([1, 2, 3], False)
    assert unfold(items, 9, 99) == ((), False)


def test_what_is_damaged_is_left_out() -> None:
    """An item that cannot be read hides no other."""
    damaged: Items = [("worker", b"p"), ("worker", b"px y"), ("worker", b"e"), ("worker", b"e1 x 2 done a")]
    assert len(read([*damaged, piece(1, 0, "a"), *damaged])) == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.text(max_size=5), st.booleans()), max_size=30), st.integers(0, 30))
def test_a_text_is_a_suffix_of_what_was_said(pieces: list[tuple[int, str, bool]], cut: int) -> None:
    """However much is cut in front, the text is a suffix of what its attempt said; all of it, if it is not called truncated."""
    items: Items = []
    spoken: dict[int, list[str]] = {}
    highest = 1
    for seq, (attempt, text, chat) in enumerate(pieces, 1):
        if attempt >= highest:
            highest = attempt
            before = spoken.setdefault(attempt, [])
            text = text.encode("utf-8", "replace").decode()
            items.append(piece(seq, len(before), text, attempt=attempt))
            before.append(text)
        if chat:
            items.append(plain(seq, "chat"))
    for entry in read(items[cut:]):
        if "stream" in entry:
            whole = "".join(spoken[entry["attempt"]])
            assert whole.endswith(entry["data"])
            assert entry.get("truncated") or entry["data"] == whole
