"""A container in which systemd is PID 1, and what tests do in it.

It has a network of its own, with loopback only: parties enter it by `nsenter --net`. It does not outlive the block.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.systemd.real.root import furnish, roomy

BOOT_S, STOP_S, COMMAND_S = 60.0, 20.0, 90.0
POLL_S = 0.1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str


@attrs.frozen
class Container:
    """See the module."""

    root: Path
    leader: int
    """The PID 1 of the container, as this machine counts."""

    def run(self, *command: str, timeout_s: float = COMMAND_S, text: str = "") -> Done:
        """Run a command as root inside; `text` is its standard input."""
        entered = ["nsenter", "--target", str(self.leader), "--all", "--", *command]
        done = subprocess.run(
            entered,
            input=text,
            capture_output=True,
            text=True,
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"},
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def do(self, line: str, timeout_s: float = COMMAND_S) -> str:
        """Run a line that must succeed; what it printed."""
        done = self.run(*shlex.split(line), timeout_s=timeout_s)
        assert done.status == 0, f"{line}: {done.status}\n{done.out}{done.err}\n{self.tail()}"
        return done.out.strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.do(f"systemctl show --property {name} --value {unit}")

    def journal(self, unit: str = "", lines: int = 100_000) -> str:
        """The last lines of the journal, of one unit or of all."""
        chosen = ["--unit", unit] if unit else []
        return self.run("journalctl", "--no-pager", f"--lines={lines}", "--output=cat", *chosen).out

    def tail(self) -> str:
        """The end of the journal, for the message of a failure."""
        return self.journal(lines=60)

    def until(self, unit: str, name: str, value: str, within_s: float) -> None:
        """Wait until a property of a unit has a value."""
        deadline = time.monotonic() + within_s
        while (found := self.show(unit, name)) != value:
            assert time.monotonic() < deadline, f"{unit} {name} is {found}, not {value}\n{self.tail()}"
            time.sleep(POLL_S)


@contextmanager
def booted(suite: str) -> Iterator[Container]:
    """A container of a Debian release, booted and ready, for the time of the block."""
    directory = Path(tempfile.mkdtemp(prefix="signald-container-", dir=roomy()))
    try:
        root = directory / "root"
        root.mkdir()
        furnish(root, suite)
        with _running(root, directory / "console.log") as container:
            yield container
    finally:
        # Its mounts were in a namespace that is gone.
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _running(root: Path, log: Path) -> Iterator[Container]:
    with log.open("wb") as console:
        process = subprocess.Popen(
            # A test run that is killed takes the container with it.
            ["setpriv", "--pdeathsig", "KILL", *_nspawn(root)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
    leader = 0
    try:
        leader = _leader(process, log)
        container = Container(root, leader)
        _until_up(container, log)
        yield container
    finally:
        if leader and process.poll() is None:
            os.kill(leader, signal.SIGRTMIN + 4)  # systemd's word for: power off
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _nspawn(root: Path) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={root}",
        f"--machine=signald-{os.getpid()}",
        # No machined and no scope: this machine may run another init.
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--private-network",
        "--console=pipe",
    ]


def _leader(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the container's PID 1."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"systemd-nspawn ended with {process.returncode}: {log.read_text()}"
        for child in children.read_text().split():
            if "systemd" in Path(f"/proc/{child}/comm").read_text() and _inner_pid(child) == "1":
                return int(child)
        time.sleep(POLL_S)
    raise AssertionError(f"systemd did not start: {log.read_text()}")


def _inner_pid(pid: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (numbers,) = [line.split()[1:] for line in lines if line.startswith("NSpid:")]
    return numbers[-1]


def _until_up(container: Container, log: Path) -> None:
    deadline = time.monotonic() + BOOT_S
    state = ""
    while time.monotonic() < deadline:
        state = container.run("systemctl", "is-system-running").out.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(POLL_S)
    raise AssertionError(f"the container is {state or 'silent'}: {log.read_text()}\n{container.tail()}")
