"""The Lua scripts of the store, put together from files and from what Python knows.

A script is one file, or several that follow each other. Its constants stand in Python alone: a word in capitals that the script was
given (`RETIRED_MAX`, `HEAD.up_last`) is replaced by its value when the script is put together, and so costs nothing when it runs.
`common.lua` goes before each script that is not on the hot path.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from signald.core.tokens import RETIRED_MAX
from signald.store.base import CLOCK_SET_MS

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

    def text(self, constants: Mapping[str, Value]) -> bytes:
        """Put the script together, with `constants` beside its own."""
        known = {
            name.encode(): literal(value).encode() for name, value in (*self.constants.items(), *constants.items())
        }
        source = b"".join([(Path(__file__).parent / name).read_bytes() for name in self.files])
        return _WORD.sub(lambda word: known.get(word[0], word[0]), source)


SCRIPTS: list[Lua] = []
"""All that were made; `redis_codecs.py` imports every aggregate and so knows them all."""


def hot(file: str, constants: Mapping[str, Value] | None = None) -> Lua:
    """Make a script of one file, with nothing before it: for what runs with each message."""
    SCRIPTS.append(Lua((file,), constants or {}))
    return SCRIPTS[-1]


def cold(*files: str, constants: Mapping[str, Value]) -> Lua:
    """Make a script of `common.lua` and `files`."""
    common: dict[str, Value] = {"RETIRED_MAX": RETIRED_MAX, "CLOCK_SET_MS": CLOCK_SET_MS}
    SCRIPTS.append(Lua(("common.lua", *files), {**common, **constants}))
    return SCRIPTS[-1]
