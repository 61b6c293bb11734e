"""`signald ctl top`: the cluster on one screen, again and again."""

import sys
import time
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from signald.ctl import show
from signald.ctl.client import AdminClient, CtlError

Json = dict[str, Any]

RATES = ("accepted", "delivered", "resumes", "sessions_started", "store_ops")
"""Totals of the status that the screen shows as a rate per second."""


class Screen:
    """Asks a node and makes a page of its answers; a total is shown as its rate since the previous page."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._before: tuple[float, Json] | None = None

    def page(self, now: float) -> str:
        """Ask the node, and return the page. Raises CtlError."""
        status = self._client.get("status")
        lines = [show.status(status), "  " + self._rates(status["statistics"], now), ""]
        with suppress(CtlError):  # a node without its store still answers about itself
            lines += [show.nodes(self._client.get("nodes")), ""]
            lines.append(show.workers(self._client.get("workers")))
        return "\n".join(lines)

    def _rates(self, counts: Json, now: float) -> str:
        before, self._before = self._before, (now, counts)
        if before is None or now <= before[0]:
            return "rates from the next page on"
        elapsed_s = now - before[0]
        # A total below the previous one belongs to a new process of the same name.
        return ", ".join(f"{name} {max(0, counts[name] - before[1].get(name, 0)) / elapsed_s:.0f}/s" for name in RATES)


def run(client: AdminClient, interval_s: float, count: int) -> None:
    """Show pages until interrupted, or `count` of them (0: no end). Raises CtlError when the first cannot be had."""
    screen = Screen(client)
    text = screen.page(time.monotonic())
    if not sys.stdout.isatty():
        _print_pages(screen, text, interval_s, count)
        return
    with Live(_drawn(text), console=Console(), screen=True, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        shown = 1
        while count == 0 or shown < count:
            time.sleep(interval_s)
            try:
                text = screen.page(time.monotonic())
            except CtlError as error:
                text = str(error)  # the node may be restarting
            live.update(_drawn(text), refresh=True)
            shown += 1


def _print_pages(screen: Screen, text: str, interval_s: float, count: int) -> None:
    print(text, flush=True)
    shown = 1
    while count == 0 or shown < count:
        time.sleep(interval_s)
        print(f"\n{screen.page(time.monotonic())}", flush=True)
        shown += 1


def _drawn(text: str) -> RenderableType:
    return Group(*(Text(line, no_wrap=True, overflow="crop") for line in text.splitlines()))
