"""A TOML file together with the line of every key, which tomllib does not tell."""

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs

from signald.config.problems import ConfigError, Problem

# A configuration is a page of text; anything much larger is another file given by mistake.
FILE_BYTES_MAX = 1_048_576

_header = re.compile(r"\s*\[+\s*(?P<name>[^\]]+?)\s*\]+")
_assignment = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\"' \t-]+?)\s*=")


@attrs.frozen
class Document:
    """The values of a configuration file and where they stand."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]
    """Line, from 1, of `section` and of `section.key`."""

    def where(self, section: str, key: str = "") -> str:
        """Return `file:line` of a key, of its section when the key's line is not known, or the file."""
        line = self.lines.get(f"{section}.{key}") or self.lines.get(section)
        return f"{self.path}:{line}" if line else str(self.path)


def read_document(path: Path) -> Document:
    """Read a TOML file.

    Raises ConfigError when it cannot be read, is not UTF-8 or is not TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError([Problem(str(path), "", f"larger than {FILE_BYTES_MAX} bytes")])
        text = raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
        return Document(path, tomllib.loads(text), _lines(text))
    except OSError as error:
        raise ConfigError([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(f"{path}:{line}", "", "is not UTF-8 text")]) from None
    except (ValueError, RecursionError) as error:  # Python has a word on integers of thousands of digits
        raise ConfigError([_syntax_problem(path, str(error))]) from None


def _syntax_problem(path: Path, message: str) -> Problem:
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if at is None:
        return Problem(str(path), "", f"is not valid TOML: {message}")
    return Problem(f"{path}:{at[1]}:{at[2]}", "", f"is not valid TOML: {message[: at.start()]}")


def _lines(text: str) -> dict[str, int]:
    """Find the line of each section and key; the text is known to be valid TOML.

    A line inside a multi-line text that looks like an assignment is taken for one. That can only misplace the line
    number of a problem, and no key of signald needs such a text.
    """
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _header.match(line)
        name = (header or _assignment.match(line) or {"name": None})["name"]
        if name is None:
            continue
        plain = ".".join(part.strip().strip("\"'") for part in name.split("."))
        if header:
            section = plain
            lines.setdefault(section, number)
        else:
            lines.setdefault(f"{section}.{plain}" if section else plain, number)
    return lines
