"""Events as they are stored, and what of them must stay the same for each attempt."""

from msgspec import msgpack
from msgspec.structs import replace

from signald.core.life import EVENTS_KEEP_MAX_MS, EVENTS_LEFT_MS, Event, webhook_id
from signald.store.base import CLOCK_SET_MS


def test_an_event_comes_back_as_it_was() -> None:
    """It is a list, to whose end a later release may add, and its fields keep their order: each attempt has the same bytes."""
    event = Event(3, "session.paired", 5, {"worker": "w_1", "dropped": 2, "a": "b"})
    packed = msgpack.encode(event)
    assert packed == msgpack.encode([3, "session.paired", 5, {"worker": "w_1", "dropped": 2, "a": "b"}])
    again = msgpack.decode(msgpack.encode([*msgpack.decode(packed), "later"]), type=Event)
    assert again == event
    assert list(again.fields) == list(event.fields)


def test_each_event_has_an_id_of_its_own() -> None:
    """By which its receiver knows it again. Another event that a store which has lost one numbers alike is not taken for it."""
    event = Event(12, "session.away", 5, {})
    ids = [
        webhook_id("s_1", event),
        webhook_id("s_11", replace(event, n=2)),
        webhook_id("s_1", replace(event, at_ms=6)),
    ]
    assert ids == ["msg_s_1_12_5", "msg_s_11_2_5", "msg_s_1_12_6"]


def test_the_store_outlives_the_delivery() -> None:
    """A queue is kept for longer than the last attempt of a day, by more than the clocks of two nodes differ."""
    assert EVENTS_LEFT_MS > EVENTS_KEEP_MAX_MS + CLOCK_SET_MS
