"""What a party costs its own process: the CPU of a round trip and of a reconnect, for the SDK on both event loops and a bare client.

The three take turns in one run, each in a process of its own on the core of the load; node and worker have the other core. A turn of one is
next to a turn of the others, so the ratios hold on a machine that has other work to do.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.report import Row, median
from tests.bench.sdk_party import Slices
from tests.bench.servers import TREE, Child, Cores, environment, running

KINDS = ("websockets", "asyncio", "trio")
TURN_S = 120.0
"""A turn that takes longer than this hangs: it takes about two seconds."""


def run(cores: Cores, turns: int, how: Slices) -> list[Row]:
    """Return a row for each kind; the first is the one that the ratios are to."""
    took: dict[str, dict[str, list[float]]] = {kind: {"trip": [], "reconnect": []} for kind in KINDS}
    with running("signald-memory", cores) as server, tempfile.TemporaryDirectory() as folder:
        url = f"ws://{server.address[0]}:{server.address[1]}"
        worker = Child("worker", _command("worker", url), cores.server, Path(folder) / "worker.log")
        try:
            worker.wait_until(worker.has_written)
            for _ in range(turns):
                for kind in KINDS:
                    worker.check()
                    for name, slices in _turn(_command(kind, url, *how)).items():
                        took[kind][name] += slices
        finally:
            worker.stop()
    return list(rows(took))


def rows(took: dict[str, dict[str, list[float]]]) -> Sequence[Row]:
    """The medians of all slices, and their ratios to the bare client."""
    base = {name: median(slices) for name, slices in took[KINDS[0]].items()}
    found: list[Row] = []
    for kind in KINDS:
        trip, reconnect = median(took[kind]["trip"]), median(took[kind]["reconnect"])
        found.append(
            {
                "client": kind,
                "round trip, CPU µs": trip * 1e6,
                "trips x bare": trip / base["trip"],
                "reconnect, CPU ms": reconnect * 1e3,
                "reconnects x bare": reconnect / base["reconnect"],
                "slices": len(took[kind]["trip"]),
            }
        )
    return found


def _command(kind: str, url: str, *counts: int) -> list[str]:
    return [sys.executable, "-m", "tests.bench.sdk_party", kind, url, *map(str, counts)]


def _turn(command: list[str]) -> dict[str, list[float]]:
    done = subprocess.run(
        command, capture_output=True, cwd=TREE, env=environment(TREE), timeout=TURN_S, check=False, text=True
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command[2:])} ended with {done.returncode}\n{done.stderr[-4000:]}")
    said: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return said
