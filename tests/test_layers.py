"""The import graph of signald has no circle, imports for the type checker and inside functions counted.

import-linter holds the order of the packages and of the parts of the service. It would not show a circle between two files
of the same layer.
"""

import ast

import pytest

from tests.docs import code
from tests.docs.drawings import circles


def test_no_circle() -> None:
    """No module imports itself by way of others."""
    assert circles(code.imports()) == []


def test_a_circle_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports for the type checker, inside functions and from packages all close a circle; what leads nowhere back is not of it."""
    files = {
        "a.py": "from signald import b\nimport trio",
        "b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from signald.c import thing",
        "c.py": "def f():\n    import signald.a",
        "d.py": "from signald.a import x",
    }
    monkeypatch.setattr(code, "trees", lambda: {name: ast.parse(text) for name, text in files.items()})
    assert circles(code.imports()) == [["signald.a", "signald.b", "signald.c"]]
