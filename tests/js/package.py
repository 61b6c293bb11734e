"""The package of the JavaScript SDK, as tests use it: its folder, and programs that are bundled with what they import."""

import subprocess
from pathlib import Path

import signald

FOLDER = Path(signald.__file__).parent / "sdk" / "js"
NODE = "node"
BUILD_S = 120.0


def run(*arguments: str, within_s: float = BUILD_S) -> subprocess.CompletedProcess[str]:
    """Run Node in the folder of the package."""
    return subprocess.run([NODE, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=within_s)


def bundled(source: str) -> Path:
    """Return a program for Node, made of `source` in the folder and of what is built; it lies where its packages are found."""
    built = run("build.mjs")
    assert built.returncode == 0, built.stdout + built.stderr
    program = FOLDER / "node_modules" / ".programs" / f"{Path(source).stem}.mjs"
    built = run("bundle.mjs", source, str(program))
    assert built.returncode == 0, built.stderr
    return program
