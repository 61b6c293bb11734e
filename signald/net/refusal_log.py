"""Says which handshakes were refused: each in a metric, and for each reason a line of the log now and then.

A refused page or SDK shows no more than a failed connection at its own end, so the operator has to find the reason here. A
stranger can be refused as often as it likes, so a reason has one line in `LINE_EVERY_S`, with the number of those left out.
"""

from collections import Counter

import structlog
import trio

LINE_EVERY_S = 10.0
"""Between two lines of one reason: a mistake in a configuration is seen at once, and a flood costs no more than this."""

REASONS = {
    400: "bad_request",
    401: "unauthorized",
    403: "origin",
    404: "path",
    405: "method",
    414: "too_long",
    426: "upgrade",
    429: "rate",
    431: "too_long",
    500: "internal",
    503: "busy",
}
"""By the HTTP status of the answer."""

TLS, TIMEOUT, OTHER = "tls", "timeout", "other"
LABELS = frozenset({*REASONS.values(), TLS, TIMEOUT, OTHER})
"""Every reason there is: the values of a metric's label."""

log = structlog.get_logger("signald.net")


class RefusalLog:
    """See the module; one for each server."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Refused handshakes, by reason."""
        self._said: dict[str, tuple[float, int]] = {}
        """By reason: when its last line was written, and the count then. As many entries as there are reasons."""

    def note_answer(self, status: int, why: str, remote: str, detail: str = "") -> None:
        """A request of `remote` was answered with the HTTP `status`; `why` is the constant text of the answer."""
        self.note(REASONS.get(status, OTHER), why, remote, detail, status=status)

    def note(self, reason: str, why: str, remote: str, detail: str = "", **more: object) -> None:
        """A handshake of `remote` was refused. `detail` is an origin, of bounded length and printable."""
        self.counts[reason] += 1
        count, now = self.counts[reason], trio.current_time()
        said_at, said_count = self._said.get(reason, (now - LINE_EVERY_S, 0))
        if now - said_at < LINE_EVERY_S:
            return
        self._said[reason] = (now, count)
        if detail:
            more["said"] = detail
        log.info("handshake_refused", reason=reason, why=why, remote=remote, suppressed=count - said_count - 1, **more)
