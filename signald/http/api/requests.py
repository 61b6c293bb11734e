"""What is counted of the requests of the HTTP API, by plain integers."""

from collections import Counter

from signald.tally import Histogram

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_ROUTE = "none"
"""The route of requests to paths that are none."""
CUT = "cut"
"""The class of a request that got no whole answer: its client has gone, or it failed after the answer had begun."""
CLASSES = ("2xx", "3xx", "4xx", "5xx", CUT)

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""From an answer out of memory to the longest `Prefer: wait`."""


class RequestCounts:
    """The counts of one node. Routes are templates of the code, so labels take few values."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, str, str]] = Counter()
        """By method (one of `METHODS`, or `other`), route and class of the status."""
        self.seconds: dict[str, Histogram] = {}
        """By route: from the request's head to the end of its answer."""
        self.in_flight = 0
        self.refused = dict.fromkeys(("rate", "body", "bodies"), 0)
        """Requests refused before their handler: the rate of their principal, a body that is too large, all bodies together."""

        self.bodies_held = 0
        """Bytes of all bodies that are being collected, or used by a handler."""

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over; `status` 0: it got no whole answer."""
        kind = f"{status // 100}xx" if status else CUT
        self.answered[method if method in METHODS else "other", route, kind] += 1
        if (histogram := self.seconds.get(route)) is None:
            histogram = self.seconds[route] = Histogram(DURATION_BUCKETS_S)
        histogram.observe(seconds)
