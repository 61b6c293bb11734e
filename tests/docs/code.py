"""The source of signald as facts for the pages: functions, the names that a file uses, imports, tasks."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SIGNALD = ROOT / "signald"

STARTERS = {"start_soon", "spawn", "_spawn", "start"}
"""Methods that begin a task. `start` counts where it is one of a nursery's: awaited, with a function as its argument."""


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each file, by its path below signald/."""
    return {path.relative_to(SIGNALD).as_posix(): ast.parse(path.read_text()) for path in SIGNALD.rglob("*.py")}


@cache
def functions(file: str) -> frozenset[str]:
    """Functions and classes of `file` by their qualified names: `Relay.accept`, `running`, `Relay`."""
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, prefix)

    visit(trees()[file], "")
    return frozenset(found)


@cache
def uses(file: str) -> frozenset[str]:
    """Every name that `file` uses outside the head of a definition: variables, attributes, imports."""
    found: set[str] = set()
    for node in ast.walk(trees()[file]):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
    return frozenset(found)


def is_used(function: str, file: str) -> bool:
    """Tell whether `file` uses `function`, whose class counts for its `__init__`."""
    *owner, name = function.split(".")
    return (owner[-1] if name == "__init__" else name) in uses(file)


def modules() -> dict[str, str]:
    """The dotted name of each module, and its file."""
    return {_dotted(file): file for file in trees()}


def _dotted(file: str) -> str:
    return ".".join(("signald", *file.removesuffix(".py").removesuffix("/__init__").split("/"))).removesuffix(
        ".__init__"
    )


def imports() -> dict[str, set[str]]:
    """The modules of signald that each module imports, those under TYPE_CHECKING and inside functions too."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, file in known.items():
        for node in ast.walk(trees()[file]):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
                found[name] |= parts
                if node.module in known and len(parts) < len(node.names):
                    found[name].add(node.module)
        found[name].discard(name)
    return found


def layers(container: str = "") -> list[str]:
    """The layers of import-linter's contract, the highest first, without the name of the root package.

    `container`: those inside this package.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = next(
        one
        for one in contracts
        if one["type"] == "layers" and one.get("containers", []) == ([container] if container else [])
    )
    return [" | ".join(part.strip().removeprefix("signald.") for part in one.split("|")) for one in layered["layers"]]


def tasks(*folders: str) -> Iterator[tuple[str, str]]:
    """Each function that is begun as a task in `folders` (a file or the start of its path): (file, name)."""
    for file, tree in trees().items():
        if file.startswith(folders):
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.args
                    and node.func.attr in STARTERS
                ):
                    yield from ((file, name) for name in _names(node.args[0], tree))


def _names(task: ast.expr, tree: ast.Module) -> Iterator[str]:
    """The names behind the first argument of a starter; nothing for a variable, whose value another call gives."""
    if isinstance(task, ast.Call) and isinstance(task.func, ast.Name) and task.func.id == "partial":
        task = task.args[0]
    if isinstance(task, ast.Attribute):
        yield task.attr
    elif isinstance(task, ast.Name):
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        if task.id in defined | imported:
            yield task.id
        yield from _listed(task.id, tree)


def _listed(name: str, tree: ast.Module) -> Iterator[str]:
    """The functions that the variable `name` of a loop takes, where the loop goes through a list that stands in the same file."""
    lists = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for loop in ast.walk(tree):
        if isinstance(loop, ast.For) and isinstance(loop.target, ast.Name) and loop.target.id == name:
            over = lists.get(loop.iter.id) if isinstance(loop.iter, ast.Name) else loop.iter
            if isinstance(over, ast.Tuple | ast.List):
                yield from (one.attr for one in over.elts if isinstance(one, ast.Attribute))
