"""Text of parties made fit for a terminal: nothing in it moves the cursor, rings, begins a line or hides a word."""

import unicodedata
from typing import Any

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories that are shown as escapes: control characters (ESC, BEL, newline, C1), formats that reorder or hide their
neighbours, halves of a pair, private use, and separators that begin a line."""


def printable(text: str) -> str:
    r"""Return `text` with every character that is not shown as itself written as an escape, such as `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([_escaped(char) if unicodedata.category(char) in _UNSEEN else char for char in text])


def printable_values(value: Any) -> Any:
    """Return `value`, which came from JSON, with every text in it printable, the names of its keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_values(name): printable_values(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [printable_values(inner) for inner in value]
    return value


def _escaped(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
