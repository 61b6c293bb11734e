"""What waits for the store: openings go before messages, and what concerns one session keeps its order."""

from hypothesis import given
from hypothesis import strategies as st

from signald.store.base import Op, RoomOp, SessionOp
from signald.store.committer import ignore
from signald.store.lines import LATER_SHARE, Call, Item, Lines
from signald.store.registry.ops import DropNode, Forget, ListWorkers
from signald.store.room.ops import DropMembers, LookRoom, SetPresence, SweepRoom
from signald.store.session.ops import Ack, Append, Detach, EndSession, Look, Mark
from tests.store.ops import publication, publish


def _append(session: str) -> Append:
    return Append(session, "client", "n", 1, (), 0, 1, 1, 1, 0)


def _item(op: Op, call: Call | None = None) -> Item:
    return op, ignore, call


def _lines(*items: Item) -> Lines:
    lines = Lines()
    for item in items:
        lines.put(item)
    return lines


def _ops(items: list[Item]) -> list[Op]:
    return [op for op, _, _ in items]


def test_what_is_awaited_goes_ahead_of_messages_of_other_sessions() -> None:
    """An opening does not wait behind the messages of all other parties."""
    ahead = [_item(Look("s_9", "client", 0, 0), Call(1)), _item(ListWorkers(), Call(1)), _item(Forget("s_8"))]
    messages = [_item(_append(f"s_{number}")) for number in range(4)]
    lines = _lines(*messages, *ahead)
    assert lines.take(100) == ahead + messages
    assert not lines


def test_what_is_awaited_takes_along_what_its_session_has_in_line() -> None:
    """An append that was handed over before a claim, and the ack before that, reach the store before the claim."""
    other, append, ack = _item(_append("s_1")), _item(_append("s_2")), _item(Ack("s_2", "client", "n", 1, 1))
    claim = _item(EndSession("s_2", "n"), Call(1))
    lines = _lines(other, append, ack, claim)
    assert lines.take(3) == [append, ack, claim]
    assert lines.take(3) == [other]


def test_a_message_stays_behind_what_its_session_has_in_the_first_line() -> None:
    """What is handed over after a detach reaches the store after it, however many wait before both."""
    crowd = [_item(Forget(f"s_{number}")) for number in range(8)]
    detach, look, other = (
        _item(Detach("s_x", "client", "n", 1, 0)),
        _item(Look("s_x", "client", 0, 0)),
        _item(_append("s_y")),
    )
    lines = _lines(*crowd, detach, look, other)
    assert lines.take(4) == [*crowd[:3], other]
    assert lines.take(100) == [*crowd[3:], detach, look]
    late = _item(Look("s_x", "client", 0, 0))
    opening = _item(ListWorkers(), Call(1))
    lines.put(late)
    lines.put(opening)
    assert lines.take(100) == [opening, late], "nothing of the session is in the first line any more"


def test_a_crowd_that_opens_leaves_messages_their_share() -> None:
    """While both wait, every batch has messages; what they leave of their share goes to the others."""
    lines = _lines(*[_item(_append(f"s_{number}")) for number in range(3)])
    for number in range(20):
        lines.put(_item(Forget(f"s_{number}"), Call(1)))
    kinds = [[type(op) for op in _ops(lines.take(2 * LATER_SHARE))] for _ in range(4)]
    assert [some.count(Append) for some in kinds] == [2, 1, 0, 0]
    assert [some.count(Forget) for some in kinds] == [6, 7, 7, 0]


def test_what_nobody_waits_for_any_more_is_left_out() -> None:
    """A call that was given up does not go to the store, and its session's messages are none the later for it."""
    call = Call(1)
    given_up, kept = _item(EndSession("s_1", "n"), call), _item(_append("s_1"))
    lines = _lines(given_up, kept)
    call.given_up = True
    assert lines.take(1) == [kept]
    assert not len(lines)


def test_publications_go_behind_openings() -> None:
    """A room under load holds up no opening, not even that of a member of another room; its own members keep their order."""
    load = [_item(publish(publication(seq), room="room")) for seq in range(1, 5)]
    other = _item(publish(publication(), room="other"))
    presence, look = _item(SetPresence("room", "s_1", "n", 1, b"")), _item(LookRoom("room", 0, 0, 9, 0))
    opening, claim = _item(ListWorkers(), Call(1)), _item(Look("room", "client", 0, 0), Call(1))
    lines = _lines(*load, other, presence, opening, look, claim)
    assert lines.take(100) == [opening, claim, *load, presence, look, other]
    left = _item(DropMembers("room", "s_1", "n", 9, 0), Call(1))
    lines = _lines(*load, other, opening, left, presence)
    assert lines.take(7) == [opening, *load, left, other], "what the room has goes before the end of a member"
    assert lines.take(9) == [presence]


def test_a_room_that_is_full_of_publications_takes_turns() -> None:
    """However many publications of a room wait, each batch that it fills is followed by one that begins with the others."""
    load = [_item(publish(publication(seq), room="room")) for seq in range(1, 12)]
    others = [_item(_append("s_1")), _item(_append("s_2"))]
    lines = _lines(*load, *others)
    assert lines.take(4) == load[:4]
    more = _item(publish(publication(12), room="room"))
    lines.put(more)
    assert lines.take(4) == [*others, *load[4:6]]
    assert lines.take(100) == [*load[6:], more]


_SESSIONS = st.sampled_from(["s_1", "s_2", "s_3"])
_ROOMS = st.sampled_from(["s_1", "canvas:1"])
_STEPS = st.lists(
    st.one_of(
        st.integers(min_value=1, max_value=9),
        st.tuples(
            st.one_of(
                _SESSIONS.map(_append),
                _SESSIONS.map(lambda session: Mark(session, (), 1, 1, 0)),
                _SESSIONS.map(lambda session: Detach(session, "client", "n", 1, 0)),
                st.just(DropNode("n")),
                _ROOMS.map(lambda room: publish(publication(), room=room)),
                _ROOMS.map(lambda room: SweepRoom(room, 0)),
            ),
            st.booleans(),
        ),
    ),
    max_size=60,
)


@given(_STEPS)
def test_every_session_keeps_its_order(steps: list[int | tuple[Op, bool]]) -> None:
    """Whatever is handed over and taken in between, nothing is lost, no batch is too large, and each session keeps its order."""
    lines = Lines()
    put: list[Item] = []
    taken: list[Item] = []
    for step in steps:
        if isinstance(step, int):
            batch = lines.take(step)
            assert len(batch) == min(step, len(put) - len(taken))
            taken += batch
        else:
            op, awaited = step
            put.append(_item(op, Call(1) if awaited else None))
            lines.put(put[-1])
        assert len(lines) == len(put) - len(taken)
    while lines:
        taken += lines.take(2)
    for whose in ("s_1", "s_2", "s_3", "room s_1", "room canvas:1", ""):
        assert _of(whose, taken) == _of(whose, put)


def _of(whose: str, items: list[Item]) -> list[int]:
    """Which of `items` concern a session or a room, each by its identity; those of the registry concern `""`."""
    return [id(item) for item in items if _whose(item[0]) == whose]


def _whose(op: Op) -> str:
    match op:
        case SessionOp(session=session):
            return session
        case RoomOp(room=room):
            return f"room {room}"
        case _:
            return ""
