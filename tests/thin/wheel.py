"""Environments without the libraries of this one: the wheel of this tree, and what its metadata demands, installed by pip."""

import subprocess
import sys
import venv
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def build(into: Path) -> Path:
    """Build the wheel of this tree."""
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", into, TREE], check=True, capture_output=True)
    (wheel,) = into.glob("signald-*.whl")
    return wheel


def environment(directory: Path, wheel: Path, extra: str = "") -> Path:
    """Make an environment that holds `wheel` with `extra` and no more, not even pip; return its interpreter."""
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    wanted = f"signald[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    subprocess.run([*PIP, "--python", python, "install", "--no-compile", wanted], check=True, capture_output=True)
    return python


def packages(python: Path) -> Path:
    """Return the site-packages of an environment."""
    (found,) = python.parents[1].glob("lib/python3.*/site-packages")
    return found
