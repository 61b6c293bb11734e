"""docs/architecture.md held to the code: the drawings, every package, every wake-up."""

import re

from signald.store import base
from tests.docs.code import SIGNALD
from tests.docs.drawings import DRAWINGS, PAGE, drawn

PAGE_TEXT = PAGE.read_text(encoding="utf-8")


def section(heading: str) -> str:
    """The text below a heading of the page, up to the next heading of its rank or a higher one."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", PAGE_TEXT, re.MULTILINE)
    assert found is not None, heading
    rest = PAGE_TEXT[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def test_the_drawings_are_rendered() -> None:
    """Layers and packages are drawn from the code: `python -m tests.docs` renders them."""
    for name, draw in DRAWINGS.items():
        assert drawn(PAGE_TEXT, name) == draw(), f"{name} is stale: run python -m tests.docs"


def test_every_package_is_in_the_table() -> None:
    """Each package of signald/, and each module beside them, stands in the table of packages."""
    named = set(re.findall(r"`signald/([\w./]+)`", section("The packages")))
    there = {path.parent.name for path in SIGNALD.glob("*/__init__.py")} | {path.name for path in SIGNALD.glob("*.py")}
    assert there - named - {"__init__.py"} == set()
    assert named - there == set()


def test_every_wake_up_is_in_the_table() -> None:
    """The table of wake-ups has each byte that the store contract knows, and no other."""
    known = {value.decode() for name, value in vars(base).items() if name.startswith("WAKE_")}
    assert set(re.findall(r"^\| `(.)` \|", section("Wake-ups"), re.MULTILINE)) == known
