"""The prose of docstrings, comments and pages, where a test can hold it: a noun of the field is the subject of each sentence.

A sentence about a client, a worker or a node names it. The words below stand for a party that the reader has to find first.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNNAMED = re.compile(r"\b(who|whom|whoever|nobody|somebody|anybody|everybody)\b(?!-)", re.IGNORECASE)

SHARE_MAX = {"signald": 0.005, "tests": 0.002, "docs": 0.002}
"""The part of all sentences that may hold such a word. Libraries that read well have 0.002 at most; a few sentences need one."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Every text that stands by itself, with its line: of modules, classes, functions, and below attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Every comment with its line; lines of nothing but comment continue the one above."""
    first, last, words = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("#: ")
        if line == last + 1 and token.line.lstrip().startswith("#"):
            words = f"{words} {text}"
        else:
            yield first, words
            first, words = line, text
        last = line
    yield first, words


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, split where one ends and at colons and semicolons."""
    for part in re.split(r"(?<=[.!?:;])\s", text):
        if re.search(r"[A-Za-z]{2}", part):
            yield " ".join(part.split())


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Every sentence of a source file, with the line on which its text begins."""
    for read in (docstrings, comments):
        for line, text in read(source):
            for sentence in sentences(text):
                yield line, sentence


def page(text: str) -> Iterator[tuple[int, str]]:
    """Every sentence of a page in Markdown outside of its examples, with its number in the page."""
    without_examples = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    parts = re.split(r"\n\s*\n|\||\n\s*[-*#\d]", without_examples)
    return enumerate(sentence for part in parts for sentence in sentences(part.lstrip("-*# ")))


def test_what_is_scanned() -> None:
    """Docstrings, attribute texts and comments are scanned, in sentences; other strings and names are not."""
    source = '''"""A module. Who reads it; nobody."""

whoever = "somebody"  # a comment
# of two lines

class C:
    field: int
    """Anybody: a number."""
'''
    assert list(prose(source)) == [
        (1, "A module."),
        (1, "Who reads it;"),
        (1, "nobody."),
        (8, "Anybody:"),
        (8, "a number."),
        (3, "a comment of two lines"),
    ]
    example = "# A page\n\n| a cell | another |\n\n```\nWho reads it?\n```\n- One. Two;\n  three."
    assert [text for _, text in page(example)] == ["A page", "a cell", "another", "One.", "Two;", "three."]


@pytest.mark.parametrize("package", SHARE_MAX)
def test_sentences_name_their_subject(package: str) -> None:
    """Few sentences leave open which party they speak of; a failure lists the files that have most of them."""
    total, by_file = 0, {}
    for path in sorted((ROOT / package).rglob("*.md" if package == "docs" else "*.py")):
        text = path.read_text(encoding="utf-8")
        found = list(page(text) if package == "docs" else prose(text))
        total += len(found)
        unnamed = [f"{line}: {sentence}" for line, sentence in found if UNNAMED.search(sentence)]
        if unnamed:
            by_file[str(path.relative_to(ROOT))] = unnamed
    count = sum(map(len, by_file.values()))
    worst = sorted(by_file.items(), key=lambda item: -len(item[1]))[:5]
    assert count / total <= SHARE_MAX[package], f"{count} of {total} sentences: {worst}"
