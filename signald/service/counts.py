"""What a node counts where it happens, and nothing else knows; `service.meters` shows it.

Everything is a plain integer in one thread, and what it is counted by takes few values, all of them listed here: never an id, or
a reason that a party gives.
"""

from collections import Counter
from typing import Literal, get_args

import attrs

from signald.core.head import Party
from signald.core.jobs import ENDS
from signald.tally import Histogram

EndCause = Literal["client", "worker", "expired", "worker_lost", "unheard", "spent", "operator", "api", "forbidden"]
"""The cause of a session's end: the `bye` of a party, its time, `worker.on_loss = "end"`, that its client was gone before it was
told of it, that its numbers had run out, an operator, a request over HTTP, or a later no of the core server."""

FULL = ("store", "share", "bytes")
"""All of `limits.sessions_max`, the share of an address or principal in it, the bytes of an address."""

RESUMED = "resumed"
OUTCOMES = (
    RESUMED,
    "nothing_to_resume",
    "token_reuse",
    "token_revoked",
    "forbidden",
    "too_far_ahead",
    "unauthenticated",
    "auth_unavailable",
    "late",
    "busy",
    "store_unavailable",
    "closing",
    "left",
)
"""What may become of a resume: `resumed`, the error it is refused with, or `left` when the party did not wait for the answer."""

GAP_SECONDS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From a move without a break, which is 0, to the usual time a session waits for its client."""

HANDOVER_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""From a lookup to a job of half an hour; most are synthesis and transcription, which take seconds."""

ROLES: tuple[Party, ...] = ("client", "worker")

CAUSES: tuple[EndCause, ...] = get_args(EndCause)

FailureCause = Literal["lost", "refused"]
"""How a hand-out of a session failed: its worker was lost, or gave the session back."""

FAILURES: tuple[FailureCause, ...] = ("lost", "refused")

APP_STATES = ("connected", "authenticated", "terminating", "disconnected")

APP_MESSAGES = ("paired", "told", "unwanted", "too_big", "rate", "backlog", "store", "withheld")
"""Of an app: offered to its client's session, told to the core server; or dropped, because no core server is named, it is too long to
be told, it comes too fast, its client (of what was offered) or the store is too far behind. `withheld`: a client's message that no app
understands."""

APP_ENDS = ("ok", "failed", "late", "gone")
"""See `service.terminating`."""


def _handovers() -> dict[Party, Histogram]:
    return {role: Histogram(HANDOVER_SECONDS) for role in ROLES}


@attrs.define
class Counts:
    """See the module."""

    resumes: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(OUTCOMES, 0)))
    ended: Counter[EndCause] = attrs.field(factory=lambda: Counter(dict.fromkeys(CAUSES, 0)))
    goaways: Counter[Party] = attrs.field(factory=lambda: Counter(dict.fromkeys(ROLES, 0)))
    handovers: dict[Party, Histogram] = attrs.field(factory=_handovers)
    """From GOAWAY until the party was gone from here."""
    gaps: Histogram = attrs.field(factory=lambda: Histogram(GAP_SECONDS))
    """How long clients that resumed had been away."""
    failed_handouts: Counter[FailureCause] = attrs.field(factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))
    set_aside: int = 0
    """Sessions that this node has set aside."""
    jobs_stored: int = 0
    job_stores: Histogram = attrs.field(factory=lambda: Histogram(STORE_SECONDS))
    jobs_ended: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(sorted(ENDS), 0)))
    """Ends of jobs that clients here were told of."""
    job_lives: Histogram = attrs.field(factory=lambda: Histogram(JOB_SECONDS))
    openings_refused: Counter[str] = attrs.field(factory=Counter)
    """Connections that were open and were not let in, by the name of their dialect."""
    app_states: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(APP_STATES, 0)))
    """How often an app here came into each of its states."""
    app_messages: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(APP_MESSAGES, 0)))
    """What became of messages of apps, and of those that apps were not given."""
    apps_ended: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(APP_ENDS, 0)))
    """How the ends of apps came that were asked to clean up."""
    sessions_refused: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(FULL, 0)))
    """New sessions refused for what is in the store already, by what is full."""
    reload_ok: bool = True
    """Whether the configuration last read is in force."""
    reload_at_s: float = 0.0
    """When it was read (seconds since 1970)."""

    def reloaded(self, *, ok: bool, at_s: float) -> None:
        """The configuration was read again; `ok`: and applied."""
        self.reload_ok, self.reload_at_s = ok, at_s


@attrs.define
class Counters:
    """Totals since the start."""

    sessions_started: int = 0
    sessions_ended: int = 0
    resumes: int = 0
    resumes_refused: int = 0
    token_reuse: int = 0
    workers_registered: int = 0
    reseeds: int = 0
