"""What a room keeps of a publication, and the frames and objects that are made of it."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.wire import records
from tests.wire.frames import read

KINDS = st.none() | st.sampled_from(["chat", "update", 'a "quoted" one'])
SESSIONS = st.none() | st.just("s_1")


def wanted(session: str | None, kind: str | None, seq: int) -> dict[str, object]:
    """What each `room_message` of these tests has beside its content."""
    fields: dict[str, object] = {"type": "room_message", "room": "r:1", "position": 7, "member": "s_2", "at_ms": 12}
    fields |= {"session": session} if session else {}
    fields |= {"kind": kind} if kind is not None else {}
    return fields | ({"seq": seq} if seq else {})


def placed(session: str | None, seq: int) -> bytes:
    """The beginning of it."""
    return records.placed(records.room_front("r:1", session), 7, "s_2", 12, seq)


@given(
    st.none() | st.integers() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    KINDS,
    SESSIONS,
    st.integers(0, 3),
)
def test_data_arrives_as_it_was_published(data: object, kind: str | None, session: str | None, seq: int) -> None:
    """With its kind and its place, and in a worker's frame the session."""
    body = records.publication_body(kind, json.dumps(data).encode(), None)
    is_text, payload = records.room_frame(placed(session, seq), body)
    assert is_text
    assert read(payload, is_text=True) == wanted(session, kind, seq) | {"data": data}
    assert records.room_object(placed(session, seq), body) == payload


@given(st.binary(max_size=20), KINDS, SESSIONS, st.integers(0, 3))
def test_bytes_arrive_in_a_binary_frame(data: bytes, kind: str | None, session: str | None, seq: int) -> None:
    """And in a list they are base64."""
    body = records.publication_body(kind, b"", data)
    is_text, payload = records.room_frame(placed(session, seq), body)
    assert not is_text
    assert read(payload, is_text=False) == wanted(session, kind, seq) | {"data": data}
    shown = json.loads(records.room_object(placed(session, seq), body))
    assert b64decode(shown.pop("data_b64")) == data
    assert shown == wanted(session, kind, seq)


@pytest.mark.parametrize("data", ['{"a":1,"at_ms":1700000000000}', '{"abcdef":1,"at_ms":1700000000000,"z":2}'])
def test_a_field_named_as_one_of_ours_stays(data: str) -> None:
    """A message of a session has the time of its arrival in its body, which is taken out; a publication has none."""
    _, payload = records.room_frame(placed(None, 0), records.publication_body(None, data.encode(), None))
    assert read(payload, is_text=True)["data"] == json.loads(data)


def test_changes_arrive_in_their_order() -> None:
    """With put, patch and remove, each only where there is one."""
    body = records.changes_body(
        (("a", (("x", b"1"), ("y", b"null"))), ("b", ())), (("c", (("z", b'"t"'),)),), ("d", "e")
    )
    _, payload = records.room_frame(placed(None, 0), body)
    changes = {"put": {"a": {"x": 1, "y": None}, "b": {}}, "patch": {"c": {"z": "t"}}, "remove": ["d", "e"]}
    assert read(payload, is_text=True) == wanted(None, None, 0) | changes
    _, payload = records.room_frame(placed(None, 0), records.changes_body((), (), ("d",)))
    assert read(payload, is_text=True) == wanted(None, None, 0) | {"remove": ["d"]}
