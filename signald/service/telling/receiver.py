"""The core server as this node sees it: one attempt to tell it something, and whether it is there at all.

Both stand in one place, because each attempt teaches about the receiver: after three in a row that find it away it is probed by
one attempt at a time (`core.deliveries.Reachability`), and a 410 ends the telling at this node until a reload, a restart or
`ctl events retry`.
"""

from collections import Counter

import attrs
import structlog
import trio

from signald.core.deliveries import Outcome, Reachability, judge, retry_after_s
from signald.core.webhooks import Secrets, secrets_of, signed_headers
from signald.http.client import REASONS as CALL_REASONS
from signald.http.client import CallFailed, Poster
from signald.service.context import Context
from signald.service.telling.messages import Message

log = structlog.get_logger(__name__)

ANSWER_BYTES_MAX = 65_536
"""An answer is read to its end, so that its connection can be used again, and its body says nothing. A receiver that sends more counts
as one that does not answer."""

REFUSED_LINE_EVERY_S = 10.0
"""Between two lines about refused events: a wrong path refuses each of thousands."""


GONE, BUSY, REFUSED, BROKEN = "gone", "busy", "refused_event", "server_error"

ANSWER_REASONS = (GONE, BUSY, REFUSED, BROKEN)


@attrs.frozen
class Attempt:
    """How an attempt ended."""

    outcome: Outcome
    retry_after_s: float = 0.0
    """What the receiver asked for; 0: nothing."""


class Receiver:
    """See the module."""

    def __init__(self, context: Context, poster: Poster) -> None:
        self._context = context
        self._poster = poster
        self.reachability = Reachability()
        self.gone = False
        """It has answered 410: it wants no events."""
        self.delivered = 0
        self.failed: Counter[str] = Counter(dict.fromkeys((*CALL_REASONS, *ANSWER_REASONS), 0))
        """Failed attempts, by why no answer came, or what it was."""
        self._refused_said_at = float("-inf")

    @property
    def wanted(self) -> bool:
        """A core server is named, and it takes events as far as this node knows."""
        return bool(self._context.config.core.events_url) and not self.gone

    def renew(self) -> None:
        """Reset: the configuration or an operator says that the receiver takes events."""
        self.reachability = Reachability()
        self.gone = False

    async def tell(self, message: Message) -> Attempt:
        """Send one message. Nothing is raised for what the receiver does."""
        context, config = self._context, self._context.config.core
        now_s = context.now_ms() / 1000
        headers = {
            "content-type": "application/json",
            **signed_headers(message.id, int(now_s), message.body, self._secrets()),
        }
        try:
            answer = await self._poster.post(
                config.events_url,
                message.body,
                headers,
                timeout_s=config.events_timeout_s,
                bytes_max=ANSWER_BYTES_MAX,
            )
        except CallFailed as error:
            attempt = Attempt(Outcome.AWAY)
            self._failed(error.reason, attempt, str(error))
            return attempt
        attempt = Attempt(judge(answer.status), retry_after_s(answer.headers.get("retry-after", ""), now_s))
        if attempt.outcome is Outcome.DELIVERED:
            self.delivered += 1
            self._note(attempt, "")
        else:
            self._failed(_reason(answer.status), attempt, f"the answer is {answer.status}")
        return attempt

    def _secrets(self) -> Secrets:
        config = self._context.config.core
        return secrets_of(config.secret, config.secret_previous)

    def _failed(self, reason: str, attempt: Attempt, why: str) -> None:
        self.failed[reason] += 1
        now = trio.current_time()
        if attempt.outcome is Outcome.GONE and not self.gone:
            self.gone = True
            log.error("core_events_gone", why="the core server has answered 410: it wants no events, and is told none")
        elif attempt.outcome is Outcome.REFUSED and now - self._refused_said_at >= REFUSED_LINE_EVERY_S:
            self._refused_said_at = now
            log.warning("core_event_refused", why=why, failures=self.failed.total())
        self._note(attempt, why)

    def _note(self, attempt: Attempt, why: str) -> None:
        share = self._context.entropy.uniform(0.0, 1.0)
        if not self.reachability.note(attempt.outcome, trio.current_time(), share, attempt.retry_after_s):
            return
        if self.reachability.away:
            log.warning("core_events_away", why=why)
        else:
            log.info("core_events_back")


def _reason(status: int) -> str:
    outcome = judge(status)
    if outcome is Outcome.GONE:
        return GONE
    if outcome is Outcome.REFUSED:
        return REFUSED
    return BUSY if status < 500 or status == 503 else BROKEN
