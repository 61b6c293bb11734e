"""The apps of docs/examples as a fleet has them: processes that a supervisor starts again when they have ended, each behind a recorder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from signald.demo.cluster import render_toml
from tests.real.harness import Settings
from tests.systems.recorder import Recorder

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"
PYTHON_APP = EXAMPLES / "deepstream-python/app.py"
SDK_WORKER = EXAMPLES / "deepstream-sdk/worker.py"
PACKAGES = ("glib-2.0", "json-glib-1.0", "libsoup-2.4")
AGAIN_S = 0.1
"""Between the end of an app and the next start of it; RestartSec of systemd."""
SCALE = 0.2
"""Of the guide's waits: 5 s, 10 s and from 1 s to 60 s become 1 s, 2 s and from 0.2 s to 12 s."""

Line = dict[str, Any]


@cache
def build_c_app() -> Path:
    """Compile the app in C with the options of its Makefile, warnings as errors; returns the program."""
    if subprocess.run(["pkg-config", "--exists", *PACKAGES], check=False).returncode:
        raise AssertionError("`. tests/environment.sh` installs libsoup2.4-dev and libjson-glib-dev")
    directory = Path(tempfile.mkdtemp(prefix="deepstream-c-"))
    sources = directory / "deepstream-c"
    shutil.copytree(EXAMPLES / "deepstream-c", sources, ignore=shutil.ignore_patterns("*.o", "deepstream-app"))
    # Without optimisation it takes a third of the time.
    made = subprocess.run(["make", "-s", "CFLAGS=-O0 -g"], cwd=sources, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return sources / "deepstream-app"


def key_file(sections: Settings) -> str:
    """Return what GKeyFile reads."""
    lines: list[str] = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


@define(eq=False)
class Run:
    """One process of an app, from its start to its end."""

    process: trio.Process
    lines: list[Line] = field(factory=list)

    def saw(self, what: str) -> list[Line]:
        """Return the lines of one kind so far."""
        return [line for line in self.lines if line["saw"] == what]


class Device:
    """One app: its configuration, its recorder, and its processes one after the other."""

    def __init__(self, name: str, language: str, recorder: Recorder, directory: Path, **app: object) -> None:
        """`language` is `c`, `python`, or `sdk` for the worker on the SDK; `app` are keys of the section of that name."""
        self.name = name
        self.recorder = recorder
        self.runs: list[Run] = []
        self.retired = False
        self._language = language
        self._directory = directory
        self._app = app
        self._errors = directory / f"{name}.err"

    def configure(self, credential: str, scale: float = SCALE, **waits: object) -> None:
        """Write its configuration, and its credential into a file of its own."""
        token = self._directory / f"{self.name}.token"
        token.write_text(f"{credential}\n")
        sections: Settings = {
            "server": {"url": self.recorder.url, "token_file": str(token)},
            "app": {"instance_id": self.name, "frames_per_s": 5.0, **self._app},
            "waits": {"time_scale": scale, **waits},
        }
        text = key_file(sections) if self._language == "c" else render_toml(sections)
        self._config.write_text(text)

    @property
    def _config(self) -> Path:
        return self._directory / f"{self.name}.conf"

    @property
    def _command(self) -> Sequence[str]:
        if self._language == "c":
            return [str(build_c_app()), str(self._config)]
        program = PYTHON_APP if self._language == "python" else SDK_WORKER
        return [sys.executable, "-I", str(program), str(self._config)]

    async def supervise(self) -> None:
        """Start the app, and again whenever it has ended well, until it is retired."""
        while not self.retired:
            await self.run_once()
            if self.runs[-1].process.returncode != 0:
                return
            await trio.sleep(AGAIN_S)

    async def run_once(self) -> int:
        """Run one process to its end, and return its status."""
        with self._errors.open("ab") as sink:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={"PATH": os.environ["PATH"], "G_DEBUG": "fatal-warnings"},
            )
        assert process.stdout is not None
        run = Run(process)
        self.runs.append(run)
        try:
            await self._listen(run, process.stdout)
            return await process.wait()
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):  # it was killed: this takes no time
                await process.wait()
            await trio.aclose_forcefully(process.stdout)

    async def _listen(self, run: Run, stdout: trio.abc.ReceiveStream) -> None:
        rest = b""
        with (self._directory / f"{self.name}.lines").open("ab") as kept:
            async for data in stdout:
                kept.write(data)
                *lines, rest = (rest + data).split(b"\n")
                run.lines += map(json.loads, lines)

    def retire(self) -> None:
        """Ask it to leave, for good."""
        self.retired = True
        if self.runs and self.runs[-1].process.poll() is None:
            self.runs[-1].process.send_signal(signal.SIGTERM)

    def saw(self, what: str) -> list[Line]:
        """Return the lines of one kind of all its processes."""
        return [line for run in self.runs for line in run.saw(what)]

    @property
    def said(self) -> str:
        """All that it has written to its outputs."""
        return "".join(
            path.read_text() for path in (self._errors, self._directory / f"{self.name}.lines") if path.exists()
        )

    def account(self) -> str:
        """The last of what it said and of what was on the wire, for a failure's message."""
        statuses = [run.process.returncode for run in self.runs]
        wire = "\n".join(map(repr, self.recorder.seen[-25:]))
        return f"{self.name} {statuses}\n{self.said[-1500:]}\n{wire}"
