"""Each operation declares itself once, and is known wherever a store needs it; and what the scripts have from Python."""

import re
from copy import deepcopy

import pytest
from msgspec import structs

from signald.core.failures import Failures
from signald.core.head import Head
from signald.store.base import Op, RoomOp, SessionOp, ShelfOp
from signald.store.lua import SCRIPTS, Lua, Parts, Raw, literal
from signald.store.memory import MemoryRows
from signald.store.redis_codecs import CODECS, scripts
from signald.store.redis_keys import DEFAULT, Keyspace
from signald.store.redis_reseal import OPERATIONS
from signald.store.registry.packing import Check
from signald.store.rows import Wakes
from signald.store.rules import RULES, apply
from signald.store.session.head import FIELDS, Field, read_head, write_head
from signald.store.session.ops import Reseed, Unpair, UnpairFailed
from tests.store.ops import SESSION, head
from tests.store.test_plans import BEGINNING, Draft, Kitchen

CAPITALS = re.compile(r"\b[A-Z][A-Z0-9_]+\b(?:\.[a-z_]+)?")


def operations(kind: type[Op] = Op) -> set[type[Op]]:
    """Return every operation that an aggregate declares."""
    found = {kind} if re.fullmatch(r"signald\.store\.[\w.]+\.ops", kind.__module__) else set()
    return found.union(*[operations(each) for each in kind.__subclasses__()])


def code(script: bytes) -> str:
    """Return a script without its comments and the texts in it."""
    return re.sub(r"'(?:\\.|[^'\\\n])*'", "''", re.sub(r"--[^\n]*", "", script.decode()))


def test_every_operation_is_known_everywhere() -> None:
    """There is a rule and a codec for each operation that an aggregate declares, and for nothing else but those of Redis alone."""
    assert len(operations()) >= 50
    assert operations() == set(RULES) == set(CODECS) - {Check} - OPERATIONS


def test_damage_has_an_answer() -> None:
    """An operation on a session, shelf or room says what it answers when nothing can be read; `Reseed` alone begins the record anew."""
    assert {
        kind for kind in operations() if issubclass(kind, SessionOp | ShelfOp | RoomOp) and kind.damaged is None
    } == {Reseed}


def test_traits_are_inherited() -> None:
    """An operation that is another one and more has its traits."""
    assert UnpairFailed.damaged == Unpair.damaged is not None


def test_later_is_for_sessions_and_rooms() -> None:
    """Only an operation on one session or room may go behind others: the order of all others is kept."""
    assert all(issubclass(kind, SessionOp | RoomOp) for kind in operations() if kind.later)


def test_what_only_reads_changes_nothing() -> None:
    """An operation that declares that it only reads leaves every row as it was, and wakes no node."""
    kitchen = Kitchen(MemoryRows())
    for draft in (*BEGINNING, Draft("append", 0, 0, "a", 2, 0, True), Draft("mark", 0, 0, "a", 2, 0, False)):
        apply(kitchen.cook(draft), kitchen.rows, Wakes())
    read = set()
    for recipe in Kitchen.recipes():
        op = kitchen.cook(Draft(recipe, 0, 0, "a", 2, 2, True))
        if op.reads:
            read.add(type(op))
            before, wakes = deepcopy(vars(kitchen.rows)), Wakes()
            apply(op, kitchen.rows, wakes)
            assert (vars(kitchen.rows), wakes.sent) == (before, []), op
    assert read == {kind for kind in operations() if kind.reads}


@pytest.mark.parametrize("lua", SCRIPTS, ids=lambda lua: lua.operation or lua.source.files[-1])
def test_scripts_are_whole(lua: Lua) -> None:
    """Each word in capitals of a script is its own or was put in from Python, and nothing is put in that it does not use."""
    left = set(CAPITALS.findall(code(DEFAULT.script(lua).text)))
    declared = re.findall(r"local ([A-Z][A-Z0-9_, \n]*)", code(DEFAULT.script(lua).text))
    assert left == {"KEYS", "ARGV"} & left | {name for names in declared for name in re.findall(r"\w+", names)}
    unused = set(lua.source.constants) - set(CAPITALS.findall(code(lua.source.raw())))
    assert all(
        name.startswith(("HEAD", "JOB", "STREAM.", "QUEUE.", "ITEM.", "ROOM.", "SEAT.", "BOUND.", "SAID."))
        for name in unused
    ), unused


def test_a_script_has_what_its_operation_reaches() -> None:
    """The functions and names that an operation uses, also through others, in their order; comments are gone, texts are whole."""
    parts = Parts(b"""-- Of two operations.
local operation = {}
local A, B = 1, 2 -- two
local later
local function used(x)
  return x .. '-- no comment'
end
local function unused()
  return B
end
later = function()
  return used('a')
end
function operation.one()
  return later()
end
function operation.two()
  return A
end
return operation[ARGV[1]]()
""")
    whole = [b"local operation = {}", b"return operation[ARGV[1]]()"]
    assert [part in parts.reached("two") for part in whole] == [True, True]
    assert b"local A, B = 1, 2\n" in parts.reached("two")
    assert not {b"used", b"later", b"one"} & set(re.findall(rb"\w+", parts.reached("two")))
    one = parts.reached("one")
    assert b"-- no comment" in one
    assert b"two" not in one
    assert (
        one.index(b"local later")
        < one.index(b"local function used")
        < one.index(b"later = function")
        < one.index(b"operation.one")
    )
    assert b"A, B" not in one
    assert b"unused" not in one


def test_scripts_know_their_store() -> None:
    """The names of another store are in its scripts, and those of the default store are not."""
    other = scripts(Keyspace("px", 3))
    assert any(b"'px:node@3:'" in script.text for script in other)
    assert not any(b"'signald:node" in script.text for script in other)


def test_literals() -> None:
    """A constant of Python is the same value in Lua; a text that Lua would read otherwise is refused."""
    assert [literal(value) for value in (8, 0.05, "a b", ("a", "b"), Raw("KEYS[1]"))] == [
        "8", "0.05", "'a b'", "{'a', 'b'}", "KEYS[1]",
    ]  # fmt: skip
    with pytest.raises(AssertionError):
        literal("it's")


def _kept(of: Head) -> list[bytes | None]:
    return [word if isinstance(word, bytes) else str(word).encode() for word in write_head(of)]


def test_a_head_comes_back_as_it_was() -> None:
    """What is written of a head is read as the same head."""
    known = structs.replace(
        head(
            worker="w_1", worker_state="paired", worker_epoch=3, worker_node="b", up_last=9, down_last=7, receipts=True
        ),
        up_claimed=(3, 4),
        failed=Failures(2, 1, 5, True),
        pair=False,
        events=12,
        events_max=1000,
        settings=b'{"tier":"gold"}',
        rooms=b'{"r":["join"]}',
        asked_until_ms=7,
    )
    assert read_head(SESSION, _kept(known)) == known


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_absent_field(field: Field) -> None:
    """A field that a later release has added means something where it is absent; without any other one the head is damaged."""
    place = FIELDS.index(field)
    kept = _kept(head(down_last=7))
    kept[place] = None
    meanings = {
        "said_before": 7,
        "up_claimed": (0, 0),
        "down_claimed": (0, 0),
        "failed": Failures(),
        "pair": True,
        "jobs": 0,
        "streams": 0,
        "events": 0,
        "events_max": 0,
        "settings": b"",
        "rooms": b"",
        "asked_until_ms": 0,
    }
    if FIELDS[place].name in meanings:
        assert getattr(read_head(SESSION, kept), FIELDS[place].name) == meanings[FIELDS[place].name]
    else:
        with pytest.raises((ValueError, TypeError, AttributeError)):
            read_head(SESSION, kept)
