"""The parties in the network of a container, as a process that a test speaks to."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.systemd.real.container import Container
from tests.systemd.real.root import TREE

SECRET = "etc/signald/credentials/jwt-secret"
END_S = 60.0


class Load:
    """What `parties` prints, and what it is told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def goes_on(self) -> None:
        """Return when every client has had further answers."""
        self._tell("on")
        self._heard()

    def settle(self) -> dict[str, Any]:
        """Have it judge; what it counted. Fails when a message was lost, doubled or reordered."""
        self._tell("settle")
        counted = json.loads(self._read())
        assert self._process.wait(END_S) == 0
        assert isinstance(counted, dict)
        return counted

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _heard(self) -> None:
        said = self._read()
        assert said.strip() == "on", said

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the parties have ended with {self._process.wait(END_S)}"
        return line


@contextmanager
def talking(container: Container, ports: Sequence[int], errors: Path) -> Iterator[Load]:
    """Parties that are connected and talk, for the time of the block; they end by their own deadline, whatever happens."""
    with errors.open("w") as sink:
        process = subprocess.Popen(
            [
                *("nsenter", "--net", "--target", str(container.leader), "--"),
                *(sys.executable, "-m", "tests.systemd.real.parties"),
                str(container.root / SECRET),
                *(f"ws://127.0.0.1:{port}" for port in ports),
            ],
            cwd=TREE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        )
    load = Load(process)
    try:
        load._heard()
        yield load
    except BaseException:
        process.kill()
        print(errors.read_text()[-6000:])
        raise
    finally:
        process.kill()
        process.communicate()
