"""Autobahn|Testsuite, wherever it can be had: from a Python 2.7 with pinned packages in a cache folder, or from Docker.

The suite runs as a process of its own and talks to whatever listens at the URL it is given; nothing of it is imported.
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

VERSION = "25.10.1"
IMAGE = f"crossbario/autobahn-testsuite:{VERSION}"
REQUIREMENTS = Path(__file__).with_name("autobahn-requirements.txt")
AGENT = "signald"

_START = "import sys; from autobahntestsuite.wstest import run; sys.argv = ['wstest'] + sys.argv[1:]; run()"


class SuiteMissing(Exception):
    """There is no way to run the suite on this host; the message says what was tried."""


@attrs.frozen
class Suite:
    """A suite that can be run."""

    name: str
    """How it is run, for people."""
    command: tuple[str, ...]
    """Comes before the arguments of `wstest`; `{work}` stands for the folder that holds specification and report."""
    environment: dict[str, str]
    work: str = "{work}"
    """What the suite calls the folder that we call `{work}`."""

    async def run(self, url: str, work: Path, cases: Sequence[str] = ("*",)) -> dict[str, dict[str, Any]]:
        """Run `cases` against the server at `url`; return what the suite says of each. Its report stays in `work`."""
        seen = self.work.format(work=work)
        spec = {
            "options": {"failByDrop": False},
            "outdir": f"{seen}/report",
            "servers": [{"agent": AGENT, "url": url, "options": {"version": 18}}],
            "cases": list(cases),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (work / "spec.json").write_text(json.dumps(spec))
        command = [part.format(work=work) for part in self.command]
        with (work / "wstest.log").open("wb") as output:
            await trio.run_process(
                [*command, "-m", "fuzzingclient", "-s", f"{seen}/spec.json"],
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
            )
        said: dict[str, dict[str, Any]] = json.loads((work / "report/index.json").read_text())[AGENT]
        return said


def find() -> Suite:
    """Return a suite, preparing it when this is the first time. Raises SuiteMissing when there is no way."""
    tried = []
    for python in _pythons():
        try:
            return _prepared(python)
        except subprocess.CalledProcessError as error:
            tried.append(f"{python}: {error.stderr.decode(errors='replace').strip() or error}")
        except OSError as error:
            tried.append(f"{python}: {error}")
    if not tried:
        tried.append("python2.7: not found on the PATH, in pyenv, or as PYTHON27")
    docker = shutil.which("docker")
    if docker is None:
        tried.append("docker: not found")
    elif subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        tried.append("docker: its daemon does not answer")
    else:
        # The host's network, because the listener is on this host's loopback.
        command = (docker, "run", "--rm", "--network", "host", "-v", "{work}:/work", IMAGE, "wstest")
        return Suite(f"docker {IMAGE}", command, {}, "/work")
    raise SuiteMissing("; ".join(tried))


def _pythons() -> Iterator[str]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)
    for python in (os.environ.get("PYTHON27"), shutil.which("python2.7"), *map(str, installed)):
        # That there is a file says little: it may be the shim of a version manager that has no such version.
        if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            yield python


def _prepared(python: str) -> Suite:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "signald-tests"
    home = cache / f"autobahn-{VERSION}"
    if not (home / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _install(python, Path(folder))
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(folder, home)
            (home / "complete").touch()
    path = os.pathsep.join([str(home / "packages"), str(home / f"autobahntestsuite-{VERSION}")])
    return Suite(f"{python} with {home}", (python, "-c", _START), {"PYTHONPATH": path})


def _install(python: str, folder: Path) -> None:
    """Put the suite and what it stands on into `folder`."""
    packages = folder / "packages"

    def pip(*arguments: str) -> None:
        subprocess.run([python, "-m", "pip", *arguments], check=True, capture_output=True)

    pip("install", "--target", str(packages), "--no-deps", "--requirement", str(REQUIREMENTS))
    (packages / "zope/__init__.py").touch()  # a namespace package, which a plain folder is not
    # As source: its own list of dependencies is one that no pip can fulfil any more.
    pip("download", "--dest", str(folder), "--no-deps", "--no-binary", ":all:", f"autobahntestsuite=={VERSION}")
    with tarfile.open(folder / f"autobahntestsuite-{VERSION}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
