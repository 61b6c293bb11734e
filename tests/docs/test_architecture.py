"""docs/architecture.md held to the code: every hop of a way, every task of the nursery tree, every package, every wake-up."""

import re
from itertools import pairwise

import attrs
import pytest
import trio
import trio.testing

from signald.config import Config
from signald.ids import SeededEntropy
from signald.node import node_on
from signald.store import base
from signald.store.memory import MemoryWorld, open_memory
from tests.docs.code import SIGNALD, functions, is_used, tasks, trees
from tests.docs.drawings import DRAWINGS, PAGE, drawn

PAGE_TEXT = PAGE.read_text(encoding="utf-8")
PLACE = re.compile(r"`([\w/]+\.py):([\w.]+)`")
HOP = re.compile(
    r"^\d+\. `([\w/]+\.py):([\w.]+)`(?: \((task|callback|event|return), from `([\w/]+\.py)`\))?", re.MULTILINE
)
WAYS = {
    "The way of a message": 8,
    "The way of a publication": 5,
    "The way of an HTTP request": 6,
    "The way of an upload": 7,
    "The way of a SIGTERM": 8,
    "The way of a resume": 8,
    "The way of a config key": 6,
}
"""The ways of the page, and how many hops each has at least: a way of three hops would hide the others."""


def section(heading: str) -> str:
    """The text below a heading of the page, up to the next heading of its rank or a higher one."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", PAGE_TEXT, re.MULTILINE)
    assert found is not None, heading
    rest = PAGE_TEXT[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def hops(heading: str) -> list[tuple[str, str, str, str]]:
    """The hops of a way: file, function, how it is reached, and from which file ("" twice where the hop before calls it)."""
    return HOP.findall(section(heading))


@pytest.mark.parametrize("heading", WAYS)
def test_each_hop_of_a_way_exists(heading: str) -> None:
    """File and function of each hop, and of each function named beside it, are in the code; the hops are numbered in order."""
    text = section(heading)
    assert len(hops(heading)) >= WAYS[heading]
    numbers = re.findall(r"^(\d+)\. ", text, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(hops(heading)) + 1)]
    for file, function in PLACE.findall(text):
        assert file in trees(), f"{heading}: no file {file}"
        assert function in functions(file), f"{heading}: no {function} in {file}"


@pytest.mark.parametrize("heading", WAYS)
def test_each_hop_is_reached_from_the_one_before(heading: str) -> None:
    """The file of a hop uses the function of the next one; a task, callback or event names the file that hands it over."""
    way = hops(heading)
    for (before, *_), (file, function, _, given) in pairwise(way):
        source = given or before
        assert source in trees(), f"{heading}: no file {source}"
        assert is_used(function, source), f"{heading}: {source} does not use {file}:{function}"


@pytest.mark.parametrize("heading", WAYS)
def test_a_function_named_beside_a_hop_is_used_there(heading: str) -> None:
    """A hop's line may name functions that it asks and that return: the file of the hop uses them."""
    for line in re.split(r"^(?=\d+\. )", section(heading), flags=re.MULTILINE)[1:]:
        (file, _), *asked = PLACE.findall(line.partition("\n\n")[0])
        for other, function in asked:
            assert is_used(function, file), f"{heading}: {file} does not use {other}:{function}"


@pytest.mark.parametrize("heading", WAYS)
def test_a_way_jumps_back_once_at_most(heading: str) -> None:
    """A way goes down, and back at most once: by a return, or by a callback or event into a file that it has left."""
    back = []
    left: set[str] = set()
    before = ""
    for file, function, how, _ in hops(heading):
        if how == "return" or (file != before and file in left):
            back.append(function)
        left.add(before)
        before = file
    assert len(back) <= 1, back


def test_every_way_is_listed_here() -> None:
    """A way that the page adds is checked like the others."""
    assert set(re.findall(r"^#+ (The way of .*)$", PAGE_TEXT, re.MULTILINE)) == set(WAYS)


def test_the_drawings_are_rendered() -> None:
    """Layers, packages and the levels of the service are drawn from the code: `python -m tests.docs` renders them."""
    for name, draw in DRAWINGS.items():
        assert drawn(PAGE_TEXT, name) == draw(), f"{name} is stale: run python -m tests.docs"


def tree() -> dict[str, set[str]]:
    """The nursery tree of the page: the name of each nursery, and its tasks."""
    block = section("The nursery tree").split("```")[1]
    rows = re.findall(r"^[ │└]*([a-z]+)  [^{}]*?(?:\{([^}]*)\}|\w)", block, re.MULTILINE)
    return {name: set(re.findall(r"[\w.]+", named)) for name, named in rows}


def last(names: set[str]) -> set[str]:
    """The names without their classes."""
    return {name.rpartition(".")[2] for name in names}


def test_the_nursery_tree_is_complete() -> None:
    """Every function that a node begins as a task stands in the tree or among those that end by themselves, and no other."""
    begun = {
        name
        for _, name in tasks(
            "daemon.py", "node.py", "health.py", "sockets.py", "dialects/", "service/", "net/", "http/", "store/"
        )
    }
    table = section("Tasks that end by themselves")
    named = last(set().union(*tree().values()) | set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)))
    assert begun - named == set(), "begun as a task, and not in docs/architecture.md"
    assert named - begun == set(), "in docs/architecture.md, and never begun as a task"


async def test_the_nurseries_of_a_node_hold_the_tasks_of_the_tree(autojump_clock: trio.testing.MockClock) -> None:
    """A node on a memory store runs, in its nurseries, the tasks that the tree shows in that row: no more, no fewer."""
    config = attrs.evolve(Config(), node=attrs.evolve(Config().node, id="n1", release="1"))
    async with open_memory("memory:", "n1", world=MemoryWorld()) as store, node_on(store, config, SeededEntropy(1)):
        nurseries = trio.lowlevel.current_task().child_nurseries
        held = [{".".join(task.name.split(".")[-2:]) for task in nursery.child_tasks} for nursery in nurseries]
    assert tree()["storing"] in held
    assert tree()["keepers"] in held


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
