"""A node that notes how late its event loop is, each few milliseconds, and how long each message is on its way through it.

    python -c "from tests.bench.loop_lag import main; main()" serve --config FILE       with SIGNALD_BENCH_LAG=PATH

Its own gauge of the lag is for drains, and looks ten times a second; its histogram of messages has fifteen bounds.

`PATH` gets 16 bytes for each sample of the lag, in native order: the time of the monotonic clock, which all processes share, and the lag
(seconds). `PATH.relay` gets the same for messages: the time of its delivery, and the seconds since the read that brought it.
"""

import os
import struct
import time
from pathlib import Path

import trio

from signald.cli import main as serve
from signald.service import relay
from signald.service.cluster.lag import LoopLag
from signald.tally import Histogram

EVERY_S = 0.005
"""200 samples in a second: two seconds have a p99 that is more than the worst."""
FLUSH_EVERY = 100
VARIABLE = "SIGNALD_BENCH_LAG"
ENTRY_POINT = "from tests.bench.loop_lag import main; main()"

_SAMPLE = struct.Struct("dd")

_delivered = bytearray()
"""Samples of messages that are not in the file yet."""


class _NotingHistogram(Histogram):
    """Notes each value too."""

    def observe(self, value: float, times: int = 1) -> None:
        super().observe(value, times)
        _delivered.extend(_SAMPLE.pack(time.monotonic(), value) * times)


def relay_file(path: Path) -> Path:
    """Return where the samples of messages are."""
    return path.with_name(path.name + ".relay")


async def _note(self: LoopLag) -> None:
    path = Path(os.environ[VARIABLE])
    with path.open("wb") as file, relay_file(path).open("wb") as relayed:  # noqa: ASYNC230 - writes of some KiB twice in a second
        count = 0
        while True:
            due = trio.current_time() + EVERY_S
            await trio.sleep_until(due)
            file.write(_SAMPLE.pack(time.monotonic(), trio.current_time() - due))
            count += 1
            if count % FLUSH_EVERY == 0:
                relayed.write(_delivered)
                relayed.flush()
                _delivered.clear()
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


def read_relayed(path: Path, since: float, until: float) -> list[float]:
    """Return how long each message was on its way that was delivered between two times, once `read` has told of them."""
    data = relay_file(path).read_bytes()
    whole = len(data) - len(data) % _SAMPLE.size
    return [seconds for at, seconds in _SAMPLE.iter_unpack(data[:whole]) if since <= at < until]


def main() -> None:
    """Serve as `signald` does."""
    LoopLag.run = _note  # type: ignore[method-assign]
    relay.Histogram = _NotingHistogram  # type: ignore[attr-defined]
    serve()
