"""Slips in what keeps one bad message from ending worker after worker."""

from tests.planted.bug import Bug

_HUB = "signald/service/hub.py"
_LOST_WORKERS = "signald/service/cluster/lost_workers.py"

POISON = (
    Bug(
        "lost-hand-out-not-counted",
        _LOST_WORKERS,
        "LostWorkers.sweep",
        "back', lost_ms=lost_ms)",
        "back')",
        "nobody-hurts",
        "A message that ends its worker is handed on for ever.",
    ),
    Bug(
        "refused-hand-out-not-counted",
        _HUB,
        "Hub.session_refused",
        "self.workers.refused(link, session, reason, failed=failed)",
        "self.workers.refused(link, session, reason)",
        "nobody-hurts",
        "A message at which each handler raises is handed out twice a second for ever.",
    ),
)
