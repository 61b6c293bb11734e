"""The import graph of signald has no circle, imports for the type checker and inside functions counted.

import-linter holds the order of the packages and of the parts of the service. It would not show a circle between two files
of the same layer.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import signald

ROOT = Path(signald.__file__).parent

KNOWN = frozenset(
    f"signald.service.{name}"
    for name in (
        "asking",
        "client_link",
        "client_opening",
        "departed",
        "endings",
        "holdings",
        "hub",
        "line",
        "losses",
        "opening",
        "opening_steps",
        "refusals",
        "relay",
        "retries",
        "trail",
        "worker_link",
        "worker_opening",
        "workers",
    )
)
"""Modules of circles that are still to be cut. It only ever shrinks."""


def modules(root: Path) -> dict[str, ast.Module]:
    """Each module of the package in `root`, parsed."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module, known: Mapping[str, object]) -> Iterator[str]:
    """The modules among `known` that `tree` imports anywhere: also for the type checker, and inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known or node.module in known:
                    yield name if name in known else str(node.module)


def graph(parsed: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Module → the modules it imports."""
    return {name: set(imported(tree, parsed)) - {name} for name, tree in parsed.items()}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(edges[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1:
                found.append(sorted(component))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def test_no_circle() -> None:
    """No module imports itself by way of others, but for circles that are known; those are not larger than they are said to be."""
    found = {name for circle in circles(graph(modules(ROOT))) for name in circle}
    assert found == KNOWN


def test_a_circle_is_found() -> None:
    """Imports for the type checker, inside functions and from packages all close a circle; what leads nowhere back is not of it."""
    parsed = {
        name: ast.parse(text)
        for name, text in {
            "signald.a": "from signald import b\nimport trio",
            "signald.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from signald.c import thing",
            "signald.c": "def f():\n    import signald.a",
            "signald.d": "from signald.a import x",
        }.items()
    }
    assert circles(graph(parsed)) == [["signald.a", "signald.b", "signald.c"]]
