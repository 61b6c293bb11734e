"""The names of rooms: those of two tenants are never one, and parties see the name that they said."""

from hypothesis import given
from hypothesis import strategies as st

from signald.core.room_names import is_of_user, of_principal, room_of_user, shown_name, stored_name
from signald.core.rooms import is_room
from signald.core.wants import SEPARATOR

ROOMS = st.from_regex(r"[A-Za-z0-9_.:~-]{1,128}", fullmatch=True)
TENANTS = st.none() | st.text(max_size=200).filter(lambda text: SEPARATOR not in text)


@given(ROOMS, TENANTS, ROOMS, TENANTS)
def test_two_rooms_are_never_one(room: str, tenant: str | None, other: str, another: str | None) -> None:
    same = (room, tenant) == (other, another)
    assert (stored_name(room, tenant) == stored_name(other, another)) == same


@given(ROOMS, TENANTS)
def test_members_see_what_they_said(room: str, tenant: str | None) -> None:
    stored = stored_name(room, tenant)
    assert shown_name(stored) == room
    assert len(stored) <= 128 + 1 + 128
    assert stored.isascii()


def test_no_tenant_changes_nothing() -> None:
    assert stored_name("canvas:42", None) == of_principal("canvas:42", "ann") == "canvas:42"
    assert of_principal("canvas:42", f"acme{SEPARATOR}ann") == f"acme{SEPARATOR}canvas:42"
    assert stored_name("canvas:42", "") == f"{SEPARATOR}canvas:42", "the empty tenant is one"


@given(st.text(min_size=1, max_size=200).filter(lambda text: SEPARATOR not in text), TENANTS)
def test_the_room_of_a_user(subject: str, tenant: str | None) -> None:
    principal = subject if tenant is None else f"{tenant}{SEPARATOR}{subject}"
    room = room_of_user(principal)
    assert is_of_user(room)
    assert is_room(room)
    assert room == room_of_user(subject), "its tenant is not part of the name that it says"


def test_an_anonymous_user_has_none() -> None:
    assert room_of_user("") == ""
    assert room_of_user("ann@example.com") == "user:ann~40example.com"
    assert not is_of_user("users")
