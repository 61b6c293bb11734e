"""Where a slip is planted: a function of a file, and a pattern in the text of that function without its layout.

The text of a Python function is what `ast.unparse` makes of it: no comments, one kind of quotes, each statement in one line.
That of a Lua function is without comments, and its white space is single blanks. So a slip still applies after its function has
moved, was formatted anew, or has got a comment. TypeScript is taken as it stands, a whole file.
"""

import ast
import re

_LUA_TOKEN = re.compile(r"""(?P<word>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<gap>(?:\s+|--[^\n]*)+)""")


class NoSuchPlace(Exception):
    """The file has no function of that name, or several."""


def text_of(file: str, source: str, function: str) -> str:
    """Return the text of `function` in `source` without its layout; of the whole file where `function` is empty.

    `function` is the qualified name in Python (`Log.offer`), and what its first line says in Lua (`operation.claim`, `wake`).
    """
    if _is_typescript(file):
        return _whole(source, function)
    return _lua_text(_lua_function(source, function)[1]) if _is_lua(file) else ast.unparse(_node(source, function))


def replaced(file: str, source: str, function: str, text: str) -> str:
    """Return `source` with `text` for the body of `function`. What surrounds a Lua function stays as it was."""
    if _is_typescript(file):
        return text
    if _is_lua(file):
        before, _, after = _lua_function(source, function)
        # The last `end` goes to the margin again, by which the function is found.
        return f"{before}{text.rstrip().removesuffix('end')}\nend\n{after}" if function else text
    module = ast.parse(source)
    if not function:
        return text
    *path, name = function.split(".")
    owner = _descend(module, path)
    place = _index(owner, name)
    owner.body[place : place + 1] = ast.parse(text).body
    return ast.unparse(module)


def functions_of(file: str, source: str) -> list[str]:
    """Return the name of every function of a file."""
    if _is_typescript(file):
        return []
    if _is_lua(file):
        return re.findall(r"^(?:local )?function ([\w.]+)", source, re.MULTILINE)
    found = []

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{path}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    found.append(name)
                visit(child, name + ".")
            else:
                visit(child, path)

    visit(ast.parse(source), "")
    return found


def _is_typescript(file: str) -> bool:
    return file.endswith(".ts")


def _whole(source: str, function: str) -> str:
    """Return a file of TypeScript as it is: nothing here reads its functions."""
    if function:
        raise NoSuchPlace("a slip in TypeScript names no function")
    return source


def _is_lua(file: str) -> bool:
    return file.endswith(".lua")


def _lua_function(source: str, function: str) -> tuple[str, str, str]:
    """The text before a function, its own, and what follows. A function ends with the first `end` at the margin."""
    if not function:
        return "", source, ""
    found = list(
        re.finditer(rf"^(?:local )?function {re.escape(function)}\(.*?^end$\n?", source, re.MULTILINE | re.DOTALL)
    )
    if len(found) != 1:
        raise NoSuchPlace(f"{len(found)} functions {function}")
    first, last = found[0].span()
    return source[:first], source[first:last], source[last:]


def _lua_text(source: str) -> str:
    return _LUA_TOKEN.sub(lambda found: found["word"] or " ", source).strip()


_Owner = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _descend(module: ast.Module, path: list[str]) -> _Owner:
    owner: _Owner = module
    for name in path:
        child = owner.body[_index(owner, name)]
        assert isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        owner = child
    return owner


def _index(owner: _Owner, name: str) -> int:
    places = [
        place
        for place, child in enumerate(owner.body)
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name == name
    ]
    if len(places) != 1:
        raise NoSuchPlace(f"{len(places)} functions {name}")
    return places[0]


def _node(source: str, function: str) -> ast.AST:
    module = ast.parse(source)
    if not function:
        return module
    *path, name = function.split(".")
    owner = _descend(module, path)
    return owner.body[_index(owner, name)]
