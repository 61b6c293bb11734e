"""Rows of figures, as a table for people or as JSON for programs."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

Row = Mapping[str, str | int | float | None]


def machine() -> dict[str, str | int]:
    """Return what the figures depend on besides the code."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "trio": version("trio"),
    }


def median(values: Sequence[float]) -> float:
    """Return the median, or 0 when nothing was measured."""
    return statistics.median(values) if values else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of all lie (nearest rank), or 0 when there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def show(title: str, tables: Mapping[str, Sequence[Row]], *, as_json: bool) -> None:
    """Print named tables. In JSON the object also holds the machine; units are in the keys either way."""
    if as_json:
        print(json.dumps({"bench": title, "machine": machine(), **tables}, indent=2))
        return
    for name, rows in tables.items():
        table = Table(title=f"{title}: {name}", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for key in rows[0] if rows else ():
            text = any(isinstance(row[key], str) for row in rows)
            table.add_column(key, justify="left" if text else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(value) for value in row.values()))
        # A table folded at the width of a terminal cannot be read, and a file has no width at all.
        Console(width=max(200, Console().width)).print(table)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))


def _cell(value: str | float | None) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
