"""The package of the JavaScript SDK, as tests use it: its folder, and programs that are bundled with what they import."""

import fcntl
import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import signald

FOLDER = Path(signald.__file__).parent / "sdk" / "js"
NODE = "node"
BUILD_S = 300.0
"""For a build on a busy machine, and the builds of others that are waited for."""

_OWN = FOLDER / "node_modules" / ".programs"


def run(*arguments: str, within_s: float = BUILD_S) -> subprocess.CompletedProcess[str]:
    """Run Node in the folder of the package."""
    return subprocess.run([NODE, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=within_s)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes out: several run tests at a time, and a build begins by removing the one before."""
    _OWN.mkdir(exist_ok=True)
    with (_OWN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sources() -> str:
    """Return a digest of all that a build is made of."""
    digest = hashlib.sha256()
    for path in sorted([*FOLDER.glob("src/**/*.ts"), *FOLDER.glob("*.mjs"), *FOLDER.glob("*.json")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def build() -> Path:
    """Return the folder of what is built, which is built first unless it is of these sources."""
    with _alone():
        return _build()


def _build() -> Path:
    built, stamp, sources = FOLDER / "dist", _OWN / "built", _sources()
    if not (built / "index.js").exists() or not stamp.exists() or stamp.read_text() != sources:
        done = run("build.mjs")
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(sources)
    return built


def bundled(source: str) -> Path:
    """Return a program for Node, made of `source` in the folder and of what is built; it lies where its packages are found."""
    program = _OWN / f"{Path(source).stem}.mjs"
    with _alone():
        _build()
        # Another process may be loading the one that is there.
        made = program.with_suffix(".new.mjs")
        done = run("bundle.mjs", source, str(made))
        assert done.returncode == 0, done.stderr
        made.replace(program)
    return program
