"""The section `[core]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class CoreConfig:
    """The core server of the operator's application: it is asked before a new party is let in, and told what happens."""

    authorize_url: str = key(
        "",
        "Where each new party is asked for by POST before it is let in. Empty: a good credential is enough. It may be an inner "
        "address. It must be https, or http to loopback.",
        unit="URL",
        reload=True,
    )
    authorize_timeout_s: float = key(
        2.0,
        "For one such question with its answer; after it the core server counts as away. An opening waits this long at most.",
        unit="seconds",
        at_least=0.05,
        at_most=30,
        reload=True,
    )
    on_failure: Literal["closed", "open"] = key(
        "closed",
        "While the core server is away: refuse new parties (core_unavailable, 1013), or let them in without its settings. Parties that "
        "resume never wait for it.",
        reload=True,
    )
    authorize_cache_max: int = key(
        10_000,
        "Answers with ttl_ms that a node keeps, in 16 MiB at most; the one not used for longest goes first. 0: each party is asked for.",
        unit="answers",
        at_least=0,
        at_most=1_000_000,
        reload=True,
    )
    authorize_in_flight_max: int = key(
        64,
        "Questions of this node that wait for an answer at once; the next waits for one of them, within its own time. A core server that "
        "answers in 20 ms is asked 3,200 times a second so.",
        unit="questions",
        at_least=1,
        at_most=1024,
        reload=True,
    )
    breaker_failures_max: int = key(
        5,
        "Failures in a row after which the core server counts as away without being asked, so that new parties need not wait for a "
        "time-out each.",
        unit="failures",
        at_least=1,
        reload=True,
    )
    breaker_pause_s: float = key(
        5.0,
        "How long it is not asked then; after it a single party's question tries whether it is back.",
        unit="seconds",
        at_least=0.1,
        at_most=300,
        reload=True,
    )
    allow_http: bool = key(
        False,
        "Speak http with other hosts too. Any machine between can read claims and change answers; only for a mesh that encrypts.",
        reload=True,
    )
    secret: str = key(
        "",
        "Secret of Standard Webhooks (whsec_ and the base64 of 24 to 64 bytes) that signs what the core server is sent. Empty: nothing "
        "is signed.",
        secret=True,
        reload=True,
    )
    secret_file: str = key("", "File that holds it instead. Excludes secret.", unit="path", reload=True)
    secret_previous: str = key(
        "",
        "The secret before. While it is set both sign, so that the core server can change to the new one at any moment.",
        secret=True,
        reload=True,
    )
    secret_previous_file: str = key(
        "", "File that holds it instead. Excludes secret_previous.", unit="path", reload=True
    )
    events_url: str = key(
        "",
        "Where the events in the lives of sessions, workers, jobs and deploys are told by POST. Empty: no event is stored, and none told. "
        "It may be an inner address. It must be https, or http to loopback.",
        unit="URL",
        reload=True,
    )
    events_timeout_s: float = key(
        10.0,
        "For one event with its answer; after it the event is tried again. A receiver should answer first and work then.",
        unit="seconds",
        at_least=0.1,
        at_most=60,
        reload=True,
    )
    events_keep_s: float = key(
        86_400.0,
        "For how long an event is tried again after it has happened; then it is dropped and counted. A day outlasts a repair.",
        unit="seconds",
        at_least=60,
        at_most=86_400,
        reload=True,
    )
    events_queue_max: int = key(
        1000,
        "Events of one session (worker, cluster) that wait; beyond it new ones are dropped and counted. A session has a dozen in its life, "
        "and two for each absence of its client. At 200 bytes each, 200 KB of the store.",
        unit="events",
        at_least=10,
        at_most=100_000,
        reload=True,
    )
    events_in_flight_max: int = key(
        16,
        "Events that a node tells at once, each of another session. A receiver that answers in 20 ms gets 800 in a second so.",
        unit="events",
        at_least=1,
        at_most=1024,
        reload=True,
    )
