"""What this process uses of its machine, in the words of the fleet's health answer: percent of CPU and memory, and its age.

All of it is read without blocking: the clocks of the process, and two numbers that the kernel keeps in memory (`/proc`).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from signald.config import cgroup_limit

FRESH_S = 1.0
"""How long a reading of the CPU counts: a share of less time than that says little, and health may be asked for often."""

STATM = Path("/proc/self/statm")


@attrs.frozen
class Used:
    """One reading."""

    cpu: float
    """Percent of one core that the process has used since the reading before, or since its start."""
    memory: float
    """Percent of the memory limit, or of the machine's memory, that is resident; 0 where the kernel does not say."""
    uptime_s: float


class Usage:
    """Reads what is used. One for each node."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, cpu_s: Callable[[], float] = time.process_time
    ) -> None:
        """`now` and `cpu_s` are in seconds."""
        self._now, self._cpu_s = now, cpu_s
        self._began = self._read_at = now()
        self._cpu_read_s = cpu_s()
        self._cpu = 0.0
        limit = cgroup_limit()
        self._limit_bytes = limit[1] if limit is not None else _of_machine()

    def read(self) -> Used:
        """Return what is used now."""
        now = self._now()
        passed_s = now - self._read_at
        if passed_s >= FRESH_S:
            cpu_s = self._cpu_s()
            self._cpu = 100.0 * max(0.0, cpu_s - self._cpu_read_s) / passed_s
            self._read_at, self._cpu_read_s = now, cpu_s
        return Used(round(self._cpu, 1), self._memory(), round(now - self._began, 1))

    def _memory(self) -> float:
        try:
            pages = int(STATM.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return round(100.0 * pages * os.sysconf("SC_PAGE_SIZE") / self._limit_bytes, 2)


def _of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
