"""docs/testing.md and docs/contributing.md held to the tree: each file of signald has a row, and each name exists."""

import re

import pytest

from tests.docs.code import ROOT, SIGNALD

PAGE = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Where a file is tested")[2].partition("\n## ")[0]
ROWS = [
    (set(re.findall(r"`(signald[\w./]*)`", source)), set(re.findall(r"`(tests/[\w./]+)`", tests)))
    for source, tests in re.findall(r"^\| (`signald[^|]*) \| ([^|]+) \|$", TABLE, re.MULTILINE)
]
GUIDES = ("testing.md", "contributing.md")
FINE = ("service", "core", "store", "net", "sdk")
"""Packages whose nouns have rows of their own; the row of such a folder takes at most half of its files."""


def test_every_file_is_in_the_table() -> None:
    """Each Python and Lua file of signald/ stands in the table, or a folder above it does."""
    named = set().union(*(sources for sources, _ in ROWS))
    files = [path for path in SIGNALD.rglob("*") if path.suffix in (".py", ".lua") and path.stat().st_size]
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if not {one.relative_to(ROOT).as_posix() for one in (path, *path.parents[:-1]) if ROOT in one.parents} & named
    ]
    assert not missing


@pytest.mark.parametrize("package", FINE)
def test_most_nouns_have_a_row_of_their_own(package: str) -> None:
    """In the packages where a reader searches, most files stand in the table by name or by a folder of their own."""
    named = set().union(*(sources for sources, _ in ROWS)) - {f"signald/{package}"}
    files = [path for path in (SIGNALD / package).rglob("*.py") if path.name != "__init__.py"]
    told = [
        path
        for path in files
        if {one.relative_to(ROOT).as_posix() for one in (path, *path.parents[:-1]) if ROOT in one.parents} & named
    ]
    assert len(told) >= len(files) / 2


def test_everything_in_the_table_exists() -> None:
    """Each source and each test of the table is there, and each source has a test."""
    assert not [name for sources, tests in ROWS for name in sources | tests if not (ROOT / name).exists()]
    assert all(tests for _, tests in ROWS)


@pytest.mark.parametrize("guide", GUIDES)
def test_each_path_that_a_guide_names_exists(guide: str) -> None:
    """Each path below tests/, signald/, conf/ or k8s/ in a guide is there; T stands for any target."""
    page = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|signald|conf|k8s)/[\w./*]+)`", page)) - {"tests/fuzz/corpus/T/"}
    assert len(named) > 10
    assert not [name for name in named if not list(ROOT.glob(name))]


@pytest.mark.parametrize("guide", GUIDES)
def test_modules_that_are_to_be_run_can_be_run(guide: str) -> None:
    """Each `python -m tests.x` of a guide is a module, or a package with a main program."""
    page = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    for name in set(re.findall(r"python -m (tests[\w.]*)", page)):
        path = ROOT / name.rstrip(".").replace(".", "/")
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), name
