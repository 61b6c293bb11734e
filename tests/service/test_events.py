"""Life events: what subscribers may rely on, and what an emitting part may."""

import attrs
import structlog.testing

from signald.service import events
from signald.service.events import Accepted, Assigned, Events


def test_subscribers_are_told_in_order_and_of_their_kind_only() -> None:
    """Each subscriber gets every event of its kind, in the order of subscription, and no other."""
    told: list[str] = []
    life = Events()
    life.subscribe(Accepted, lambda event: told.append(f"first {event.session}"))
    life.subscribe(Accepted, lambda event: told.append(f"second {event.session}"))
    life.subscribe(Assigned, lambda event: told.append(f"assigned {event.session}"))
    life.emit(Accepted("s_1", "w_1"))
    assert told == ["first s_1", "second s_1"]


def test_an_exception_of_one_subscriber_harms_no_other() -> None:
    """What a subscriber raises is logged; the others are told, and the emitting part goes on."""
    told: list[str] = []
    life = Events()

    def fails(_: Accepted) -> None:
        raise LookupError("an error of a hook")

    life.subscribe(Accepted, fails)
    life.subscribe(Accepted, lambda event: told.append(event.session))
    with structlog.testing.capture_logs() as lines:
        life.emit(Accepted("s_1", "w_1"))
    assert told == ["s_1"]
    assert [(line["event"], line["life_event"]) for line in lines] == [("subscriber_failed", "Accepted")]


def test_a_subscription_ends() -> None:
    """After `unsubscribe` nothing is told, also when a subscriber ends its own subscription while it is told."""
    told: list[str] = []
    life = Events()

    def once(event: Accepted) -> None:
        told.append(event.session)
        life.unsubscribe(Accepted, once)

    life.subscribe(Accepted, once)
    life.subscribe(Accepted, lambda event: told.append(f"{event.session} as well"))
    life.emit(Accepted("s_1", "w_1"))
    life.emit(Accepted("s_2", "w_1"))
    assert told == ["s_1", "s_1 as well", "s_2 as well"]
    life.unsubscribe(Accepted, once)


def test_an_event_holds_plain_values_only() -> None:
    """An event may be kept, compared or sent: it cannot change, and no field of it is an object of the node."""
    for kind in events.LifeEvent.__args__:
        assert kind.__setattr__ is not object.__setattr__, kind
        for field in attrs.fields(attrs.resolve_types(kind)):
            text = str(field.type)
            assert not any(word in text for word in ("Session[", "Link", "Connection", "Hub")), (kind, field.name)
