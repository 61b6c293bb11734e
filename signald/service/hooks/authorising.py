"""The questions to the core server (`core.authorize_url`), each within its time, and what holds when it does not answer.

    a remembered answer ─────────────────────────────────────▸ Grant
    the breaker is open ─────────────────────────────────────▸ None: it is away
    a place in flight, then POST ─▸ 200 and a right body ────▸ Grant, remembered for its ttl_ms
                                 └▸ all else ────────────────▸ None: it is away

A reload that changes `[core]` resets all of it: the cache is empty, and the breaker is closed.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

import structlog
import trio
from msgspec import UNSET, Raw

from signald.config import CoreConfig
from signald.core.authorising import ANSWER_BYTES_MAX, Answers, BadAnswer, Grant, Question, claims_json, read_answer
from signald.core.breaker import Breaker, BreakerState
from signald.core.webhooks import secrets_of, signed_headers
from signald.http.client import Answer as HttpAnswer
from signald.http.client import CallFailed, HttpClient, Poster
from signald.ids import new_nonce
from signald.service.auth import Verified
from signald.service.context import Context

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 1024
"""Connections to the core server: never fewer than `core.authorize_in_flight_max` can be, which bounds the calls."""

CLOSE_S = 1.0
"""How long closing them may take when the node ends."""

LEAST_S = 0.02
"""A question with less time left is not made: its failure would say nothing of the core server."""

LOG_EVERY_S = 60.0
"""How often failures are said, unless the reason changes."""

OUTCOMES = ("allowed", "refused", "cached", "failed", "wrong", "skipped")
"""Of a question: answered with yes or no, answered before, no answer in time or another status, no such object, not made at all."""

EMPTY: Mapping[str, str] = MappingProxyType({})

STATES: tuple[BreakerState, ...] = get_args(BreakerState)


def question_of(
    credential: Verified,
    remote: str,
    *,
    want: Mapping[str, str] = EMPTY,
    meta: bytes = b"",
    labels: Mapping[str, str] | None = None,
    session: str | None = None,
) -> Question:
    """Return what is asked of a party: `want` and `meta` of a client, `labels` of a worker, `session` of one that is let in."""
    principal = credential.principal
    return Question(
        principal.role,
        principal.subject,
        claims_json(credential.claims),
        remote,
        dict(want),
        Raw(meta) if meta else None,
        UNSET if labels is None else dict(labels),
        UNSET if session is None else session,
    )


def _body(answer: HttpAnswer) -> bytes:
    """Return the body of an answer that counts. Raises CallFailed."""
    if answer.status != 200:
        raise CallFailed("broken", f"the answer is {answer.status}")
    return answer.body


class Authoriser:
    """See the module. One for each node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.poster: Poster | None = None
        """Stands for the core server in a simulation or a test; set before the first question, and closed by its owner."""
        self._client: HttpClient | None = None
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.turned_away = 0
        """Parties that were refused because the core server was away."""
        self.let_in = 0
        """Parties that were let in although it was."""
        self._said: tuple[str, float] = "", -float("inf")
        self._begin(context.config.core)

    def _begin(self, config: CoreConfig) -> None:
        self._config = config
        self._answers = Answers(config.authorize_cache_max)
        self._breaker = Breaker(config.breaker_failures_max, config.breaker_pause_s)
        self._places = trio.CapacityLimiter(config.authorize_in_flight_max)
        self._secrets = secrets_of(config.secret, config.secret_previous)

    @property
    def config(self) -> CoreConfig:
        """The section in force."""
        if self._context.config.core != self._config:
            self._begin(self._context.config.core)
        return self._config

    @property
    def state(self) -> BreakerState:
        """Of the breaker; closed where there is no URL."""
        return self._breaker.state(trio.current_time()) if self.config.authorize_url else "closed"

    @property
    def remembered(self) -> int:
        """How many answers are remembered."""
        return len(self._answers)

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer, or for a place."""
        places = self._places.statistics()
        return places.borrowed_tokens + places.tasks_waiting

    async def ask(self, question: Question) -> Grant | None:
        """Return the answer; None when the core server is away. It takes `core.authorize_timeout_s` at most.

        Only to be called where `core.authorize_url` is set.
        """
        config, key = self.config, question.key()
        answers, breaker, places = self._answers, self._breaker, self._places
        if (grant := answers.find(key, trio.current_time())) is not None:
            self.outcomes["cached"] += 1
            return grant
        deadline = trio.current_time() + config.authorize_timeout_s
        with trio.move_on_at(deadline) as waited:
            await places.acquire()
        if waited.cancelled_caught:
            self.outcomes["skipped"] += 1
            return None
        try:
            now = trio.current_time()
            # While it waited, others may have found that the core server is away. A question without time left would say nothing of it.
            if deadline - now < LEAST_S or not breaker.admits(now):
                self.outcomes["skipped"] += 1
                return None
            grant = await self._post(config, question, breaker, deadline - now)
        finally:
            places.release()
        if grant is not None:
            answers.keep(key, grant, trio.current_time())
        return grant

    async def _post(self, config: CoreConfig, question: Question, breaker: Breaker, left_s: float) -> Grant | None:
        context, body = self._context, question.body()
        began = trio.current_time()
        headers = signed_headers(f"msg_{new_nonce(context.entropy)}", context.now_ms() // 1000, body, self._secrets)
        try:
            answer = await self._http().post(
                config.authorize_url,
                body,
                {"content-type": "application/json", **headers},
                timeout_s=left_s,
                bytes_max=ANSWER_BYTES_MAX,
            )
            grant = read_answer(_body(answer), question, context.config.limits.json_depth_max)
        except CallFailed as error:
            self._failed(breaker, "failed", str(error))
            return None
        except BadAnswer as error:
            self._failed(breaker, "wrong", str(error))
            return None
        except Exception:
            # An error of signald or of the library: it must not cost the connection of a party more than an absent server does.
            log.exception("core_error")
            self._failed(breaker, "failed", "an error of signald")
            return None
        if breaker.succeeded():
            log.info("core_back", took_s=round(trio.current_time() - began, 3))
        self.outcomes["allowed" if grant.allow else "refused"] += 1
        return grant

    def _failed(self, breaker: Breaker, outcome: str, why: str) -> None:
        now = trio.current_time()
        self.outcomes[outcome] += 1
        if breaker.failed(now):
            log.error("core_away", why=why, on_failure=self._config.on_failure)
            self._said = why, now
        elif why != self._said[0] or now - self._said[1] >= LOG_EVERY_S:
            log.warning("core_failed", why=why)
            self._said = why, now

    def _http(self) -> Poster:
        if self.poster is not None:
            return self.poster
        if self._client is None:
            # The operator's own URL may be an inner address.
            self._client = HttpClient(allow_inner=True, connections_max=CONNECTIONS_MAX)
        return self._client

    async def run(self) -> None:
        """Keep the connections to the core server until cancelled; they are closed then."""
        try:
            await trio.sleep_forever()
        finally:
            if self._client is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                    await self._client.aclose()
