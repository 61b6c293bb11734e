"""The reference of the SDK, docs/reference/*.md, from signatures and docstrings. `python -m tests.docs` writes it, a test compares.

A page shows what an application may use: names that `signald.sdk.front.names` lists, and of classes what has no underscore. Signatures are
those of the source, so an annotation reads as its author wrote it.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from attrs import frozen

from signald.sdk import errors, events
from signald.sdk.front import names
from tests.docs.code import ROOT, SIGNALD, trees

FOLDER = ROOT / "docs" / "reference"
HINT = "<!-- Made from the docstrings by `python -m tests.docs`. -->"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen
class Page:
    """A page of the reference: its file, title, first words, and the objects on it by name."""

    file: str
    title: str
    about: str
    objects: dict[str, Any]


# --- what there is ------------------------------------------------------------------------------------------------


def pages() -> list[Page]:
    """The pages of the reference, in the order of the index."""
    said = {name: getattr(names, name) for name in names.__all__}
    of_events = {name: one for name, one in said.items() if name in vars(events) or name in _room_events()}
    of_errors = {
        name: one for name, one in said.items() if name in vars(errors) or name in ("DialFailed", "CarrierClosed")
    }
    rest = {name: one for name, one in said.items() if name not in of_events and name not in of_errors}
    run = importlib.import_module("signald.sdk.asyncio_run").run
    testing = importlib.import_module("signald.testing")
    public = {name: getattr(testing, name) for name in getattr(testing, "__all__", ())}
    found = [
        Page(
            "sdk.md",
            "The SDK",
            "What `signald.sdk.trio` and `signald.sdk.asyncio` both give.",
            _functions_first({"run": run, **rest}),
        ),
        Page(
            "events.md", "Events", "What `client.events`, `worker.events` and a room yield; all are frozen.", of_events
        ),
        Page("errors.md", "Errors", "All are imported from `signald.sdk.trio` or `signald.sdk.asyncio`.", of_errors),
    ]
    if public:
        # What comes behind the example is the table of contents for readers of the code.
        about, block, _ = _prose(testing.__doc__).rpartition("\n```\n")
        found.append(Page("testing.md", "signald.testing", (about + block).strip(), public))
    return found


def _functions_first(objects: dict[str, Any]) -> dict[str, Any]:
    """Programs begin with a function."""
    return dict(sorted(objects.items(), key=lambda pair: not inspect.isfunction(pair[1])))


def _room_events() -> dict[str, Any]:
    module = importlib.import_module("signald.sdk.room_events")
    return {name: one for name, one in vars(module).items() if getattr(one, "__module__", "") == module.__name__}


# --- how it is shown ----------------------------------------------------------------------------------------------


def render() -> dict[str, str]:
    """The text of each file of docs/reference."""
    shown = {page.file: _page(page) for page in pages()}
    index = [
        HINT,
        "# Reference",
        "The public names of the SDK, from their docstrings. [sdk.md](../sdk.md) explains how they are used.",
    ]
    rows = ["| page | names |", "|---|---|"]
    for page in pages():
        links = ", ".join(f"[`{name}`]({page.file}#{name.lower()})" for name in page.objects)
        rows.append(f"| [{page.title}]({page.file}) | {links} |")
    shown["README.md"] = "\n\n".join([*index, "\n".join(rows)]) + "\n"
    return shown


def _page(page: Page) -> str:
    parts = [HINT, f"# {page.title}", page.about]
    for name, one in page.objects.items():
        parts.append(f"## {name}")
        parts += (
            _class(one) if inspect.isclass(one) else _function(one) if inspect.isfunction(one) else _alias(name, one)
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def _function(one: Any) -> Iterator[str]:
    node = _node(inspect.unwrap(one))
    yield _code(_signature(node))
    yield _prose(ast.get_docstring(node))


def _class(one: type) -> Iterator[str]:
    own = _class_node(one)
    made = next((node for node in own.body if isinstance(node, Function) and node.name == "__init__"), None)
    fields = list(_fields(own))
    if issubclass(one, Exception):
        yield _code(f"class {one.__name__}({', '.join(base.__name__ for base in one.__bases__)})")
    elif fields:
        yield _code(f"{one.__name__}({', '.join(_field(node) for node, _ in fields)})")
    else:
        yield _code(f"class {one.__name__}")
    yield _prose(ast.get_docstring(own))
    told = [(node.target.id, text) for node, text in fields if isinstance(node.target, ast.Name) and text]
    told += list(_attributes(made, all_of=issubclass(one, Exception))) if made is not None else []
    inherited = [node for base in one.__mro__[1:] if _is_ours(base) for node in _class_node(base).body]
    members: dict[str, Function] = {}
    for node in [*own.body, *inherited]:
        if isinstance(node, Function) and (not node.name.startswith("_") or node.name == "__aiter__"):
            members.setdefault(node.name, node)
    for base in one.__mro__[1:]:
        if _is_ours(base):
            for node in _class_node(base).body:
                if isinstance(node, Function) and node.name == "__init__":
                    told += [pair for pair in _attributes(node) if pair[0] not in dict(told)]
    told += [(name, _prose(ast.get_docstring(node))) for name, node in members.items() if _is_property(node)]
    if told:
        rows = [f"| `{name}` | {_cell(text)} |" for name, text in told]
        yield "\n".join(["| attribute | meaning |", "|---|---|", *rows])
    for name, node in members.items():
        if not _is_property(node) and ast.get_docstring(node):
            yield f"### {one.__name__}.{name}"
            yield _code(_signature(node))
            yield _prose(ast.get_docstring(node))


def _alias(name: str, one: Any) -> Iterator[str]:
    """A name for a type: what it stands for, and the text below it."""
    for tree in (tree for file, tree in trees().items() if file.startswith(("sdk/", "testing/"))):
        for before, node in zip(tree.body, [*tree.body[1:], None], strict=True):
            named = before.targets if isinstance(before, ast.Assign) else []
            named += [before.target] if isinstance(before, ast.AnnAssign) else []
            if [ast.unparse(target) for target in named] == [name]:
                yield _code(ast.unparse(before))
                yield _prose(_text(node))
                return
    raise LookupError(f"{name} ({one!r}) is neither class nor function, and no file assigns it")


# --- source -------------------------------------------------------------------------------------------------------


def _is_ours(one: type) -> bool:
    return one.__module__.startswith("signald.")


@cache
def _class_node(one: type) -> ast.ClassDef:
    for node in ast.walk(_tree(importlib.import_module(one.__module__))):
        if isinstance(node, ast.ClassDef) and node.name == one.__name__:
            return node
    raise LookupError(one.__name__)


def _node(one: Any) -> Function:
    for node in ast.walk(_tree(importlib.import_module(one.__module__))):
        if isinstance(node, Function) and node.name == one.__name__:
            return node
    raise LookupError(one.__name__)


def _tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return trees()[str(module.__file__).removeprefix(f"{SIGNALD}/")]


def _signature(node: Function) -> str:
    """`async def` and the arguments, one a line when they are many. A context manager is shown as `async with`."""
    decorators = [ast.unparse(one) for one in node.decorator_list]
    is_block = "asynccontextmanager" in decorators
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    shown = []
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown += [
        _argument(one, default) for one, default in zip(plain, defaults, strict=True) if one.arg not in ("self", "cls")
    ]
    if arguments.vararg is not None:
        shown.append("*" + _argument(arguments.vararg, None))
    elif arguments.kwonlyargs:
        shown.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    shown += [_argument(one, default) for one, default in pairs if one.arg != "task_status"]
    if arguments.kwarg is not None:
        shown.append("**" + _argument(arguments.kwarg, None))
    returns = ast.unparse(node.returns) if node.returns is not None else "None"
    if is_block:
        head, returns = "async with ", returns.removeprefix("AsyncIterator[").removesuffix("]")
        tail = "" if returns == "None" else f" as {returns}"
    else:
        head = "async def " if isinstance(node, ast.AsyncFunctionDef) and node.name != "__aiter__" else "def "
        tail = f" -> {returns}"
    whole = f"{head}{node.name}({', '.join(shown)}){tail}"
    if len(whole) <= 100:
        return whole
    return f"{head}{node.name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){tail}"


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    annotated = f"{one.arg}: {ast.unparse(one.annotation)}" if one.annotation is not None else one.arg
    return annotated if default is None else f"{annotated} = {ast.unparse(default)}"


def _fields(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """The public fields of an attrs class with the texts below them."""
    if not any("frozen" in ast.unparse(one) or "define" in ast.unparse(one) for one in node.decorator_list):
        return
    for one, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one, _text(after)


def _field(node: ast.AnnAssign) -> str:
    assert isinstance(node.target, ast.Name)
    shown = f"{node.target.id.removeprefix('_')}: {ast.unparse(node.annotation)}"
    if node.value is None:
        return shown
    value = ast.unparse(node.value)
    if value.startswith("field("):
        default = re.search(r"default=([^,)]+)", value)
        return f"{shown} = {default[1]}" if default else shown
    return f"{shown} = {value}"


def _attributes(made: Function, all_of: bool = False) -> Iterator[tuple[str, str]]:
    """The attributes that `__init__` sets and explains, or all that it sets."""
    for one, after in zip(made.body, [*made.body[1:], None], strict=True):
        target = (
            one.targets[0] if isinstance(one, ast.Assign) else one.target if isinstance(one, ast.AnnAssign) else None
        )
        if isinstance(target, ast.Attribute) and not target.attr.startswith("_") and (all_of or _text(after)):
            yield target.attr, _text(after)


def _is_property(node: Function) -> bool:
    return any(ast.unparse(one) == "property" for one in node.decorator_list)


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _prose(text: str | None) -> str:
    """A docstring as Markdown: its examples as blocks, its errors as a list."""
    if not text:
        return ""
    said, _, raised = inspect.cleandoc(text).partition("\nRaises:\n")
    shown = re.sub(r"(?m)(?:^ {4}.*\n?(?:\n(?= {4}))?)+", lambda found: _block(found[0]), said).strip()
    if raised:
        entries = re.sub(r"\n {8,}", " ", raised)
        rows = [line.strip().partition(":") for line in entries.splitlines() if line.strip()]
        shown += "\n\nRaises:\n\n" + "\n".join(f"- `{name}`:{why}" for name, _, why in rows)
    return shown


def _block(text: str) -> str:
    return f"```\n{inspect.cleandoc(text)}\n```\n"


def _cell(text: str) -> str:
    """A text within one cell of a table."""
    said, _, raised = text.partition("\n\nRaises:\n\n")
    cell = " ".join(said.split()).replace("|", "\\|")
    return cell + (" Raises " + "; ".join(line[2:] for line in raised.splitlines()) if raised else "")


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
