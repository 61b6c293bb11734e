"""What docs/architecture.md has from the code: layers, packages, the states of a drain, the table of exits."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from signald.core.drain import drawing
from signald.core.exits import EXITS, Detail, Exit, Handover, Holding, StoreStep
from signald.wire.close_codes import CloseCode
from tests.docs.code import ROOT, imports, layers

PAGE = ROOT / "docs/architecture.md"

Graph = dict[str, set[str]]

BASE = "base modules"
"""The modules that stand below the packages: the lowest layer without `config`, which is a package."""


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected parts of more than one node, each sorted: the import circles."""
    reach: Graph = {}
    for node in graph:
        seen: set[str] = set()
        todo = [node]
        while todo:
            for target in graph[todo.pop()]:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        reach[node] = seen
    parts = {
        tuple(sorted(other for other in reach[node] if node in reach[other])) for node in graph if node in reach[node]
    }
    return [list(part) for part in sorted(parts)]


def levels(graph: Graph) -> list[list[str]]:
    """Return the nodes by level: those that import no other first. The nodes of a circle share a level, joined by "⇄"."""
    group = {node: node for node in graph}
    for part in circles(graph):
        group |= dict.fromkeys(part, " ⇄ ".join(part))
    joined: Graph = {name: set() for name in group.values()}
    for node, targets in graph.items():
        joined[group[node]] |= {group[target] for target in targets} - {group[node]}
    found: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(joined):
        level = sorted(node for node, targets in joined.items() if node not in placed and targets <= placed)
        found.append(level)
        placed |= set(level)
    return found


def reduced(graph: Graph) -> Graph:
    """Return `graph`, which has no circle, without each edge that a longer path implies."""

    def reach(node: str) -> set[str]:
        found: set[str] = set()
        for target in graph[node]:
            found |= {target} | reach(target)
        return found

    return {node: targets - {far for near in targets for far in reach(near)} for node, targets in graph.items()}


def package_of(module: str) -> str:
    """Return the node of the package graph for a module: its package, the module itself, or the base modules."""
    name = module.removeprefix("signald").removeprefix(".").partition(".")[0]
    base = {part.strip() for part in layers()[-1].split("|")} - {"config"}
    return BASE if name in base else name


def packages() -> Graph:
    """Return which package imports which. The root module imports nothing and is left out."""
    found: Graph = {}
    for module, targets in imports().items():
        name = package_of(module)
        if name:
            found.setdefault(name, set()).update(package_of(target) for target in targets)
    for name, targets in found.items():
        targets -= {name, ""}
    return found


def draw_packages() -> str:
    """Render the graph of packages: an arrow says "imports", and what a longer path implies is left out."""
    graph = packages()
    knots = circles(graph)
    assert not knots, f"packages import each other in a circle: {knots}"
    lines = ["```mermaid", "graph TD"]
    for node, targets in sorted(reduced(graph).items()):
        name = node.replace(" ", "_")
        label = f'{name}["{node}"]' if " " in node else name
        if not targets:
            lines.append(f"    {label}")
        lines += [f"    {label} --> {target.replace(' ', '_')}" for target in sorted(targets)]
    return "\n".join([*lines, "```"])


def draw_layers() -> str:
    """Render the layers: each imports the lower ones only, and those of one line not each other."""
    return "\n".join(["```", *layers(), "```"])


def draw_service() -> str:
    """Render the layers inside the service, as `draw_layers`."""
    return "\n".join(["```", *layers("signald.service"), "```"])


def draw_drain() -> str:
    """Render the machine of a drain: its states, and where each event leads."""
    return f"```\n{drawing()}\n```"


NOT_DONE = "-"


def draw_exits() -> str:
    """Render the table of exits: one row for each cause, one column for each kind of step."""
    columns: dict[str, Callable[[Exit], str]] = {
        "first": lambda row: _list({"settle": row.settles, "acks": row.stores_acks}),
        "detach": lambda row: _list({"✓": row.detaches}),
        "trail": lambda row: row.trail + (f": {row.detail.value}" if row.detail is not Detail.NONE else ""),
        "store": lambda row: row.store.value if row.store is not StoreStep.NOTHING else "",
        "address": lambda row: row.holding.value if row.holding is not Holding.UNCHANGED else "",
        "`session_ended`": lambda row: row.says,
        "then": lambda row: _list({"check": row.checks, "look": row.looks}),
        "forget if idle": lambda row: _list({"✓": row.if_idle}),
        "link over": lambda row: _list({"✓": row.ends_link}),
        "close": _close_of,
        "drain hears": lambda row: _list({"✓": row.tells_drain}),
        "handover": lambda row: row.handover.value if row.handover is not Handover.NEVER else "",
    }
    lines = [f"| cause | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    for cause, row in EXITS.items():
        cells = [draw(row) or NOT_DONE for draw in columns.values()]
        lines.append(f"| `{cause.name}` {cause.value} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _list(steps: Mapping[str, bool]) -> str:
    return ", ".join(step for step, done in steps.items() if done)


def _close_of(row: Exit) -> str:
    if isinstance(row.close, CloseCode):
        return str(int(row.close)) + (f" after `error` `{row.error[0]}`" if row.error else "")
    return row.close or ""


DRAWINGS = {
    "layers": draw_layers,
    "packages": draw_packages,
    "service": draw_service,
    "drain": draw_drain,
    "exits": draw_exits,
}


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- rendered: {name} (python -m tests.docs) -->\n", f"<!-- end: {name} -->"


def drawn(page: str, name: str) -> str:
    """Return the drawing `name` as it stands in `page`."""
    begin, end = _marks(name)
    return page.partition(begin)[2].partition(end)[0].rstrip("\n")


def render(path: Path = PAGE) -> None:
    """Write each drawing into the page, between its marks."""
    page = path.read_text()
    for name, draw in DRAWINGS.items():
        begin, end = _marks(name)
        before, found, rest = page.partition(begin)
        assert found, f"{path.name} has no mark for {name}"
        page = before + begin + draw() + "\n" + end + rest.partition(end)[2]
    path.write_text(page)
