"""Ranges and conditions, by the examples and rules of RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.http.api.ranges import Conditions, Outcome, Span, is_same, judge, names, span_of

ETAG = '"xyzzy"'


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        # RFC 9110, section 14.1.2, of 10,000 bytes
        ("bytes=0-499", Span(0, 500)),
        ("bytes=500-999", Span(500, 1000)),
        ("bytes=-500", Span(9500, 10_000)),
        ("bytes=9500-", Span(9500, 10_000)),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=9999-10050", Span(9999, 10_000)),
        ("bytes=-20000", Span(0, 10_000)),
        ("Bytes=1-2", Span(1, 3)),
        ("bytes= 1-2 ", Span(1, 3)),
        ("bytes=,1-2,,", Span(1, 3)),
        ("bytes=0-99999999999999999999999999", Span(0, 10_000)),
        # nothing of it is there
        ("bytes=10000-", None),
        ("bytes=10000-10001", None),
        ("bytes=-0", None),
        (f"bytes={'9' * 5000}-", None),
        # invalid, of another unit, or several: ignored
        ("bytes=5-2", "ignored"),
        ("bytes=", "ignored"),
        ("bytes=-", "ignored"),
        ("bytes=a-b", "ignored"),
        ("bytes=1.5-2", "ignored"),
        ("bytes=+1-2", "ignored"),
        ("bytes=1 -2", "ignored"),
        ("bytes 1-2", "ignored"),
        ("bytes=\u0661-\u0662", "ignored"),
        ("seconds=1-2", "ignored"),
        ("bytes=0-0,-1", "ignored"),
        ("", "ignored"),
    ],
)
def test_a_range(field: str, wanted: object) -> None:
    """What is asked for, none of it, or a field that counts for nothing."""
    assert span_of(field, 10_000) == wanted


def test_a_range_of_nothing() -> None:
    """An empty body has no first byte, and its last bytes are all of it."""
    assert span_of("bytes=0-", 0) is None
    assert span_of("bytes=-5", 0) == "ignored"


@given(st.text(alphabet="bytes=0123456789-, \t", max_size=30) | st.text(max_size=30), st.integers(0, 100))
def test_any_range_lies_within(field: str, size: int) -> None:
    """A part is never empty, and never beyond the end."""
    found = span_of(field, size)
    if isinstance(found, Span):
        assert 0 <= found.start < found.end <= size


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 40))
def test_a_range_is_the_slice_that_it_names(first: int, last: int, size: int) -> None:
    """From the first to the last position, both included."""
    data = bytes(range(size))
    found = span_of(f"bytes={first}-{last}", size)
    if first > last:
        assert found == "ignored"
    elif isinstance(found, Span):
        assert data[found.start : found.end] == data[first : last + 1]
    else:
        assert data[first : last + 1] == b""


@pytest.mark.parametrize(
    ("field", "strong", "weak"),
    [
        # RFC 9110, sections 8.8.3.2, 13.1.1 and 13.1.2
        ('"xyzzy"', True, True),
        ('W/"xyzzy"', False, True),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', True, True),
        ('"r2d2xxxx",W/"xyzzy"', False, True),
        ('"a,b" , "xyzzy"', True, True),
        (', "xyzzy",', True, True),
        ("*", True, True),
        ('"xyzzy', False, False),
        ("xyzzy", False, False),
        ('w/"xyzzy"', False, False),
        ('"xyzzy" "b"', False, False),
        ('"other"', False, False),
        ("", False, False),
    ],
)
def test_entity_tags(field: str, strong: bool, weak: bool) -> None:
    """The weak comparison passes over the mark; a list that is none names nothing."""
    assert names(field, ETAG, strong=True) is strong
    assert names(field, ETAG) is weak


@given(st.text(max_size=40))
def test_any_list_of_tags_is_read(field: str) -> None:
    """Nothing is raised, and what is strong is weak as well."""
    assert names(field, ETAG) or not names(field, ETAG, strong=True)


def test_if_range() -> None:
    """The strong comparison: no weak tag, no list, no date."""
    assert is_same(ETAG, ETAG)
    for other in ('W/"xyzzy"', '"xyzzy", "xyzzy"', "Sat, 29 Oct 1994 19:43:31 GMT", "*", '"other"', ""):
        assert not is_same(other, ETAG)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (Conditions(), Outcome.WHOLE),
        (Conditions(range="bytes=1-2"), Span(1, 3)),
        (Conditions(range="bytes=1-2", if_range=ETAG), Span(1, 3)),
        (Conditions(range="bytes=1-2", if_range='"other"'), Outcome.WHOLE),
        (Conditions(range="bytes=1-2", if_range='W/"xyzzy"'), Outcome.WHOLE),
        (Conditions(range="bytes=1-2", if_range="Sat, 29 Oct 1994 19:43:31 GMT"), Outcome.WHOLE),
        (Conditions(if_range=ETAG), Outcome.WHOLE),
        (Conditions(range="bytes=10-"), Outcome.UNSATISFIABLE),
        (Conditions(range="bytes=10-", if_range='"other"'), Outcome.WHOLE),
        (Conditions(range="lines=1-2"), Outcome.WHOLE),
        (Conditions(if_none_match=ETAG, range="bytes=1-2"), Outcome.UNCHANGED),
        (Conditions(if_none_match='"other"', range="bytes=1-2"), Span(1, 3)),
        (Conditions(if_match=ETAG, if_none_match=ETAG), Outcome.UNCHANGED),
        (Conditions(if_match='"other"', if_none_match=ETAG, range="bytes=1-2"), Outcome.FAILED),
        (Conditions(if_match='W/"xyzzy"'), Outcome.FAILED),
        (Conditions(if_match="*", range="bytes=-1"), Span(9, 10)),
    ],
)
def test_conditions_come_in_their_order(asked: Conditions, wanted: object) -> None:
    """`If-Match` first, then `If-None-Match`, then `Range` with its `If-Range`."""
    assert judge(asked, ETAG, 10) == wanted
