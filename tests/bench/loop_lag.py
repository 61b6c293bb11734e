"""A node that notes how late its event loop is, each few milliseconds: its own gauge is for drains, and looks ten times a second.

    python -c "from tests.bench.loop_lag import main; main()" serve --config FILE       with SIGNALD_BENCH_LAG=PATH

`PATH` gets 16 bytes for each sample, in native order: the time of the monotonic clock, which all processes share, and the lag (seconds).
"""

import os
import struct
import time
from pathlib import Path

import trio

from signald.cli import main as serve
from signald.service.cluster.lag import LoopLag

EVERY_S = 0.005
"""200 samples in a second: two seconds have a p99 that is more than the worst."""
FLUSH_EVERY = 100
VARIABLE = "SIGNALD_BENCH_LAG"
ENTRY_POINT = "from tests.bench.loop_lag import main; main()"

_SAMPLE = struct.Struct("dd")


async def _note(self: LoopLag) -> None:
    with Path(os.environ[VARIABLE]).open("wb") as file:  # noqa: ASYNC230 - a write of some KiB twice in a second
        count = 0
        while True:
            due = trio.current_time() + EVERY_S
            await trio.sleep_until(due)
            file.write(_SAMPLE.pack(time.monotonic(), trio.current_time() - due))
            count += 1
            if count % FLUSH_EVERY == 0:
                file.flush()


def read(path: Path, since: float, until: float) -> list[float] | None:
    """Return the lags between two times of the monotonic clock, and the one behind them; None when the file does not reach so far yet."""
    data = path.read_bytes()
    whole = len(data) - len(data) % _SAMPLE.size
    lags = []
    for at, lag in _SAMPLE.iter_unpack(data[:whole]):
        if at >= since:
            lags.append(lag)
        if at >= until:
            return lags
    return None


def main() -> None:
    """Serve as `signald` does."""
    LoopLag.run = _note  # type: ignore[method-assign]
    serve()
