"""The Lua scripts of the store, put together from files and from what Python knows.

A script is one file, or several that follow each other. Its constants stand in Python alone: a word in capitals that the script was
given (`RETIRED_MAX`, `HEAD.up_last`) is replaced by its value when the script is put together, and so costs nothing when it runs.
`common.lua` goes before each script that is not on the hot path. Such a script is one operation, with the functions that it reaches: a
call of a script makes all its functions anew, and all those of an aggregate would take longer than most operations do.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
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
class Source:
    """The files that scripts are made of, below this directory, and their constants by name."""

    files: tuple[str, ...]
    constants: Mapping[str, Value]

    def text(self, constants: Mapping[str, Value]) -> bytes:
        """Put the files together, with `constants` beside their own."""
        known = {
            name.encode(): literal(value).encode() for name, value in (*self.constants.items(), *constants.items())
        }
        return _WORD.sub(lambda word: known.get(word[0], word[0]), self.raw())

    def raw(self) -> bytes:
        """Return the files without their constants."""
        return b"".join([(Path(__file__).parent / name).read_bytes() for name in self.files])


class Parts:
    """The statements of the outermost level of a source, and what each of them needs of the others.

    Each of them begins a line, and defines names or is the `return` at the end. Comments are gone.
    """

    def __init__(self, source: bytes) -> None:
        self._parts = [part.rstrip() for part in _PART.split(_COMMENT.sub(rb"\1", source)) if part.strip()]
        self._defining: dict[bytes, list[int]] = {}
        for number, part in enumerate(self._parts):
            found = _NAMES.match(part)
            for name in (found[1] or found[2] or found[3]).split(b",") if found else ():
                self._defining.setdefault(name.strip(), []).append(number)
        self._needs = [
            {each for name in _REFERENCE.findall(part) for each in self._defining.get(name, ())} for part in self._parts
        ]

    def reached(self, operation: str) -> bytes:
        """Return what `operation` reaches, in its order.

        A name in a text or of a parameter keeps a function that is not needed, which costs its making and changes nothing.
        """
        wanted = {len(self._parts) - 1, *self._defining[b"operation." + operation.encode()]}
        left = list(wanted)
        while left:
            new = self._needs[left.pop()] - wanted
            wanted |= new
            left.extend(new)
        return b"".join([part + b"\n" for number, part in enumerate(self._parts) if number in wanted])


@lru_cache(8)
def _parts(source: Source, constants: tuple[tuple[str, Value], ...]) -> Parts:
    # Dozens of scripts are made of one source, one after the other.
    return Parts(source.text(dict(constants)))


@frozen(eq=False)
class Lua:
    """One script."""

    source: Source
    operation: str = ""
    """It holds what this operation reaches; empty: all."""

    def text(self, constants: Mapping[str, Value]) -> bytes:
        """Put the script together, with `constants` beside those of its source."""
        if not self.operation:
            return self.source.text(constants)
        return _parts(self.source, tuple(constants.items())).reached(self.operation)


SCRIPTS: list[Lua] = []
"""All that were made; `redis_codecs.py` imports every aggregate and so knows them all."""


def hot(file: str, constants: Mapping[str, Value] | None = None) -> Lua:
    """Make a script of one file, with nothing before it: for what runs with each message."""
    SCRIPTS.append(Lua(Source((file,), constants or {})))
    return SCRIPTS[-1]


def cold(*files: str, constants: Mapping[str, Value]) -> Mapping[str, Lua]:
    """Make a script for each operation in `common.lua` and `files`; return them by operation."""
    common: dict[str, Value] = {"RETIRED_MAX": RETIRED_MAX, "CLOCK_SET_MS": CLOCK_SET_MS}
    source = Source(("common.lua", *files), {**common, **constants})
    scripts = {name.decode(): Lua(source, name.decode()) for name in _OPERATION.findall(source.raw())}
    SCRIPTS.extend(scripts.values())
    return scripts
