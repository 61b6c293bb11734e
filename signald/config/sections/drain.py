"""The sections `[drain]` and `[pace]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class DrainConfig:
    """Budgets of a shutdown. Their sum must fit `stop_timeout_s` or the configuration is refused."""

    timeout_s: float = key(
        90.0,
        "From the start of a drain to its end; what is not done by then is closed with 1001. `check-config` says how many "
        "sessions that is time for.",
        unit="seconds",
        reload=True,
    )
    stop_timeout_s: float = key(
        105.0,
        "What the supervisor grants before it kills: TimeoutStopSec of systemd, terminationGracePeriodSeconds of "
        "Kubernetes less its preStop time.",
        unit="seconds",
        reload=True,
    )
    margin_s: float = key(
        5.0,
        "Kept free before the supervisor's limit, so that signald always ends by itself.",
        unit="seconds",
        at_least=0,
        reload=True,
    )
    unready_s: float = key(
        0.0,
        "Pause after readiness turned false, for load balancers that take a while to notice. 10 to 20 s where "
        "no preStop pause is configured.",
        unit="seconds",
        at_least=0,
        reload=True,
    )
    successor_timeout_s: float = key(
        10.0,
        "Wait for a ready node to hand over to; none: parties are told to come back (1012).",
        unit="seconds",
        reload=True,
    )
    worker_timeout_s: float = key(
        10.0,
        "A worker's time to claim its sessions on the successor before it is given up.",
        unit="seconds",
        reload=True,
    )
    client_timeout_s: float = key(
        10.0,
        "A client's time to resume on the successor before it is closed with 1001.",
        unit="seconds",
        reload=True,
    )
    terminate_timeout_s: float = key(
        10.0,
        "Wait for app_terminated of workers that do not speak handover.",
        unit="seconds",
        reload=True,
    )
    flush_timeout_s: float = key(
        2.0,
        "Time for send queues and appends under way, and for the receipt.",
        unit="seconds",
        reload=True,
    )
    close_timeout_s: float = key(2.0, "Time for the closing handshakes of what is left.", unit="seconds", reload=True)


@attrs.frozen
class PaceConfig:
    """The rate at which drains move parties: one budget for the whole cluster."""

    sessions_per_s: float = key(
        200.0,
        "Sessions moved per second by all draining nodes together; clients and workers move side by side, each at this "
        "pace. Slowed when successors fall behind, hurried when the deadline nears.",
        unit="sessions/s",
        reload=True,
    )
    gap_max_s: float = key(
        1.0,
        "Longest pause between two parties that are told to go, however slow the successors are.",
        unit="seconds",
        at_most=60,
        reload=True,
    )
