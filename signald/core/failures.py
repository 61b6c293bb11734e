"""Failed hand-outs of a session: how many ended badly at the same message, and when the next worker is asked.

A hand-out fails when its worker is lost, or gives the session back after it has accepted it. Failures belong to the first
message that no worker has acked: an ack moves that message on, so it resets the count without a write. A session that has
failed `worker.failures_max` times is set aside: no worker is asked until an operator retries it or the session ends.
"""

from msgspec import Struct

PAUSE_REFUSED_S = 0.5
"""Pause after a first refusal. The other workers are likely to refuse as well, and a round trip is far shorter."""

PAUSES_S = (0.0, 2.0, 8.0, 20.0)
"""Least pauses after the first loss, the second, the third, and each later one.

The first retry is immediate, because most losses have nothing to do with the session. A supervisor restarts a worker within 2 s.
8 s outlast a short overload of a dependency of the worker, and 20 s the restart of that dependency. With the default of
five hand-outs a session that breaks its handlers is set aside within a minute, before a client gives up. At most 3
hand-outs fall into any 5 s."""

SPREAD = 2.0
"""A pause lasts up to this many times its least. Sessions that were lost with one worker come back at different times. So the
harmless ones get their acks in while the harmful one is absent. Otherwise all would be set aside together."""

CLOCK_SET_MS = 60_000
"""A failure that lies further ahead than this was noted before the clock of the store was set back: its pause is over."""


class Failures(Struct, array_like=True, frozen=True, gc=False, order=True):
    """The stored record of the failed hand-outs of one session. The order is that of events under one epoch of the worker."""

    seq: int = 0
    """The first message that was not acked when they failed; 0: none has failed."""
    count: int = 0
    at_ms: int = 0
    """When the last one was noted, by the store's clock."""
    set_aside: bool = False

    def current(self, acked: int) -> "Failures":
        """Return these if they concern the first message above `acked`, else none."""
        return self if self.seq == acked + 1 else NO_FAILURES

    def add(self, seq: int, now_ms: int, failures_max: int) -> "Failures":
        """Return these and one more at `seq`, set aside from `failures_max` on."""
        count = self.current(seq - 1).count + 1
        return Failures(seq, count, now_ms, count >= failures_max)

    def pause_s(self, *, refused: bool, spread: float) -> float:
        """How long no worker is asked after the last failure: `spread`, from 1 to `SPREAD`, times the least pause.

        `refused`: it was a refusal.
        """
        pause_s = PAUSES_S[min(max(self.count, 1), len(PAUSES_S)) - 1]
        return pause_s * spread if pause_s else PAUSE_REFUSED_S if refused else 0.0

    def may_queue(self, now_ms: int) -> bool:
        """Tell whether the session may wait for a worker now: it is not set aside, and its pause is over."""
        if self.set_aside:
            return False
        since_ms = now_ms - self.at_ms
        return (
            not self.count or since_ms < -CLOCK_SET_MS or since_ms >= self.pause_s(refused=True, spread=SPREAD) * 1000
        )


NO_FAILURES = Failures()
