"""The wait for a drain: a bar on a terminal, a line each second elsewhere, an exit code at the end."""

import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from signald.ctl.client import AdminClient, CtlError

Json = dict[str, Any]

POLL_S = 0.2
LINE_EVERY_S = 1.0


def wait_for_drain(client: AdminClient, parties: list[str], timeout_s: float, out: TextIO) -> tuple[Json, bool]:
    """Wait until the drain of `parties` is over; returns the last status, and whether every party has moved.

    A node that ends during the wait has finished its drain, and counts as moved. Raises CtlError when the node does not
    answer at the start.
    """
    deadline = time.monotonic() + timeout_s
    answer = client.get("status")
    with _progress(out) as tell:
        while True:
            drain = answer["drain"]
            if drain is None:
                return answer, False  # another operator has called it off
            tell(answer["line"], drain)
            if drain["phase"] == "hold" and set(parties) <= set(drain["parties"]):
                return answer, not drain["plan"].get("stayed")
            if time.monotonic() > deadline:
                return answer, False
            time.sleep(POLL_S)
            try:
                answer = client.get("status")
            except CtlError:
                if drain["by_signal"]:
                    return answer, True
                raise


class _progress:  # noqa: N801 - used like a function
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar: Progress | None = None
        if out.isatty():
            self._bar = Progress(
                BarColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), console=Console(file=out)
            )
            self._task = self._bar.add_task("", total=None)
        self._said_at = -LINE_EVERY_S
        self._said = ""

    def __enter__(self) -> Callable[[str, Json], None]:
        if self._bar is not None:
            self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _tell(self, line: str, drain: Json) -> None:
        plan = drain["plan"]
        moved = plan.get("workers_moved", 0) + plan.get("clients_moved", 0)
        if self._bar is not None:
            left = drain["workers_left"] + drain["clients_left"]
            self._bar.update(self._task, completed=moved, total=moved + left, description=line)
            return
        now = time.monotonic()
        if line != self._said and now - self._said_at >= LINE_EVERY_S:
            self._said_at, self._said = now, line
            print(line, file=self._out, flush=True)
