"""The Lua scripts of the store, put together from files and from what Python knows.

A script is one file, or several that follow each other. Its constants stand in Python alone: a word in capitals that the script was
given (`RETIRED_MAX`, `HEAD.up_last`) is replaced by its value when the script is put together, and so costs nothing when it runs.
`common.lua` goes before each script that is not on the hot path. Such a script is one operation, with the functions that it reaches: a
call of a script makes all its functions anew, and all those of an aggregate would take longer than most operations do.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from signald.core.tokens import RETIRED_MAX
from signald.store.base import CLOCK_SET_MS

_COMMENT = re.compile(rb"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|--[^\n]*""")
_PART = re.compile(rb"^(?=[a-zA-Z_])(?!end\b)", re.MULTILINE)
_NAMES = re.compile(rb"(?:local function |function )([\w.]+)|local ([\w, ]+)|(\w+) = ")
_OPERATION = re.compile(rb"^function operation\.(\w+)", re.MULTILINE)
_REFERENCE = re.compile(rb"operation\.\w+|\w+")

_WORD = re.compile(rb"\b[A-Z][A-Z0-9_]*(?:\.[a-z_]+)?\b")


class Raw(str):
    """A piece of Lua as it is to stand in a script."""

    __slots__ = ()


Value = int | float | str | tuple[str, ...]


def literal(value: Value) -> str:
    """Return `value` as Lua writes it. A text has no quotes, backslashes or line ends of its own."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        assert not set(value) & set("'\\\n"), value
        return f"'{value}'"
    if isinstance(value, tuple):
        return "{" + ", ".join(literal(each) for each in value) + "}"
    return repr(value)


@frozen(eq=False)
class Lua:
    """One script: the files that it is made of, below this directory, and its constants by name."""

    files: tuple[str, ...]
    constants: Mapping[str, Value]
    operation: str = ""
    """Of the functions only those that this operation reaches; empty: all."""

    def text(self, constants: Mapping[str, Value]) -> bytes:
        """Put the script together, with `constants` beside its own."""
        known = {
            name.encode(): literal(value).encode() for name, value in (*self.constants.items(), *constants.items())
        }
        source = _source(self.files)
        if self.operation:
            source = reached(source, self.operation.encode())
        return _WORD.sub(lambda word: known.get(word[0], word[0]), source)


def _source(files: tuple[str, ...]) -> bytes:
    return b"".join([(Path(__file__).parent / name).read_bytes() for name in files])


def reached(source: bytes, operation: bytes) -> bytes:
    """Return what `operation` reaches of `source`, in its order and without comments.

    Each statement of the outermost level begins a line, and defines names or is the `return` at the end. A name in a text or of a
    parameter keeps a function that is not needed, which costs its making and changes nothing.
    """
    parts = [part for part in _PART.split(_COMMENT.sub(rb"\1", source)) if part.strip()]
    defining: dict[bytes, list[int]] = {}
    for number, part in enumerate(parts):
        found = _NAMES.match(part)
        for name in (found[1] or found[2] or found[3]).split(b",") if found else ():
            defining.setdefault(name.strip(), []).append(number)
    wanted = {len(parts) - 1}
    open_parts = [*defining[b"operation." + operation], len(parts) - 1]
    while open_parts:
        number = open_parts.pop()
        wanted.add(number)
        named = {each for name in _REFERENCE.findall(parts[number]) for each in defining.get(name, ())}
        open_parts.extend(named - wanted)
    return b"".join([part.rstrip() + b"\n" for number, part in enumerate(parts) if number in wanted])


@frozen(eq=False)
class Steps:
    """The scripts of an aggregate: one for each operation in its files."""

    scripts: Mapping[str, Lua]

    def of(self, operation: str) -> Lua:
        """Return the script of `operation`."""
        return self.scripts[operation]


SCRIPTS: list[Lua] = []
"""All that were made; `redis_codecs.py` imports every aggregate and so knows them all."""


def hot(file: str, constants: Mapping[str, Value] | None = None) -> Lua:
    """Make a script of one file, with nothing before it: for what runs with each message."""
    SCRIPTS.append(Lua((file,), constants or {}))
    return SCRIPTS[-1]


def cold(*files: str, constants: Mapping[str, Value]) -> Steps:
    """Make a script for each operation in `common.lua` and `files`."""
    common: dict[str, Value] = {"RETIRED_MAX": RETIRED_MAX, "CLOCK_SET_MS": CLOCK_SET_MS}
    whole = ("common.lua", *files)
    names = [name.decode() for name in _OPERATION.findall(_source(whole))]
    steps = Steps({name: Lua(whole, {**common, **constants}, name) for name in names})
    SCRIPTS.extend(steps.scripts.values())
    return steps
