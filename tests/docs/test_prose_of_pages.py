"""The prose rule in the pages: sentences name their subject, as docs/contributing.md asks."""

import re
from collections.abc import Iterator

from tests.docs.code import ROOT
from tests.test_prose import sentences

UNNAMED = re.compile(r"\b(who|whom|whoever|nobody|somebody|anybody|everybody)\b(?!-)", re.IGNORECASE)
"""The words of tests/test_prose.py; `nobody-lost` is the name of a promise."""

SHARE_MAX = 0.005
"""The part of all sentences of the pages that may hold such a word: the examples of the rule itself, and a few more."""


def prose(page: str) -> Iterator[str]:
    """The sentences of a page without its blocks and code; a cell of a table is a sentence."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    yield from sentences(re.sub(r"`[^`]*`", "X", text).replace("|", ". "))


def test_sentences_of_the_pages_name_their_subject() -> None:
    """Few sentences of the pages leave open which party they speak of; a failure lists them."""
    total, unnamed = 0, []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        found = list(prose(path.read_text(encoding="utf-8")))
        total += len(found)
        unnamed += [f"{path.name}: {sentence}" for sentence in found if UNNAMED.search(sentence)]
    assert len(unnamed) / total <= SHARE_MAX, unnamed


def test_what_is_scanned() -> None:
    """Prose and cells are scanned; blocks, code and names of promises are not."""
    page = "Who reads.\n```\nnobody\n```\n| a `whoever` | somebody |\nnobody-lost holds.\n"
    assert [bool(UNNAMED.search(sentence)) for sentence in prose(page)] == [True, True, False]
