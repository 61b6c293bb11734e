"""What a canvas is told and says, without a node: damage, other members, and the order of a chat."""

import json

from msgspec import Raw

from signald.core.rooms import Entry, Publication
from signald.dialects.canvas import chats, views
from signald.dialects.canvas.chats import CHATS_BYTES_MAX, CHATS_MAX, Kept
from signald.dialects.canvas.closing import close_code
from signald.dialects.canvas.views import Chat
from signald.wire.close_codes import CloseCode


def said(position: int, publication: Publication, at_ms: int = 5) -> Entry:
    """Return an entry of the log."""
    return Entry(position, "s_a", at_ms, publication)


def test_an_edit_and_back() -> None:
    """What a socket says of its keys is what the others are told; null is a removal."""
    publication = views.edit({"a": Raw(b'{"x": 1}'), "b": Raw(b"null"), "c": Raw(b'"null"')})
    assert publication.removes == ("b",)
    assert json.loads(views.told(said(3, publication))) == {
        "type": "canvas_update",
        "patch": {"a": {"x": 1}, "c": "null", "b": None},
        "from": "s_a",
        "version": 3,
    }


def test_damaged_bodies_and_records_are_not_shown() -> None:
    """What the store has damaged is no chat and no value; nothing of it ends a socket."""
    for body in (b"t", b't"kind":"chat"}', b't"kind":"chat","data":{', b"b\0\0", b"x"):
        assert views.told(said(1, Publication(0, body))) == b""
        assert not views.is_echoed(said(1, Publication(0, body)))
    state = {"a": b'{"value":1}', "b": b'{"value":null}', "c": b'{"x":1}', "d": b'{"val', "e": b"[]"}
    told = json.loads(views.restored(state, [], "s_a", 7))
    assert told["canvas_state"] == {"a": 1}


def test_a_chat_that_only_looks_like_one() -> None:
    """Data that has the words of a chat in it is none."""
    body = b't"kind":"other","data":{"kind":"chat","data":1}}'
    assert views.told(said(1, Publication(0, body))) == b""


def chat(position: int, at_ms: int, text: bytes = b'"x"') -> Chat:
    """Return a message."""
    return Chat(text, "s_a", at_ms, position)


def test_the_order_of_a_chat_over_epochs_and_nodes() -> None:
    """Copies come in any order; those of earlier lives of the room come first, and the log has what is not copied yet."""
    kept = Kept({
        ("new", 4): chat(4, 40), ("old", 9): chat(9, 20), ("old", 2): chat(2, 10), ("new", 1): chat(1, 41),
    })  # fmt: skip
    log = [
        said(4, views.chat(Raw(b'"x"')), 40),
        said(5, views.edit({"a": Raw(b"1")}), 50),
        said(6, views.chat(Raw(b'"y"')), 39),
    ]
    found, uncopied = kept.with_log("new", log)
    assert [(one.position, one.at_ms) for one in found] == [(2, 10), (9, 20), (1, 41), (4, 40), (6, 39)]
    assert uncopied == [log[2]]


def test_a_long_chat_is_told_by_its_end() -> None:
    """The bounds in messages and in bytes leave out the oldest; the last message is told whatever its size."""
    many = Kept({("e", n): chat(n, n) for n in range(1, CHATS_MAX + 11)})
    assert [one.position for one in many.with_log("e", [])[0]] == list(range(11, CHATS_MAX + 11))
    large = b'"' + b"x" * (CHATS_BYTES_MAX // 2) + b'"'
    assert [one.position for one in Kept({("e", n): chat(n, n, large) for n in (1, 2, 3)}).with_log("e", [])[0]] == [3]
    assert len(chats._last([chat(1, 1, b'"' + b"x" * 2 * CHATS_BYTES_MAX + b'"')])) == 1


def test_each_close_code_is_one_that_the_programs_know() -> None:
    """None of the private codes of signald.v1 is said by this wire itself, but what the carrier says of a dead or slow peer."""
    for code in CloseCode:
        assert close_code(code) < 4000 or code is CloseCode.SLOW_CONSUMER
    assert close_code(CloseCode.RESTARTING) == CloseCode.GOING_AWAY
