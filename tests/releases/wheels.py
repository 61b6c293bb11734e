"""The code of releases before, to run beside the present one.

    0.1.0           the release before this one: knows no format numbers
    before-0.1.0    a state before it, whose records lack a field that 0.1.0 has: `said_before` in the head of a session

A wheel of signald holds Python and Lua only, so its content is the code.
"""

import zipfile
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent

Wheel = Literal["0.1.0", "before-0.1.0"]


def unpacked(wheel: Wheel, directory: Path) -> Path:
    """Unpack the code of `wheel` below `directory`; return what PYTHONPATH is to name."""
    into = directory / f"release-{wheel}"
    if not into.exists():
        with zipfile.ZipFile(HERE / f"{wheel}.whl") as packed:
            packed.extractall(into)
    return into
