"""The room: names, rights, and what becomes of records."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.core.rooms import (
    CHANGES_MAX,
    ENTRY_BYTES,
    ID_CHARS_MAX,
    NAME_CHARS_MAX,
    RIGHTS,
    Entry,
    Fault,
    Publication,
    escape,
    fault_of,
    fold,
    is_dense,
    is_picture,
    is_room,
    patched,
    properties_of,
    read_patterns,
    rights_in,
    room_of,
    welcome,
)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("canvas:42", True),
        ("A-Z_.:~x", True),
        ("", False),
        ("a b", False),
        ("é", False),
        ("x" * 128, True),
        ("x" * 129, False),
        ("x\n", False),
    ],
)
def test_names(name: str, is_one: bool) -> None:
    """A room is named by 1 to 128 of the characters of the contract."""
    assert is_room(name) == is_one


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("ann", "ann"), ("a/b", "a~2fb"), ("a~2fb", "a~7e2fb"), ("é", "~c3~a9"), ("\ud800", "~ed~a0~80")],
)
def test_escape(text: str, escaped: str) -> None:
    """Other bytes are written by their numbers."""
    assert escape(text) == escaped


@given(st.text(max_size=300), st.text(max_size=300))
def test_one_room_for_each_text(one: str, other: str) -> None:
    """Two subjects never have one room, however long they are, and each has one."""
    assert is_room(room_of("user", one))
    assert (room_of("user", one) == room_of("user", other)) == (one == other)


def test_long_name() -> None:
    """A long text is told by its digest, and no text makes the same name by itself."""
    long = "x" * NAME_CHARS_MAX
    digest = hashlib.sha256(long.encode()).hexdigest()
    assert room_of("user", long) == f"user:~.{digest}"
    assert room_of("user", f"~.{digest}") != room_of("user", long)
    assert len(room_of("user", "x" * (NAME_CHARS_MAX - 5))) == NAME_CHARS_MAX


@pytest.mark.parametrize(
    ("patterns", "rights"),
    [
        ({"canvas:*": ["join"], "canvas:42": ["publish"]}, {"join", "publish"}),
        ({"canvas:4": ["join"], "canvas:421": ["join"], "c*s": ["join"], "Canvas:*": ["join"]}, set()),
        ({"*": ["join", "publish", "state", "own"]}, RIGHTS),
        ({}, set()),
    ],
)
def test_rights(patterns: dict[str, list[str]], rights: set[str]) -> None:
    """The rights of each pattern that fits; only a star at the end is one."""
    assert rights_in(patterns, "canvas:42") == rights


@pytest.mark.parametrize(
    ("claim", "read"),
    [
        ({"a*": ["join"], "b": "join", "c": [1, "state"], 3: ["join"]}, {"a*": ("join",), "c": ("state",)}),
        (["join"], {}),
        (None, {}),
        ("*", {}),
    ],
)
def test_a_claim_that_is_wrong_gives_no_right(claim: object, read: dict[str, tuple[str, ...]]) -> None:
    """What cannot be read as a right is none."""
    assert read_patterns(claim) == read


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (Publication(1, b"x"), ""),
        (Publication(1, b""), ""),
        (Publication(1, puts=(("a", ()),)), ""),
        (Publication(1, b"x", puts=(("a", ()),)), "bad_record"),
        (Publication(1, removes=("a",), update=True), "bad_record"),
        (Publication(1, removes=("",)), "bad_record"),
        (Publication(1, patches=(("x" * (ID_CHARS_MAX + 1), ()),)), "bad_record"),
        (Publication(1, removes=tuple(map(str, range(CHANGES_MAX)))), ""),
        (Publication(1, removes=tuple(map(str, range(CHANGES_MAX + 1)))), "too_big"),
    ],
)
def test_faults(said: Publication, fault: Fault) -> None:
    """A publication has a body or changes records, so many of them, and each has an id."""
    assert fault_of(said) == fault


def test_size() -> None:
    """Names count as UTF-8, as they are kept."""
    assert Publication(1, b"xyz").size == ENTRY_BYTES + 3
    assert Publication(1, puts=(("é", (("k", b"12"),)),), removes=("ab",)).size == ENTRY_BYTES + 2 + 3 + 2


def test_fold_reads_what_is_there() -> None:
    """A patch goes on from the record as it is, or as the same publication puts it."""
    said = Publication(
        1, puts=(("a", (("x", b"1"),)),), patches=(("a", (("y", b"2"),)), ("b", (("y", b"2"),))), removes=("c",)
    )
    known = {"a": (("old", b"0"),), "b": (("x", b"0"), ("y", b"0"))}
    assert fold(said, known.get) == {
        "a": (("x", b"1"), ("y", b"2")), "b": (("x", b"0"), ("y", b"2")), "c": None,
    }  # fmt: skip


def test_patch() -> None:
    """`null` removes a property; one that is set again stands last."""
    known = (("a", b"1"), ("b", b"2"))
    assert patched(known, (("a", b"null"), ("c", b"3"))) == (("b", b"2"), ("c", b"3"))
    assert patched(known, (("a", b"null"), ("a", b"4"))) == (("b", b"2"), ("a", b"4"))
    assert patched((), (("a", b"null"),)) == ()
    assert patched(known, properties_of({"b": {"z": None}})) == (("a", b"1"), ("b", b'{"z":null}'))


@pytest.mark.parametrize(
    ("received", "same", "recovered", "wipe"),
    [
        (10, True, True, False),
        (5, True, True, True),
        (4, True, False, True),
        (11, True, False, True),
        (10, False, False, True),
        (7, True, True, False),
    ],
)
def test_welcome(received: int, same: bool, recovered: bool, wipe: bool) -> None:
    """All or nothing: each publication that was missed, and each removal."""
    found = welcome(received, same=same, position=10, floor=5, horizon=7)
    assert (found.recovered, found.wipe) == (recovered, wipe)


def test_welcome_at_the_beginning() -> None:
    """A member of a room without a publication has missed none."""
    assert welcome(0, same=True, position=0, floor=0, horizon=0).recovered
    assert not welcome(0, same=False, position=0, floor=0, horizon=0).recovered


def test_holes() -> None:
    """A log with a hole is not dense."""
    entries = [Entry(position, "s_1", 0, Publication(position)) for position in (3, 4, 5)]
    assert is_dense(entries, 2, 5)
    assert not is_dense(entries[:1] + entries[2:], 2, 5)
    assert not is_dense(entries, 2, 6)
    assert is_dense([], 2, 2)


@pytest.mark.parametrize(
    ("after", "begun", "horizon", "whole"), [(0, 9, 9, True), (0, 9, 10, False), (5, 9, 5, True), (5, 9, 6, False)]
)
def test_picture(after: int, begun: int, horizon: int, whole: bool) -> None:
    """Pages are one picture unless a removal may have been forgotten between them."""
    assert is_picture(after, begun, horizon) == whole
